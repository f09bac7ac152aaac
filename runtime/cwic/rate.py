"""From importance to levels: the rate factor s and quality.

One encoder pass gives importance P; every rate is a choice of levels on the host:
``level = round(clip(s * P, 0, 1) * L)``. Larger s keeps more codes everywhere.
:mod:`cwic.targets` finds s for a size or a PSNR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cwic.errors import UsageError

__all__ = ["DEFAULT_QUALITY", "QUALITIES", "QualityScale", "levels_from_importance", "moved"]

DEFAULT_QUALITY = 50
QUALITIES = range(1, 101)


class QualityScale:
    """The rate factor of each quality 1..100.

    Args:
        scales: rising rate factors of qualities spread evenly from 1 to 100; between them
            log s is linear in quality. A model's are chosen when its entropy model is
            trained, so that equal steps of quality are equal steps of MS-SSIM in dB.
    """

    def __init__(self, scales: Sequence[float] = (0.06, 1.5)) -> None:
        self.scales = tuple(scales)
        rising = all(a < b for a, b in zip(self.scales, self.scales[1:], strict=False))
        if len(self.scales) < 2 or not rising or not 0 < self.scales[0] < self.scales[-1] <= 100:
            raise ValueError("quality scales must rise, within 0..100")
        self._qualities = np.linspace(QUALITIES[0], QUALITIES[-1], len(self.scales))
        self._logs = np.log(self.scales)

    @property
    def highest(self) -> float:
        """Training draws s up to this; beyond, more bytes would not mean a better picture."""
        return self.scales[-1]

    def scale(self, quality: float) -> float:
        """Rate factor of a quality.

        Raises:
            UsageError: it is outside 1..100.
        """
        if not 1 <= quality <= 100:
            raise UsageError(f"quality {quality} is outside 1..100; use for example 50")
        return math.exp(float(np.interp(quality, self._qualities, self._logs)))

    def quality(self, scale: float) -> int:
        """The whole quality nearest to a rate factor, clipped to 1..100."""
        return round(float(np.interp(math.log(max(scale, 1e-9)), self._logs, self._qualities)))


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


def moved(
    importance: NDArray[np.float64], scale: float, wanted: NDArray[np.uint8], levels: int
) -> NDArray[np.float64]:
    """Importance that gives other levels at a rate factor, and near it levels that go with them.

    Args:
        importance: P, float; it stays as it is where it gives what is wanted.
        scale: s.
        wanted: the levels at s, of the same shape.
        levels: L.
    """
    exact = np.clip(importance * scale, 0, 1) * levels
    before = levels_from_importance(importance, scale, levels)
    shifted = (wanted + np.clip(exact - before, -0.49, 0.49)) / (scale * levels)
    result: NDArray[np.float64] = np.where(before == wanted, importance, shifted)
    return result
