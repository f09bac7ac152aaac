"""The linear transform that a network of values starts as, and what photographs have in it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["dct_basis", "deviations"]

_SIDE = 8
_FLAT = 6.1, 2.0, 0.8
"""Standard deviation of the mean of a block: of grey, of red against blue, of green."""
_WAVES = (1.53, 0.47, 0.205), (0.36, 0.88, 0.124), (0.172, 0.773, 0.109)
"""a, b, c of that of frequency f: ``a f**-b exp(-c f)``; fitted to photographs, as all of it."""


def deviations() -> Tensor:
    """Standard deviation of what each row of :func:`dct_basis` makes of photographs, about.

    Returns:
        float32 [192], of pixels in [-1, 1]; from 6.1, the mean of grey, to 0.01.
    """
    found = []
    for flat, (a, b, c) in zip(_FLAT, _WAVES, strict=True):
        for index in range(_SIDE**2):
            f = math.hypot(*divmod(index, _SIDE))
            found.append(a * f**-b * math.exp(-c * f) if index else flat)
    return torch.tensor(found)


def dct_basis() -> Tensor:
    """Orthonormal rows, float32 [192, 192]: opponent colours times the DCT of 8x8 pixels.

    Columns are channels of a pixel-unshuffle by 8 of RGB.
    """
    k = torch.arange(_SIDE, dtype=torch.float64)
    dct = torch.cos(math.pi * (2 * k[None] + 1) * k[:, None] / (2 * _SIDE)) * math.sqrt(2 / _SIDE)
    dct[0] /= math.sqrt(2)
    colour = F.normalize(torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]).double(), dim=1)
    rows = torch.einsum("ab,iy,jx->aijbyx", colour, dct, dct)
    return rows.reshape(3 * _SIDE**2, 3 * _SIDE**2).float()
