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
_SMALLEST = 1e-3
_FIRST_GUESS = 0.3
_ENOUGH = 0.99
_SEARCH_STEPS = 14


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
    """A rate factor whose file fits a budget and uses 99 % of it where the picture can.

    File size is nearly a power of the rate factor, so the search interpolates between the
    logarithms of what it knows; it takes about five sizes.

    Args:
        size_bytes: file size at a rate factor; grows with it.
        budget_bytes: what the file may take.

    Raises:
        RateError: even the smallest file is larger; the message names its size.
    """
    low: tuple[float, float] | None = None
    high: tuple[float, float] | None = None
    scale = _FIRST_GUESS
    for _ in range(_SEARCH_STEPS):
        size = size_bytes(scale)
        if size <= budget_bytes:
            low = (scale, size)
            if size >= _ENOUGH * budget_bytes or scale >= _HIGHEST:
                return scale
        else:
            high = (scale, size)
            if scale <= _SMALLEST:
                raise RateError(
                    f"{budget_bytes} bytes are too few for this picture; "
                    f"the smallest possible is {math.ceil(size)} bytes"
                )
        scale = _next_scale(low, high, budget_bytes)
    return _SMALLEST if low is None else low[0]


def _next_scale(
    low: tuple[float, float] | None, high: tuple[float, float] | None, budget_bytes: int
) -> float:
    """Where to look next, given (scale, size) of the nearest file below and above the budget."""
    target = math.log(max(budget_bytes, 1) * (1 + _ENOUGH) / 2)
    if low is None or high is None:
        known = low or high
        if known is None or (high is not None and high[0] < _LOWEST):
            return _SMALLEST
        # One-sided: step as if size were a slow power of scale, to land on the other side.
        step = math.exp((target - math.log(known[1])) * 1.3)
        return min(_HIGHEST, max(_SMALLEST, known[0] * (step * 1.05 if high is None else step)))
    x, y = ([math.log(point[i]) for point in (low, high)] for i in (0, 1))
    part = (target - y[0]) / (y[1] - y[0])
    return math.exp(x[0] + min(0.9, max(0.1, part)) * (x[1] - x[0]))
