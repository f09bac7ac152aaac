"""Values as the bytes that an encoder graph gives: 16-bit fixed point (:mod:`cwic.quantiser`)."""

from __future__ import annotations

import torch
from torch import Tensor

from cwic.quantiser import FIXED_POINT

__all__ = ["fixed_point_bytes"]

_MIDDLE = 32768.0
_LARGEST = 65535.0


def fixed_point_bytes(y: Tensor) -> Tensor:
    """Values float32 [N, n, h, w] to uint8 [N, 2n, h, w]: high bytes, then low ones."""
    whole = torch.round(y * FIXED_POINT + _MIDDLE).clamp(0.0, _LARGEST)
    high = torch.floor(whole / 256)
    return torch.cat([high, whole - 256 * high], 1).to(torch.uint8)
