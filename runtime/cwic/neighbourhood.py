"""Sums over the neighbourhood of each position of a map."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["quarter", "sums_around"]

_Number = TypeVar("_Number", bound=np.number[Any])


def sums_around(values: NDArray[_Number], outside: Literal["constant", "edge"]) -> NDArray[_Number]:
    """Sums over the 3x3 positions around each of a map, same shape and dtype.

    Args:
        values: [h, w], or [h, w, c] for c maps at once.
        outside: what lies beyond the map: zeros (``constant``), or its edge continued.
    """
    wide = np.pad(values, [(1, 1), (1, 1), (0, 0)][: values.ndim], mode=outside)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total: NDArray[_Number] = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return total


def quarter(sums: NDArray[np.int16]) -> NDArray[np.int16]:
    """A quarter of sums, halves up: sums of sizes over neighbours stay in a byte."""
    return sums + np.int16(2) >> 2
