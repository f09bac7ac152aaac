"""Tiles of a map: the parts of a picture that are entropy-coded by themselves.

Networks see the whole picture, so a tile has no visible border; only predictions do not
cross one. A map of ``h x w`` positions has ``ceil(h / side)`` rows of tiles and
``ceil(w / side)`` columns; row i of R begins at ``i * h // R``, and likewise columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Tile", "tile_count", "tile_grid"]


@dataclass(frozen=True)
class Tile:
    """A rectangle of positions."""

    top: int
    left: int
    height: int
    width: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Its rows and columns, to index a map."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


def tile_count(height: int, width: int, side: int) -> int:
    """Tiles of a map of ``height x width`` positions."""
    return -(-height // side) * -(-width // side)


def tile_grid(height: int, width: int, side: int) -> list[Tile]:
    """All tiles by rows; none is larger than ``side`` positions in either direction."""
    tops, lefts = _cuts(height, side), _cuts(width, side)
    return [
        Tile(top, left, bottom - top, right - left)
        for top, bottom in pairwise(tops)
        for left, right in pairwise(lefts)
    ]


def _cuts(length: int, side: int) -> list[int]:
    parts = -(-length // side)
    return [i * length // parts for i in range(parts + 1)]
