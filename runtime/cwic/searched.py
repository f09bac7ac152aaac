"""A picture whose codes are searched for: how far it is from what they decode to, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.backends import Runner
from cwic.neighbourhood import sums_around

__all__ = ["SLOPE", "Searched", "best_of_blocks"]

_BLOCK = 2
"""Positions along a side of a block: the effects of neighbours overlap, but rounds are dear."""
_PROBE = 20
"""Steps of 1/255 that pixels are moved by to measure curvature."""
SLOPE = 0.9
"""``-d log(error) / d log(bits)`` at usual rates: twice the bits bring 2.7 dB."""
_SMOOTH = 0.3
"""Power of the variance of a position's surroundings that its error is divided by."""


@dataclass(frozen=True)
class Searched:
    """A picture to be approximated; codes are those that its decoder graph takes.

    Attributes:
        runner: of the model.
        image: uint8 [8h, 8w, 3].
    """

    runner: Runner
    image: NDArray[np.uint8]

    def decoded(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.runner.decode(codes[None], levels[None])[0]
        return image

    def error(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Sum of squared differences of each position's pixels, [h, w]."""
        off = self.decoded(codes, levels).astype(np.float32) - self.image
        total: NDArray[np.float32] = _blocks(np.square(off), levels.shape).sum((1, 3, 4))
        return total

    def gradient(
        self,
        codes: NDArray[np.uint8],
        levels: NDArray[np.uint8],
        image: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Gradient [n, h, w] and error [h, w] against the picture, or another one."""
        image = self.image if image is None else image
        gradient, error = self.runner.gradient(codes[None], levels[None], image[None])
        return gradient[0], error[0]

    def curvature(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """How much each code moves pixels: an estimate of the square of it, [n, h, w].

        By Hutchinson's estimator: for J, the pixels' derivative, and random signs v, the mean
        of ``(J'v)**2`` is the diagonal of ``J'J``.
        """
        decoded = self.decoded(codes, levels).astype(np.int16)
        moved = decoded + _PROBE * rng.choice(np.array([-1, 1], np.int16), decoded.shape)
        moved = np.where((moved < 0) | (moved > 255), 2 * decoded - moved, moved)
        gradient, _ = self.gradient(codes, levels, moved.astype(np.uint8))
        return np.square(gradient / (2 * _PROBE))

    def weights(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """What the error of each position counts, about 1, [h, w]."""
        grey = self.image.astype(np.float32).mean(2, keepdims=True)
        variance = np.log(sums_around(_blocks(grey, size).var((1, 3, 4)), "edge") + 90)
        weights: NDArray[np.float32] = np.exp(_SMOOTH * (variance.mean() - variance))
        return weights


def _blocks(pixels: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Pixels [8h, 8w, c] by their position of a map of ``size``: [h, 8, w, 8, c]."""
    height, width = size
    side = pixels.shape[0] // height
    return pixels.reshape(height, side, width, side, -1)


def best_of_blocks(
    change: NDArray[np.float32], offset: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Channel, row and column of the smallest change of each block, where that is below 0.

    Args:
        change: [channels, h, w].
        offset: by how many positions the blocks are moved, two numbers below 2.
    """
    _, height, width = change.shape
    channel = change.argmin(0)
    smallest = np.take_along_axis(change, channel[None], 0)[0]
    pads = [
        (int(before), int(-(before + length) % _BLOCK))
        for before, length in zip(offset, (height, width), strict=True)
    ]
    padded = np.pad(smallest, pads, constant_values=np.inf)
    rows, columns = (side // _BLOCK for side in padded.shape)
    cut = padded.reshape(rows, _BLOCK, columns, _BLOCK).transpose(0, 2, 1, 3)
    blocks = cut.reshape(rows, columns, -1)
    best = blocks.argmin(2)
    block_row, block_column = np.nonzero(blocks.min(2) < 0)
    inner_row, inner_column = np.divmod(best[block_row, block_column], _BLOCK)
    row = block_row * _BLOCK + inner_row - offset[0]
    column = block_column * _BLOCK + inner_column - offset[1]
    return channel[row, column], row, column
