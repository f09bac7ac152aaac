"""Codes that are bit planes, rounded to the digits that levels keep.

Some models have values behind their codes: codes ``2 j`` and ``2 j + 1`` say that digit j of a
value that is positive, or negative, is 1, and the digits of a value follow one another, each worth
half the one before. An encoder decides all of them; which are kept is known later. What lies
behind the last digit that is kept need not be thrown away: the value is rounded, so that fewer
digits say more. A decoder knows nothing of it.

With s digits left out, the value, counted in its last digit, is raised by ``LIFT[s]`` before it is
cut: from three quarters of a digit up where more than one is left out, for a value that is
nearer to 0 costs less to code; from half of one up where one is.

Array ``planes.values`` of ``context.safetensors``: uint16 [n/2], the value of each digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BundleError

__all__ = ["LIFT", "Rounding"]

LIFT = 0.0, 0.5, 0.25
"""By the number of digits left out; the last is that of more."""
_MOST_DIGITS = 14
_POSITIONS = 1 << 14
"""Positions that are rounded at once: about 20 MB of arrays for 384 codes."""


class Rounding:
    """The digits of a model's values.

    Args:
        tensors: the arrays of ``context.safetensors`` by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: ``planes.values`` is not of the form above.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        value = tensors["planes.values"]
        if (value.dtype.name, value.shape) != ("uint16", (n // 2,)):
            raise BundleError("planes.values does not fit the model; export the model again")
        self._value = value.astype(np.intp)
        self._digits = np.bincount(self._value)
        if not 0 < self._digits.min() <= self._digits.max() <= _MOST_DIGITS or n // levels % 2:
            raise BundleError("planes.values has no such digits; export the model again")
        place = np.empty(n // 2, np.int16)
        seen = np.zeros(len(self._digits), np.intp)
        kept = np.zeros((levels + 1, len(self._digits)), np.intp)
        for digit, v in enumerate(self._value):
            seen[v] += 1
            place[digit] = self._digits[v] - seen[v]
            kept[2 * digit // (n // levels) + 1 :, v] += 1
        left_out = self._digits[:, None] - kept.T
        lift = np.array([int(4 * part) for part in LIFT])[left_out.clip(max=len(LIFT) - 1)]
        # By value and level: what is added, and which bits of a number are digits that are kept.
        self._lift = (lift << left_out >> 2).astype(np.int16)
        self._kept = (-1 << left_out).astype(np.int16)
        self._largest = ((1 << self._digits) - 1).astype(np.int16)[:, None]
        self._weights = np.zeros((len(self._digits), n // 2), np.float32)
        self._weights[self._value, np.arange(n // 2)] = 1 << place
        self._place = place[:, None]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> Rounding | None:
        """None if the codes of the model are no bit planes."""
        return cls(tensors, n, levels) if "planes.values" in tensors else None

    def codes(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes for these levels; those that are not kept are 0.

        Args:
            codes: as the encoder network decides them, uint8 [n/8, h, w].
            levels: uint8 [h, w].

        Returns:
            uint8 [n/8, h, w]. Codes that were rounded to the same levels stay as they are.
        """
        flat, level = codes.reshape(len(codes), -1), levels.reshape(-1)
        rounded = np.empty_like(flat)
        for first in range(0, len(level), _POSITIONS):
            part = slice(first, first + _POSITIONS)
            rounded[:, part] = self._part(flat[:, part], level[part])
        return rounded.reshape(codes.shape)

    def _part(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Of positions in a row: [n/8, p] and [p]."""
        pairs = np.unpackbits(codes, axis=0).reshape(-1, 2, codes.shape[1])
        signed = (self._weights @ pairs[:, 0] - self._weights @ pairs[:, 1]).astype(np.int16)
        size = np.abs(signed)
        size += self._lift.take(levels, 1)
        np.minimum(size, self._largest, out=size)
        size &= self._kept.take(levels, 1)
        digits = size.take(self._value, 0)
        digits >>= self._place
        digits &= 1
        np.multiply(digits, (signed > 0).take(self._value, 0), out=pairs[:, 0], casting="unsafe")
        np.multiply(digits, (signed < 0).take(self._value, 0), out=pairs[:, 1], casting="unsafe")
        return np.packbits(pairs.reshape(-1, codes.shape[1]), axis=0)
