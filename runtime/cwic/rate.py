"""From importance to levels: the rate factor s, quality, bit rate and byte budget.

One encoder pass gives importance P; every rate is a choice of levels on the host:
``level = round(clip(s * P, 0, 1) * L)``. Larger s keeps more codes everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cwic.errors import RateError, UsageError

__all__ = [
    "DEFAULT_QUALITY",
    "QUALITIES",
    "levels_from_importance",
    "quality_from_scale",
    "scale_for_budget",
    "scale_from_quality",
]

DEFAULT_QUALITY = 50
QUALITIES = range(1, 101)
# Training draws s up to 1.5; beyond, more bytes would not mean a better picture.
_LOWEST, _HIGHEST = 0.06, 1.5
_SEARCH_STEPS = 12


def scale_from_quality(quality: float) -> float:
    """Rate factor of a quality 1..100: evenly spaced in log s, from 0.06 to 1.5.

    Raises:
        UsageError: out of range.
    """
    if not 1 <= quality <= 100:
        raise UsageError(f"quality {quality} is outside 1..100; use for example 50")
    return float(_LOWEST * (_HIGHEST / _LOWEST) ** ((quality - 1) / 99))


def quality_from_scale(scale: float) -> int:
    """The whole quality nearest to a rate factor, clipped to 1..100."""
    quality = 1 + 99 * math.log(max(scale, 1e-9) / _LOWEST) / math.log(_HIGHEST / _LOWEST)
    return min(100, max(1, round(quality)))


def levels_from_importance(
    importance: NDArray[np.uint8], scale: float, levels: int
) -> NDArray[np.uint8]:
    """``round(clip(scale * importance / 255, 0, 1) * L)``, half to even; any shape."""
    table = np.rint(np.clip(np.arange(256) * (scale / 255), 0, 1) * levels).astype(np.uint8)
    chosen: NDArray[np.uint8] = table[importance]
    return chosen


def scale_for_budget(size_bytes: Callable[[float], float], budget_bytes: int) -> float:
    """The largest rate factor whose file fits a budget.

    Args:
        size_bytes: file size at a rate factor; grows with it.
        budget_bytes: what the file may take.

    Raises:
        RateError: even the smallest file is larger; the message names its size.
    """
    low, high = math.log(_LOWEST / 8), math.log(_HIGHEST)
    smallest = size_bytes(math.exp(low))
    if smallest > budget_bytes:
        raise RateError(
            f"{budget_bytes} bytes are too few for this picture; "
            f"the smallest possible is {math.ceil(smallest)} bytes"
        )
    if size_bytes(math.exp(high)) <= budget_bytes:
        return math.exp(high)
    for _ in range(_SEARCH_STEPS):
        middle = (low + high) / 2
        if size_bytes(math.exp(middle)) <= budget_bytes:
            low = middle
        else:
            high = middle
    return math.exp(low)
