"""From importance to levels: the rate factor s and quality.

One encoder pass gives importance P; every rate is a choice of levels on the host:
``level = round(clip(s * P, 0, 1) * L)``. Larger s keeps more codes everywhere.
:mod:`cwic.budget` finds s for a size.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cwic.errors import UsageError

__all__ = [
    "DEFAULT_QUALITY",
    "HIGHEST_SCALE",
    "QUALITIES",
    "levels_from_importance",
    "quality_from_scale",
    "scale_from_quality",
]

DEFAULT_QUALITY = 50
QUALITIES = range(1, 101)
HIGHEST_SCALE = 1.5
"""Training draws s up to this; beyond, more bytes would not mean a better picture."""
_LOWEST = 0.06


def scale_from_quality(quality: float) -> float:
    """Rate factor of a quality 1..100: evenly spaced in log s, from 0.06 to 1.5.

    Raises:
        UsageError: out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is outside 1..100; use for example 50")
    return float(_LOWEST * (HIGHEST_SCALE / _LOWEST) ** ((quality - 1) / 99))


def quality_from_scale(scale: float) -> int:
    """The whole quality nearest to a rate factor, clipped to 1..100."""
    quality = 1 + 99 * math.log(max(scale, 1e-9) / _LOWEST) / math.log(HIGHEST_SCALE / _LOWEST)
    return min(100, max(1, round(quality)))


def levels_from_importance(
    importance: NDArray[np.uint8] | NDArray[np.float64], scale: float, levels: int
) -> NDArray[np.uint8]:
    """``round(clip(scale * P, 0, 1) * L)``, half to even; any shape.

    Args:
        importance: P in steps of 1/255 as uint8, or as float.
        scale: s.
        levels: L.
    """
    whole = importance.dtype == np.uint8
    p = np.arange(256) / 255 if whole else importance
    rounded: NDArray[np.uint8] = np.rint(np.clip(p * scale, 0, 1) * levels).astype(np.uint8)
    return rounded[importance] if whole else rounded
