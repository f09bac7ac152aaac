"""A map of values while it is coded: which are known, and what predicts others from them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cwic.known import Geometry, geometry
from cwic.neighbourhood import quarter, sums_around
from cwic.quantiser import ZERO

__all__ = ["ValueMap"]


class ValueMap:
    """The values known so far, and their features; 0: not kept or not known.

    By group there is one more position, of zeros: what lies outside the map.

    Args:
        sizes: values of each group.
        features: of a value by its byte, int8 [256].
        height, width: of the map.
    """

    def __init__(
        self, sizes: tuple[int, ...], features: NDArray[np.int8], height: int, width: int
    ) -> None:
        self.shape = height, width
        self.order: Geometry = geometry(height, width)
        self._features = features
        self._firsts = np.cumsum([0, *sizes]).tolist()
        positions = height * width
        self._own = [np.zeros((positions + 1, size), np.int8) for size in sizes]
        self._numbers = [np.zeros((positions + 1, size), np.int8) for size in sizes]
        # Of groups that are known: features, and sums of their sizes around.
        self._here = np.empty((positions, self._firsts[-2]), np.int8)
        self._around = np.empty((positions, self._firsts[-2]), np.uint8)
        self._before = (0, np.zeros((0, 0), np.float32))

    def fill(self, g: int, positions: NDArray[np.intp], values: NDArray[np.int8]) -> None:
        """Make values of group g known, int8 [positions, c]."""
        self._own[g][positions] = self._features[values.view(np.uint8)]
        self._numbers[g][positions] = values

    def near(
        self, g: int, kept: NDArray[np.intp]
    ) -> tuple[NDArray[np.int8], NDArray[np.int8], NDArray[np.intp]]:
        """Features and values of group g by position, and where the neighbours of some are there.

        Args:
            g: group.
            kept: some positions, as indices into the order of coding.

        Returns:
            int8 [h w + 1, c] twice, and [kept, 12].
        """
        return self._own[g], self._numbers[g], self.order.neighbours[kept]

    def before(
        self,
        g: int,
        product: Callable[[NDArray[np.int8], NDArray[np.uint8]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """What a product makes of the earlier groups, all of whose values are known, [h w, H].

        Groups are coded one after the other, so it is computed when a group begins.

        Args:
            g: group.
            product: of features and sums of their sizes around, both [h w, k].
        """
        done, found = self._before
        if done < g or not found.size:
            for earlier in range(done, g):
                self._add(earlier)
            known = slice(self._firsts[g])
            found = product(self._here[:, known], self._around[:, known])
            self._before = g, found
        return found

    def _add(self, g: int) -> None:
        """A group whose values are known to those that later ones are predicted from."""
        part = slice(self._firsts[g], self._firsts[g + 1])
        own = self._own[g][:-1]
        self._here[:, part] = own
        large = np.abs(own).reshape(*self.shape, -1).astype(np.int16)
        sums = sums_around(large, "constant") - large
        self._around[:, part] = quarter(sums).reshape(own.shape)

    def codes(self) -> NDArray[np.uint8]:
        """All values as bytes ``q + 128``, uint8 [n, h, w]."""
        values = np.concatenate([numbers[:-1] for numbers in self._numbers], axis=1)
        return np.ascontiguousarray(values.T.view(np.uint8) ^ ZERO).reshape(-1, *self.shape)
