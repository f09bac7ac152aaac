"""Weights on the grids of the integers that they are frozen to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["on_grid", "whole"]


def on_grid(value: Tensor, grid: int, largest: int) -> Tensor:
    """The nearest multiple of 1/grid, at most largest/grid; gradient of the identity within."""
    limited = value.clamp(-largest / grid, largest / grid)
    # Halves go up, as the shifts of the integers round.
    return limited + (torch.floor(limited * grid + 0.5) / grid - limited).detach()


def whole(weight: Tensor, grid: int, largest: int, kind: type) -> NDArray[np.integer[Any]]:
    """What :func:`on_grid` gives, in steps of 1/grid, as an array of some integer type."""
    rounded = (weight * grid + 0.5).floor().clamp(-largest, largest)
    return np.ascontiguousarray(rounded.detach().cpu().numpy().astype(kind))
