"""Weights on the grids of the integers that they are frozen to, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cwic.errors import CheckpointError
from cwic.exact_layers import ACTIVATION, WEIGHT_GRID

__all__ = ["ACTIVATIONS", "BIASES", "WEIGHTS", "Grid", "on_grid", "start_from", "whole"]


@dataclass(frozen=True)
class Grid:
    """Multiples of 1/grid up to largest/grid, and the type of the integers."""

    grid: int
    largest: int
    kind: type[np.integer[Any]]


WEIGHTS = Grid(WEIGHT_GRID, 127, np.int8)
ACTIVATIONS = Grid(ACTIVATION, 1 << 15, np.int32)
"""Of what is added to the first layer."""
BIASES = Grid(ACTIVATION * WEIGHT_GRID, 1 << 20, np.int32)
"""Of the other layers."""


def on_grid(value: Tensor, grid: int, largest: int) -> Tensor:
    """The nearest multiple of 1/grid, at most largest/grid; gradient of the identity within."""
    limited = value.clamp(-largest / grid, largest / grid)
    # Halves go up, as the shifts of the integers round.
    return limited + (torch.floor(limited * grid + 0.5) / grid - limited).detach()


def whole(weight: Tensor, grid: Grid) -> NDArray[np.integer[Any]]:
    """What :func:`on_grid` gives, in steps of the grid, as an array of its type."""
    rounded = (weight * grid.grid + 0.5).floor().clamp(-grid.largest, grid.largest)
    return np.ascontiguousarray(rounded.detach().cpu().numpy().astype(grid.kind))


@torch.no_grad()
def start_from(module: nn.Module, grids: Mapping[str, Grid], tables: Mapping[str, Tensor]) -> None:
    """Set parameters to what :func:`whole` made of others.

    Args:
        module: has the parameters.
        grids: of each, by name.
        tables: the integers of each, by name.

    Raises:
        CheckpointError: one is missing or of another shape.
    """
    for name, grid in grids.items():
        parameter, table = module.get_parameter(name), tables.get(name)
        if table is None or table.shape != parameter.shape:
            raise CheckpointError(
                f"the entropy network to start from has no {name} that fits this model; "
                "name a release of the same model, or start from none"
            )
        parameter.copy_(table.float() / grid.grid)
