"""Which digits of which values there are, in which order, for a network that starts as a DCT.

What photographs have at each frequency says how often a digit at a threshold is not 0, and so
what it is worth: :class:`~cwic_training.planes.BitPlanes` has the digits that are worth most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Schedule", "dct_basis", "deviations", "schedule"]

_SIDE = 8
_TOP = 8.0
"""Highest threshold, for an orthonormal transform of 8x8 pixels in [-1, 1]."""
_SMALLEST_OCCUPANCY = 0.004
_FLAT = 6.1, 2.0, 0.8
"""Standard deviation of the mean of a block: of grey, of red against blue, of green."""
_WAVES = (1.53, 0.47, 0.205), (0.36, 0.88, 0.124), (0.172, 0.773, 0.109)
"""a, b, c of that of frequency f: ``a f**-b exp(-c f)``; fitted to photographs, as all of it."""


@dataclass(frozen=True)
class Schedule:
    """Digits in the order in which levels keep them.

    Attributes:
        value: which of the m values each belongs to.
        threshold: T of each.
        occupancy: about how often a digit is not 0.
        rows: which row of :func:`dct_basis` each value starts as.
    """

    value: tuple[int, ...]
    threshold: tuple[float, ...]
    occupancy: tuple[float, ...]
    rows: tuple[int, ...]


def deviations() -> Tensor:
    """Standard deviation of what each row of :func:`dct_basis` makes of photographs, about."""
    found = []
    for flat, (a, b, c) in zip(_FLAT, _WAVES, strict=True):
        for index in range(_SIDE**2):
            f = math.hypot(*divmod(index, _SIDE))
            found.append(a * f**-b * math.exp(-c * f) if index else flat)
    return torch.tensor(found)


@lru_cache(maxsize=8)
def schedule(n: int, groups: int) -> Schedule:
    """The digits that are worth most, the dearest first.

    What a bit saves at threshold T is about ``T**2`` times the fifth root of how often the digit
    is not 0.

    Args:
        n: codes, two a digit.
        groups: how many groups they are decided in; the digits of one belong to different values.
    """
    digits, together = n // 2, n // groups // 2
    candidates = []
    for row, deviation in enumerate(deviations().tolist()):
        for plane in range(12):
            threshold = _TOP * 2.0**-plane
            occupancy = math.exp(-1.71 * (threshold / deviation) ** 0.67)
            if occupancy >= _SMALLEST_OCCUPANCY:
                candidates.append((-(threshold**2) * occupancy**0.2, row, threshold, occupancy))
    waiting = sorted(candidates)
    chosen: list[tuple[int, float, float]] = []
    while len(chosen) < digits:
        rows: set[int] = set()
        left = []
        for candidate in waiting:
            _, row, threshold, occupancy = candidate
            if row in rows or len(rows) == together:
                left.append(candidate)
            else:
                rows.add(row)
                chosen.append((row, threshold, occupancy))
        waiting = left
    chosen = chosen[:digits]
    order = list(dict.fromkeys(row for row, _, _ in chosen))
    return Schedule(
        tuple(order.index(row) for row, _, _ in chosen),
        tuple(threshold for _, threshold, _ in chosen),
        tuple(occupancy for _, _, occupancy in chosen),
        tuple(order),
    )


def dct_basis() -> Tensor:
    """Orthonormal rows [192, 192]: an opponent colour transform times the DCT of 8x8 pixels.

    Columns are channels of a pixel-unshuffle by 8 of RGB.
    """
    k = torch.arange(_SIDE, dtype=torch.float64)
    dct = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * _SIDE)) * math.sqrt(2 / _SIDE)
    dct[0] /= math.sqrt(2)
    colour = F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]).double(), dim=1)
    rows = torch.einsum("ab,iy,jx->aijbyx", colour, dct, dct)
    return rows.reshape(3 * _SIDE**2, 3 * _SIDE**2).float()
