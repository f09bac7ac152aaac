"""Values of an encoder network to whole numbers, in steps that get smaller with the level.

For models whose codes are values. The encoder network gives each value y in 16-bit fixed point::

    round(1024 y) + 32768, cut off at 0 and 65535: high byte in channel k, low byte in channel n + k

What is sent of it at level l, and what a decoder network makes of that::

    q = round(y / step[l]), cut off at -127 and 127            y^ = step[l] q

Values that a level does not have are 0. One pass of the encoder network so serves every rate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FIXED_POINT", "LARGEST", "LARGEST_STEP", "SMALLEST_STEP", "ZERO", "Quantiser"]

LARGEST = 127
"""Largest whole number; the smallest is its negative."""
ZERO = 128
"""The byte that 0 is sent to a decoder network as."""
FIXED_POINT = 1024
"""Fixed point has steps of ``1 / FIXED_POINT``."""
SMALLEST_STEP = 1 / FIXED_POINT
"""Fixed point tells no smaller steps apart."""
LARGEST_STEP = 64
"""Every value is 0 in larger steps."""
_MIDDLE = 1 << 15
_POSITIONS = 1 << 14
"""Positions that are quantised at once: about 20 MB of arrays for 128 values."""


class Quantiser:
    """The quantiser of one model.

    Args:
        steps: float32 [L + 1], from :data:`SMALLEST_STEP` to :data:`LARGEST_STEP` but for level 0.
        first_levels: the level that each value exists from, uint8 [n].
    """

    def __init__(self, steps: NDArray[np.float32], first_levels: NDArray[np.uint8]) -> None:
        levels = np.arange(len(steps), dtype=np.uint8)
        inverse = np.zeros(len(steps), np.float32)
        inverse[1:] = 1 / (steps[1:] * FIXED_POINT)
        # By value and level: 0 where there is nothing to send.
        self._scale = np.where(first_levels[:, None] <= levels, inverse, np.float32(0))
        self.steps = steps

    def quantised(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bytes ``q + 128``, uint8 [n, h, w].

        Args:
            codes: fixed point, uint8 [2n, h, w].
            levels: uint8 [h, w].
        """
        high, low = codes.reshape(2, len(codes) // 2, -1)
        level = levels.reshape(-1)
        found = np.empty_like(high)
        for first in range(0, len(level), _POSITIONS):
            part = slice(first, first + _POSITIONS)
            y = (high[:, part].astype(np.uint16) << 8 | low[:, part]).astype(np.float32)
            y -= _MIDDLE
            y *= self._scale.take(level[part], 1)
            np.rint(y, out=y)
            np.clip(y, -LARGEST, LARGEST, out=y)
            y += ZERO
            found[:, part] = y
        return found.reshape(-1, *levels.shape)
