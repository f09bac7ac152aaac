"""Codes that are signs, and levels, from which the decoder network makes more of a picture.

In each round of :mod:`cwic.search`:

1. Changes are judged by the gradient g and the curvature c of a code of its channel. A code
   z = -1 or 1 that is turned changes the error by about ``4 c - 2 z g``; a level that falls takes
   away codes, ``c - z g`` each; one that rises brings back codes that the encoder decided,
   ``c + z g`` each. What the entropy model makes of a change counts too.
2. The map is cut into blocks of 2x2 positions, elsewhere in each round, and in each block the one
   change is made that promises most.
3. The result is decoded. Where the error of the 3x3 positions around a change, with its bits, has
   not become smaller it is taken back, and not tried again for some rounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.context import CodeModel
from cwic.neighbourhood import sums_around
from cwic.searched import SLOPE, Searched, best_of_blocks

__all__ = ["improved_signs"]

_REST = 30
"""Rounds in which a change is not tried again that was made in vain."""
_TYPICAL = 0.4
"""Curvature of most codes over the mean of their channel, which a few large ones raise."""
_MASKED_BITS = 0.9
"""What a code costs that is not kept so far, which the entropy model has not seen."""
_SEED = 0


def improved_signs(
    searched: Searched,
    model: CodeModel,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    rounds: int,
    movable: NDArray[np.bool_],
    keep_levels: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """See :func:`cwic.search.improved`, whose arguments these are; codes uint8 [n/8, h, w]."""
    signs = 2 * np.unpackbits(codes, axis=0).astype(np.float32) - 1
    group = np.arange(len(signs))[:, None, None] // model.size
    kept = group < levels
    if not kept.any():
        return codes, levels
    rng = np.random.default_rng(_SEED)
    weights = searched.weights(levels.shape)
    squares = searched.curvature(codes, levels, rng) * kept
    mean = squares.sum((1, 2)) / np.maximum(kept.sum((1, 2)), 1)
    curvature = weights * (_TYPICAL * mean).astype(np.float32)[:, None, None]
    more_bits, bits = model.turning_bits(codes, levels)
    bit = np.float32(SLOPE * (weights * searched.error(codes, levels)).sum() / bits)
    lean = bit * signs * more_bits
    cost = bit * np.where(kept, np.log2(1 + np.exp2(-more_bits)), np.float32(_MASKED_BITS))
    never = np.zeros((len(signs) + 2, *levels.shape), bool)  # of a channel, fall or rise
    never[:, ~movable] = True
    never[len(signs) :] |= keep_levels
    resting = np.zeros(never.shape, np.int32)
    for now in range(rounds):
        gradient, error = searched.gradient(_packed(signs), levels)
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
        change[-2][levels == 0] = change[-1][levels == model.levels] = np.inf
        change[never | (resting > now)] = np.inf
        made = best_of_blocks(change, rng.integers(2, size=2))
        if not len(made[0]):
            break
        step, places = made[0] - len(signs), made[1:]  # 0: a fall, 1: a rise
        after = levels.copy()
        after[places] = levels[places] + (step == 1) - (step == 0)
        turned = tuple(axis[step < 0] for axis in made)
        signs[turned] *= -1
        around = sums_around(weights * (searched.error(_packed(signs), after) - error), "constant")
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


def _packed(signs: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(signs > 0, axis=0)
