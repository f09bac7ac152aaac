"""Analysis by synthesis: codes and levels from which the decoder network makes more of a picture.

The encoder network decides each code bit once, and each level without seeing what comes of it. A
search decodes what was decided and looks for changes that are worth their bits: it needs the
decoder's gradient, and no training, and gives an ordinary stream, about as large. In each round:

1. Changes are judged by the gradient g and the curvature c of a code of its channel, which is
   measured once at the start. A code z = -1 or 1 that is turned changes the error by about
   ``4 c - 2 z g``; a level that falls takes away codes, ``c - z g`` each; one that rises brings
   back codes that the encoder decided, ``c + z g`` each. What the entropy model makes of a change
   counts too: a bit is worth the error that it would save if it were spent on all the codes.
2. The map is cut into blocks of 2x2 positions, elsewhere in each round, and in each block the one
   change is made that promises most.
3. The result is decoded. Where the error of the 3x3 positions around a change, with its bits, has
   not become smaller it is taken back, and not tried again for some rounds.

The error is the squared error, weighted a little for smooth surroundings: it lifts PSNR and, less,
MS-SSIM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.backends import Runner
from cwic.context import CodeModel
from cwic.neighbourhood import sums_around

__all__ = ["improved"]

_BLOCK = 2
"""Positions along a side of a block: the effects of neighbours overlap, but rounds are dear."""
_REST = 30
"""Rounds in which a change is not tried again that was made in vain."""
_PROBE = 20
"""Steps of 1/255 that pixels are moved by to measure curvature."""
_TYPICAL = 0.4
"""Curvature of most codes over the mean of their channel, which a few large ones raise."""
_SLOPE = 0.9
"""``-d log(error) / d log(bits)`` at usual rates: twice the bits bring 2.7 dB."""
_MASKED_BITS = 0.9
"""What a code costs that is not kept so far, which the entropy model has not seen."""
_SMOOTH = 0.3
"""Power of the variance of a position's surroundings that its error is divided by."""
_SEED = 0


@dataclass(frozen=True)
class _Searched:
    """A picture to be approximated.

    Attributes:
        runner: of the model.
        image: uint8 [8h, 8w, 3].
    """

    runner: Runner
    image: NDArray[np.uint8]

    def decoded(self, signs: NDArray[np.float32], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.runner.decode(_packed(signs)[None], levels[None])[0]
        return image

    def error(self, signs: NDArray[np.float32], levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Sum of squared differences of each position's pixels, [h, w]."""
        off = self.decoded(signs, levels).astype(np.float32) - self.image
        total: NDArray[np.float32] = _blocks(np.square(off), levels.shape).sum((1, 3, 4))
        return total

    def gradient(
        self,
        signs: NDArray[np.float32],
        levels: NDArray[np.uint8],
        image: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Gradient [n, h, w] and error [h, w] against the picture, or another one."""
        image = self.image if image is None else image
        gradient, error = self.runner.gradient(_packed(signs)[None], levels[None], image[None])
        return gradient[0], error[0]

    def curvature(
        self,
        signs: NDArray[np.float32],
        levels: NDArray[np.uint8],
        kept: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """How much one code of a channel moves pixels: the square of it, [n, 1, 1].

        By Hutchinson's estimator: for J, the pixels' derivative, and random signs v, the mean
        of ``(J'v)**2`` is the diagonal of ``J'J``.
        """
        decoded = self.decoded(signs, levels).astype(np.int16)
        moved = decoded + _PROBE * rng.choice(np.array([-1, 1], np.int16), decoded.shape)
        moved = np.where((moved < 0) | (moved > 255), 2 * decoded - moved, moved)
        gradient, _ = self.gradient(signs, levels, moved.astype(np.uint8))
        squares = np.square(gradient / (2 * _PROBE)) * kept
        mean = squares.sum((1, 2)) / np.maximum(kept.sum((1, 2)), 1)
        curvature: NDArray[np.float32] = (_TYPICAL * mean).astype(np.float32)
        return curvature[:, None, None]

    def weights(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """What the error of each position counts, about 1, [h, w]."""
        grey = self.image.astype(np.float32).mean(2, keepdims=True)
        variance = np.log(sums_around(_blocks(grey, size).var((1, 3, 4)), "edge") + 90)
        weights: NDArray[np.float32] = np.exp(_SMOOTH * (variance.mean() - variance))
        return weights


def improved(
    runner: Runner,
    context: CodeModel,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    image: NDArray[np.uint8],
    *,
    rounds: int,
    movable: NDArray[np.bool_] | None = None,
    keep_levels: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes and levels that decode to a picture nearer to ``image`` for their bits.

    Args:
        runner: of the model; a round runs its decoder graph once and its gradient graph once.
        context: of the model.
        codes: uint8 [n/8, h, w], where to start.
        levels: uint8 [h, w], the same.
        image: uint8 [8h, 8w, 3].
        rounds: of the search.
        movable: bool [h, w], positions that may be changed; None: all.
        keep_levels: change codes only.

    Returns:
        uint8 [n/8, h, w] and [h, w]. The same arguments give the same.

    Raises:
        BackendError, BundleError: see :meth:`cwic.backends.Runner.gradient`.
    """
    signs = 2 * np.unpackbits(codes, axis=0).astype(np.float32) - 1
    group = np.arange(len(signs))[:, None, None] // context.size
    kept = group < levels
    if not kept.any():
        return codes, levels
    rng = np.random.default_rng(_SEED)
    searched = _Searched(runner, image)
    weights = searched.weights(levels.shape)
    curvature = weights * searched.curvature(signs, levels, kept, rng)
    more_bits, bits = context.turning_bits(codes, levels)
    bit = np.float32(_SLOPE * (weights * searched.error(signs, levels)).sum() / bits)
    lean = bit * signs * more_bits
    cost = bit * np.where(kept, np.log2(1 + np.exp2(-more_bits)), np.float32(_MASKED_BITS))
    never = np.zeros((len(signs) + 2, *levels.shape), bool)  # of a channel, fall or rise
    if movable is not None:
        never[:, ~movable] = True
    never[len(signs) :] |= keep_levels
    resting = np.zeros(never.shape, np.int32)
    for now in range(rounds):
        gradient, error = searched.gradient(signs, levels)
        push = weights * gradient * signs
        last, first = group == levels - 1.0, group == levels  # to go with a fall, or come back
        fall_bits, rise_bits = _level_bits(levels)
        price = np.concatenate(
            [
                signs * lean,
                [bit * fall_bits - (cost * last).sum(0), bit * rise_bits + (cost * first).sum(0)],
            ]
        )
        change = price + np.concatenate(
            [
                np.where(group < levels, 4 * curvature - 2 * push, np.inf),
                [((curvature - push) * last).sum(0), ((curvature + push) * first).sum(0)],
            ]
        )
        change[-2][levels == 0] = change[-1][levels == context.levels] = np.inf
        change[never | (resting > now)] = np.inf
        made = _best_of_blocks(change, rng.integers(_BLOCK, size=2))
        if not len(made[0]):
            break
        step, places = made[0] - len(signs), made[1:]  # 0: a fall, 1: a rise
        after = levels.copy()
        after[places] = levels[places] + (step == 1) - (step == 0)
        turned = tuple(axis[step < 0] for axis in made)
        signs[turned] *= -1
        around = sums_around(weights * (searched.error(signs, after) - error), "constant")
        vain = around[places] + price[made] >= 0
        resting[tuple(axis[vain] for axis in made)] = now + _REST
        signs[tuple(axis[vain & (step < 0)] for axis in made)] *= -1
        back = tuple(axis[vain] for axis in places)
        after[back] = levels[back]
        levels = after
    return _packed(signs), levels


def _level_bits(
    levels: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What levels cost more if one of them falls, or rises, by one.

    ``log2(1 + |d|)`` for each difference d of neighbours, as in training.
    """
    own = levels.astype(np.float32)
    wide = np.pad(own, 1, constant_values=np.nan)
    sides = np.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])

    def bits(level: NDArray[np.float32]) -> NDArray[np.float32]:
        total: NDArray[np.float32] = np.nansum(np.log2(1 + np.abs(level - sides)), 0)
        return total

    return bits(own - 1) - bits(own), bits(own + 1) - bits(own)


def _blocks(pixels: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Pixels [8h, 8w, c] by their position of a map of ``size``: [h, 8, w, 8, c]."""
    height, width = size
    side = pixels.shape[0] // height
    return pixels.reshape(height, side, width, side, -1)


def _best_of_blocks(
    change: NDArray[np.float32], offset: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Channel, row and column of the smallest change of each block, where that is below 0."""
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


def _packed(signs: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(signs > 0, axis=0)
