"""The passes of :mod:`cwic.scan` as tensors."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cwic.scan import PASSES, Pass

__all__ = ["pass_tensors"]


@lru_cache(maxsize=8)
def pass_tensors(height: int, width: int, device: str) -> list[tuple[Pass, Tensor, Tensor]]:
    """Passes that have positions, with positions [M] and neighbours [M, 12 or 0]."""
    found = []
    for scan in PASSES:
        positions = scan.positions(height, width)
        neighbours = scan.neighbours(positions, height, width)
        if len(positions):
            first, second = (torch.from_numpy(a).to(device) for a in (positions, neighbours))
            found.append((scan, first, second))
    return found
