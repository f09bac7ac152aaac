"""The order in which a map of positions is coded: nine passes from coarse to fine.

::

    pass 0         every 16th position of every 16th row
    per s = 8,4,2,1:
      diagonal     odd multiples of s in both directions; known: the corners (+-s, +-s) and on
      straight     odd in one direction only; known: up, down, left, right at distance s and on

Within a pass no position depends on another, so a pass is computed for the whole map at
once. Levels and every group of codes are coded in the same passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "NEIGHBOURS", "PASSES", "Pass"]

_COARSEST = 16
NEIGHBOURS = 12
"""Known positions that a pass looks at, the nearest four first; none in the first pass."""
KINDS = 7
"""Kinds of passes: 0, 1 diagonal and straight at s = 1; 2, 3 at s = 2; 4, 5 above; 6 the first."""

_DIAGONAL = (
    *((-1, -1), (-1, 1), (1, -1), (1, 1)),
    *((-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)),
)
_STRAIGHT = (
    *((-1, 0), (0, -1), (0, 1), (1, 0)),
    *((-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)),
)


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        kind: passes of one kind share their model.
        starts: row and column of the first position of each lattice in the pass.
        stride: distance of positions within a lattice.
        offsets: rows and columns from a position to its known neighbours.
    """

    kind: int
    starts: tuple[tuple[int, int], ...]
    stride: int
    offsets: tuple[tuple[int, int], ...]

    def positions(self, height: int, width: int) -> NDArray[np.intp]:
        """Flat indices of the pass in a [height, width] map, in coding order."""
        flat = np.arange(height * width).reshape(height, width)
        return np.concatenate(
            [flat[y :: self.stride, x :: self.stride].ravel() for y, x in self.starts]
        )

    def neighbours(self, positions: NDArray[np.intp], height: int, width: int) -> NDArray[np.intp]:
        """Flat indices of the known neighbours, [positions, 12 or 0].

        A neighbour outside the map has the index ``height * width``.
        """
        rows, columns = np.divmod(positions, width)
        found = np.empty((len(positions), len(self.offsets)), np.intp)
        for t, (dy, dx) in enumerate(self.offsets):
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            found[:, t] = np.where(inside, y * width + x, height * width)
        return found


def _passes() -> tuple[Pass, ...]:
    passes = [Pass(KINDS - 1, ((0, 0),), _COARSEST, ())]
    step = _COARSEST // 2
    while step:
        kind = 2 * min(step.bit_length() - 1, 2)
        for k, starts, unit in (
            (kind, ((step, step),), _DIAGONAL),
            (kind + 1, ((0, step), (step, 0)), _STRAIGHT),
        ):
            offsets = tuple((dy * step, dx * step) for dy, dx in unit)
            passes.append(Pass(k, starts, 2 * step, offsets))
        step //= 2
    return tuple(passes)


PASSES = _passes()
"""The passes in coding order."""
