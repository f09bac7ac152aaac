"""The search for the rate factor s that meets a target: a byte budget, or a PSNR.

File size is predicted instead of tried: which levels there are at some s follows from the
importance map, at no cost, and what a position of each level takes, about, the model knows. The
first file is made at that prediction, the next where it says after it was corrected by the
files that were made so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.errors import RateError
from cwic.neighbourhood import sums_around

__all__ = ["PSNR_TOLERANCE_DB", "Measured", "refined", "scale_for_budget", "scale_for_psnr"]

SMALLEST_SCALE = 1e-3
"""Below, no position of a picture keeps a code."""
_TYPICAL_LEVEL_BITS = 1.8
_TYPICAL_REST_BYTES = 60.0
_AIM, _ENOUGH = 0.996, 0.99
_MOST_FILES = 16
_TINY = 64
"""Several levels may make a file of so few bytes: then the highest of them is looked for."""
_BISECTIONS = 40
_FIRST_SHARE = 0.2
"""Of the highest rate factor's typical bits: where PSNR is measured first."""
_USUAL_SLOPE_DB, _LONGEST_STEP = 4.0, 1.5
"""PSNR over the logarithm of bits: what it is taken for first, and how far a step goes."""
PSNR_TOLERANCE_DB, _MOST_PICTURES = 0.05, 12
_SAME = 1.000001
_LEAST_SHARE = 0.02
"""Of the mean level's bits."""
_STEEPEST = 2.0
"""Of the curve beyond known files: files that are next to each other say little of its slope."""


@dataclass(frozen=True)
class Measured:
    """What one file took.

    Attributes:
        size_bytes: of the whole file.
        code_bits: ideal bits of its codes.
    """

    size_bytes: int
    code_bits: float


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
    """File size at any rate factor: typical bits of each level, corrected by known files.

    Bits of codes are a curve over what is typical, in logarithms: through the known files, and
    beyond them on. The rest of a file lies between those of the files next to it.
    """

    def __init__(self, importance: NDArray[np.float64], typical_bits: NDArray[np.float64]) -> None:
        self._sorted = np.sort(importance, axis=None)
        levels = len(typical_bits) - 1
        self._thresholds = (np.arange(levels) + 0.5) / levels
        # A level that adds nothing where it was typical may add something here.
        least = _LEAST_SHARE * typical_bits[-1] / levels
        self._more_bits = np.maximum(np.diff(typical_bits), least)
        self._rest_bytes = _TYPICAL_REST_BYTES + _TYPICAL_LEVEL_BITS * importance.size / 8
        self._known: list[tuple[float, float, float]] = []

    def _above(self, scale: float) -> NDArray[np.float64]:
        """Positions above the threshold of each level from 1 on."""
        below = np.searchsorted(self._sorted, self._thresholds / scale)
        return self._sorted.size - below.astype(np.float64)

    def typical(self, scale: float) -> float:
        """The logarithm of typical bits of codes."""
        return math.log1p(float(self._above(scale) @ self._more_bits))

    def __call__(self, scale: float) -> float:
        at = self.typical(scale)
        if not self._known:
            return self._rest_bytes + math.expm1(at) / 8
        typical, bits, rest = zip(*self._known, strict=True)
        code_bits = math.expm1(_on_the_curve(at, typical, bits))
        return float(np.interp(at, typical, rest)) + code_bits / 8

    def learn(self, scale: float, measured: Measured) -> None:
        """Correct by a file."""
        known = math.log1p(measured.code_bits), measured.size_bytes - measured.code_bits / 8
        self._known.append((self.typical(scale), *known))
        self._known.sort()

    def scale_for(self, size_bytes: float, low: float, high: float) -> float:
        """The rate factor between two others where a file is predicted to take ``size_bytes``."""
        return _crossing(lambda scale: self(scale) < size_bytes, low, high)

    def scale_at(self, typical: float, low: float, high: float) -> float:
        """The rate factor between two others where :meth:`typical` is so much."""
        return _crossing(lambda scale: self.typical(scale) < typical, low, high)

    def scale_with(self, share: float, low: float, high: float) -> float:
        """The rate factor between two others with this share of the typical bits of ``high``."""
        return self.scale_at(math.log1p(share * math.expm1(self.typical(high))), low, high)

    def middle(self, low: float, high: float) -> float:
        """The rate factor between two others that has half of the levels between them."""
        half = (self._above(low).sum() + self._above(high).sum()) / 2
        return _crossing(lambda scale: self._above(scale).sum() < half, low, high)


def _on_the_curve(at: float, x: Sequence[float], y: Sequence[float]) -> float:
    """The value at ``at`` of a curve through points, ``x`` rising; beyond them it goes on."""
    if x[0] <= at <= x[-1]:
        return float(np.interp(at, x, y))
    end, inner = (0, 1) if at < x[0] else (-1, -2)
    slope = 1.0
    if len(x) > 1 and x[end] != x[inner]:
        slope = (y[end] - y[inner]) / (x[end] - x[inner])
    return y[end] + min(_STEEPEST, max(1 / _STEEPEST, slope)) * (at - x[end])


def _crossing(below: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``below`` ends to hold."""
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if below(middle) else (low, middle)
    return low


def scale_for_budget(
    make: Callable[[float], Measured],
    budget_bytes: int,
    importance: NDArray[np.float64],
    typical_bits: NDArray[np.float64],
    highest_scale: float,
) -> float:
    """A rate factor whose file fits a budget and takes 99 % of it, where the picture can.

    Args:
        make: makes the file at a rate factor; that at the answer has been made.
        budget_bytes: what the file may take.
        importance: what ``make`` scales, see :func:`refined`.
        typical_bits: of a position, by level, [L + 1], rising from 0.
        highest_scale: where to stop though bytes are left.

    Raises:
        RateError: even the smallest file is larger; the message names its size.
    """
    predict = _Prediction(importance, typical_bits)
    low, high = SMALLEST_SCALE, highest_scale
    fits: float | None = None
    # Of a few bytes files are words apart: between two of them, not at one.
    aim = _AIM * budget_bytes if budget_bytes > _TINY else budget_bytes + 1.0
    before = last = 0.0  # by how much the two last predictions missed
    for _ in range(_MOST_FILES):
        if before * last > 0 and abs(last) > abs(before) / 2:  # predictions creep to one side
            last = 0.0
            scale = predict.middle(low, high)
        else:
            scale = predict.scale_for(aim, low, high)
        if fits is not None and scale < fits * _SAME:
            break  # no level lies between this file and one that is too large
        measured = make(scale)
        predict.learn(scale, measured)
        before, last = last, math.log(measured.size_bytes / max(1.0, aim))
        if measured.size_bytes <= budget_bytes:
            fits = low = scale
            enough = budget_bytes > _TINY and measured.size_bytes >= _ENOUGH * budget_bytes
            if enough or scale >= 0.999 * highest_scale:
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
    psnr_db: Callable[[float], float],
    target_db: float,
    importance: NDArray[np.float64],
    typical_bits: NDArray[np.float64],
    highest_scale: float,
) -> float:
    """The rate factor whose picture reaches a PSNR, and by no more than 0.05 dB if it can.

    PSNR is nearly a line in the logarithm of the bits that levels typically take, so the search
    follows the line through what it knows; it takes about six pictures.

    Args:
        psnr_db: PSNR at a rate factor.
        target_db: what is wanted at least.
        importance, typical_bits: as of :func:`scale_for_budget`.
        highest_scale: where to give up.

    Raises:
        RateError: no rate factor reaches it; the message names the best PSNR.
    """
    predict = _Prediction(importance, typical_bits)
    low, high = SMALLEST_SCALE, highest_scale
    known: dict[float, float] = {}
    enough: float | None = None
    scale, sides = predict.scale_with(_FIRST_SHARE, low, high), [False, True]
    for _ in range(_MOST_PICTURES):
        known[predict.typical(scale)] = found = psnr_db(scale)
        sides.append(found >= target_db)
        if sides[-1]:
            enough = high = scale
            if found <= target_db + PSNR_TOLERANCE_DB:
                break
        else:
            low = scale
            if scale >= highest_scale:
                raise RateError(
                    f"{target_db:g} dB cannot be reached with this picture; "
                    f"ask for at most {math.floor(100 * found) / 100:.2f} dB"
                )
        # Twice on one side: the line is bent there, and following it would creep.
        bracketed = enough is not None and low > SMALLEST_SCALE
        creeps = bracketed and sides[-1] == sides[-2]
        if not creeps:
            at = _on_the_line(known, target_db)
            beyond = at >= predict.typical(high)
            scale = high if beyond else predict.scale_at(at, low, high)
        if creeps or predict.typical(scale) in known:
            scale = highest_scale if enough is None else predict.middle(low, high)
            if predict.typical(scale) in known:
                break  # no level lies between the two
    return highest_scale if enough is None else enough


def _on_the_line(known: dict[float, float], target_db: float) -> float:
    """Where the line through two known PSNRs reaches a little more than the target.

    They are the nearest below and above, or the two nearest if all lie on one side.
    """
    wanted = target_db + PSNR_TOLERANCE_DB / 2
    near = sorted(known.items(), key=lambda item: abs(item[1] - wanted))
    x0, y0 = near[0]
    if len(near) < 2:
        return x0 + (wanted - y0) / _USUAL_SLOPE_DB
    other = (point for point in near if (point[1] < wanted) != (y0 < wanted))
    x1, y1 = next(other, near[1])
    slope = (y1 - y0) / (x1 - x0)
    step = (wanted - y0) / slope if slope > 0 else 1.0
    return x0 + min(_LONGEST_STEP, max(-_LONGEST_STEP, step))
