"""The search for the rate factor s that meets a target: a byte budget, or a PSNR.

File size is predicted instead of tried: how many codes each group has at some s follows
from the importance map, at no cost, and what a code of each group takes, in bits,
from the files that were made so far. The first file is made at a prediction from typical
costs, the second at one from its own; it nearly always fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.errors import RateError
from cwic.neighbourhood import sums_around

__all__ = ["Measured", "refined", "scale_for_budget", "scale_for_psnr"]

SMALLEST_SCALE = 1e-3
"""Below, no position of a picture keeps a code."""
_TYPICAL_CODE_BITS = 0.78
_TYPICAL_LEVEL_BITS = 1.8
_TYPICAL_REST_BYTES = 60.0
_AIM, _ENOUGH = 0.996, 0.99
_MOST_FILES = 16
_BISECTIONS = 40
_FIRST_SCALE, _SECOND_SCALE = 0.15, 0.5  # where PSNR is measured first
_PSNR_TOLERANCE_DB, _MOST_PICTURES = 0.05, 12
_CLOSE, _SAME = 1.002, 1.000001


@dataclass(frozen=True)
class Measured:
    """What one file took.

    Attributes:
        size_bytes: of the whole file.
        group_bits: ideal bits of the codes of each group, [L].
    """

    size_bytes: int
    group_bits: NDArray[np.float64]


def refined(importance: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Importance, about 0..1, without equal values, so that levels can rise one by one.

    A picture may have one importance in a third of its positions; rounded as they are, all
    their levels would rise at once, and file size by a fifth. Among equals, those with more
    important surroundings come first, then the upper rows: that keeps the levels smooth.
    """
    around = sums_around(importance.astype(np.int32), "edge")
    flat = importance.reshape(-1)
    order = np.lexsort((-np.arange(flat.size), around.reshape(-1), flat))
    counts = np.bincount(flat, minlength=256)
    first = np.cumsum(counts) - counts
    fraction = np.empty(flat.size)
    fraction[order] = (np.arange(flat.size) - first[flat[order]] + 0.5) / counts[flat[order]]
    return ((flat + fraction - 0.5) / 255).reshape(importance.shape)


class _Prediction:
    """File size at any rate factor, by typical costs or by those of the last file."""

    def __init__(self, importance: NDArray[np.float64], levels: int, group_size: int) -> None:
        self._sorted = np.sort(importance, axis=None)
        self._group_size = group_size
        self._thresholds = (np.arange(levels) + 0.5) / levels
        self._code_bits = np.full(levels, _TYPICAL_CODE_BITS)
        self._rest_bytes = _TYPICAL_REST_BYTES + _TYPICAL_LEVEL_BITS * importance.size / 8

    def _codes(self, scale: float) -> NDArray[np.float64]:
        """Codes of each group, [L]: group g has its codes where the level is above g."""
        below = np.searchsorted(self._sorted, self._thresholds / scale)
        codes: NDArray[np.float64] = self._group_size * (self._sorted.size - below.astype(float))
        return codes

    def __call__(self, scale: float) -> float:
        return self._rest_bytes + float(self._codes(scale) @ self._code_bits) / 8

    def learn(self, scale: float, measured: Measured) -> None:
        """Take the costs of a file; a group that it has not is taken to cost its average."""
        codes, bits = self._codes(scale), measured.group_bits
        average = bits.sum() / codes.sum() if codes.any() else _TYPICAL_CODE_BITS
        self._code_bits = np.divide(bits, codes, np.full_like(bits, average), where=codes > 0)
        self._rest_bytes = measured.size_bytes - float(bits.sum()) / 8

    def scale_for(self, size_bytes: float, low: float, high: float) -> float:
        """The rate factor between two others where a file is predicted to take ``size_bytes``."""
        for _ in range(_BISECTIONS):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if self(middle) < size_bytes else (low, middle)
        return low


def scale_for_budget(
    make: Callable[[float], Measured],
    budget_bytes: int,
    importance: NDArray[np.float64],
    levels: int,
    group_size: int,
    highest_scale: float,
) -> float:
    """A rate factor whose file fits a budget and takes 99 % of it, where the picture can.

    Args:
        make: makes the file at a rate factor; that at the answer has been made.
        budget_bytes: what the file may take.
        importance: what ``make`` scales, see :func:`refined`.
        levels: L.
        group_size: n/L, codes of a group at a position.
        highest_scale: where to stop though bytes are left.

    Raises:
        RateError: even the smallest file is larger; the message names its size.
    """
    predict = _Prediction(importance, levels, group_size)
    low, high = SMALLEST_SCALE, highest_scale
    fits: float | None = None
    for _ in range(_MOST_FILES):
        scale = predict.scale_for(_AIM * budget_bytes, low, high)
        if high / low < _CLOSE:  # so close that size is no smooth function any more
            scale = math.sqrt(low * high)
        measured = make(scale)
        predict.learn(scale, measured)
        if measured.size_bytes <= budget_bytes:
            fits = low = scale
            if measured.size_bytes >= _ENOUGH * budget_bytes or scale >= 0.999 * highest_scale:
                break
        else:
            high = scale
        if high / low < _SAME:
            break
    if fits is not None:
        return fits
    smallest = make(SMALLEST_SCALE).size_bytes
    if smallest > budget_bytes:
        raise RateError(
            f"{budget_bytes} bytes are too few for this picture; "
            f"the smallest possible is {smallest} bytes"
        )
    return SMALLEST_SCALE


def scale_for_psnr(
    psnr_db: Callable[[float], float], target_db: float, highest_scale: float
) -> float:
    """The rate factor whose picture reaches a PSNR, and by no more than 0.05 dB if it can.

    PSNR is nearly a line in log s, so the search follows the line through what it knows; it
    takes about six pictures.

    Args:
        psnr_db: PSNR at a rate factor.
        target_db: what is wanted at least.
        highest_scale: where to give up.

    Raises:
        RateError: no rate factor reaches it; the message names the best PSNR.
    """
    low, high = SMALLEST_SCALE, highest_scale
    known: dict[float, float] = {}
    enough: float | None = None
    scale, sides = _FIRST_SCALE, [False, True]
    for _ in range(_MOST_PICTURES):
        known[scale] = found = psnr_db(scale)
        sides.append(found >= target_db)
        if sides[-1]:
            enough = high = scale
            if found <= target_db + _PSNR_TOLERANCE_DB:
                break
        else:
            low = scale
            if scale >= highest_scale:
                raise RateError(
                    f"{target_db:g} dB cannot be reached with this picture; "
                    f"ask for at most {math.floor(100 * found) / 100:.2f} dB"
                )
        if high / low < _SAME:
            break
        scale = min(high, max(low, _on_the_line(known, target_db)))
        # Twice on one side: the line is bent there, and following it would creep.
        bracketed = enough is not None and low > SMALLEST_SCALE
        if scale in known or (bracketed and sides[-1] == sides[-2]):
            scale = highest_scale if enough is None else math.sqrt(low * high)
    return highest_scale if enough is None else enough


def _on_the_line(known: dict[float, float], target_db: float) -> float:
    """Where the line through two known PSNRs reaches a little more than the target.

    They are the nearest below and above, or the two nearest if all lie on one side.
    """
    if len(known) < 2:
        return _SECOND_SCALE
    wanted = target_db + _PSNR_TOLERANCE_DB / 2
    near = sorted(known.items(), key=lambda item: abs(item[1] - wanted))
    x0, y0 = near[0]
    other = (point for point in near if (point[1] < wanted) != (y0 < wanted))
    x1, y1 = next(other, near[1])
    slope = (y1 - y0) / math.log(x1 / x0)
    step = (wanted - y0) / slope if slope > 0 else 1.0
    return x0 * math.exp(min(1.0, max(-1.0, step)))
