"""A map of codes while it is coded: the order of its positions, and which codes are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cwic.scan import NEIGHBOURS, PASSES

__all__ = ["CodeMap", "Geometry", "geometry"]


@dataclass(frozen=True)
class Geometry:
    """The passes of one map size, concatenated in coding order."""

    positions: NDArray[np.intp]  # [h w]
    neighbours: NDArray[np.intp]  # [h w, 12]; h w: outside
    sizes: tuple[int, ...]  # positions per pass

    @property
    def passes(self) -> Iterator[tuple[int, slice]]:
        """Kind of each pass and where it lies."""
        first = 0
        for scan, size in zip(PASSES, self.sizes, strict=True):
            yield scan.kind, slice(first, first + size)
            first += size

    def chosen(
        self, chosen: NDArray[np.bool_]
    ) -> tuple[NDArray[np.intp], list[tuple[int, slice]], list[int]]:
        """Some of the positions, bool [h w], pass after pass.

        Returns:
            Their indices into the order of coding; the kind of each pass that has any, with
            where those lie among them; and how many each of all passes has.
        """
        kept = np.flatnonzero(chosen[self.positions])
        kinds, sizes = [], []
        for kind, part in self.passes:
            first, last = np.searchsorted(kept, [part.start, part.stop])
            sizes.append(int(last - first))
            if last > first:
                kinds.append((kind, slice(int(first), int(last))))
        return kept, kinds, sizes


@lru_cache(maxsize=16)
def geometry(height: int, width: int) -> Geometry:
    positions = [scan.positions(height, width) for scan in PASSES]
    neighbours = [np.full((len(positions[0]), NEIGHBOURS), height * width, np.intp)]
    for scan, found in zip(PASSES[1:], positions[1:], strict=True):
        neighbours.append(scan.neighbours(found, height, width))
    sizes = tuple(len(found) for found in positions)
    return Geometry(np.concatenate(positions), np.concatenate(neighbours), sizes)


class CodeMap:
    """The codes known so far as -1, 0, 1, by position and by group; 0: masked or not known.

    By group there is one more position, of zeros: what lies outside the map.

    Args:
        n: code channels.
        levels: L, the number of groups.
        height, width: of the map.
    """

    def __init__(self, n: int, levels: int, height: int, width: int) -> None:
        self.shape = height, width
        self.order = geometry(height, width)
        self._size = n // levels
        self._by_position = np.zeros((height * width, n), np.int8)
        self._by_group = np.zeros((levels, height * width + 1, self._size), np.int8)

    def fill(self, g: int, positions: NDArray[np.intp], bits: NDArray[np.uint8]) -> None:
        """Make bits of group g known, uint8 [positions, c]."""
        signs = 2 * bits.view(np.int8) - 1
        self._by_position[positions, g * self._size : (g + 1) * self._size] = signs
        self._by_group[g, positions] = signs

    def inputs(self, g: int, kept: NDArray[np.intp]) -> NDArray[np.float32]:
        """What predicts group g: own group at the neighbours, then the earlier groups.

        Args:
            g: the group.
            kept: positions, as indices into the order of coding.

        Returns:
            [kept, 12 c + g c].
        """
        width = NEIGHBOURS * self._size
        inputs = np.empty((len(kept), width + g * self._size), np.float32)
        own = self._by_group[g].take(self.order.neighbours[kept], axis=0)
        inputs[:, :width] = own.reshape(len(kept), width)
        # Whole rows, then their beginnings: take() copies what is not contiguous.
        here = self._by_position.take(self.order.positions[kept], axis=0)
        inputs[:, width:] = here[:, : g * self._size]
        return inputs

    def codes(self) -> NDArray[np.uint8]:
        """The codes, uint8 [n/8, h, w]; what is not known is 0."""
        bits = (self._by_position > 0).T.reshape(-1, *self.shape)
        return np.packbits(bits, axis=0)
