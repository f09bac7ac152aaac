"""Values from which the decoder network makes more of a picture, or as much for fewer bits.

In each round of :mod:`cwic.search`:

1. A value q that becomes one more or one less changes the error by about ``c + g`` or ``c - g``,
   for its gradient g and curvature c, and costs other bits.
2. The map is cut into blocks of 2x2 positions, elsewhere in each round. In each block, at the
   position where they promise most together, the best few changes are made.
3. The result is decoded. Where the error of the 3x3 positions around, with the bits, has not become
   smaller all of a position is taken back; the next time half as many changes are tried there, and
   after a single one was in vain it rests for some rounds.

Values that are small and dear become 0 most of all: what is called rate-distortion optimised
quantisation. Levels stay as they are, for they say what values mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.neighbourhood import sums_around
from cwic.quantiser import LARGEST, ZERO
from cwic.searched import SLOPE, Searched, best_of_blocks
from cwic.value_model import ValueModel

__all__ = ["improved_values"]

_MOST = 8
"""Changes at a position in a round."""
_REST = 30
"""Rounds in which a position is left alone."""
_REPRICED = 4
"""Rounds after which bits are counted anew: neighbours predict each other."""
_UNKNOWN_BITS = np.float32(1000)
_SEED = 0


def improved_values(
    searched: Searched,
    model: ValueModel,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    rounds: int,
    movable: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """See :func:`cwic.search.improved`, whose arguments these are; codes uint8 [n, h, w]."""
    kept = model.kept(levels) & movable
    if not kept.any():
        return codes
    rng = np.random.default_rng(_SEED)
    weights = searched.weights(levels.shape)
    step = model.steps_at(levels)
    # A level's step scales how much a value moves pixels; what is left is the channel's own.
    squares = searched.curvature(codes, levels, rng) / np.square(np.where(step > 0, step, 1))
    mean = (squares * kept).sum((1, 2)) / np.maximum(kept.sum((1, 2)), 1)
    curvature = weights * np.square(step) * mean.astype(np.float32)[:, None, None]
    q = codes.astype(np.int16) - ZERO
    many = np.full(levels.shape, _MOST)
    resting = np.zeros(levels.shape, np.int32)
    bit = np.float32(0)
    lower = higher = np.zeros(0, np.float32)
    for now in range(rounds):
        if now % _REPRICED == 0:
            lower, higher, bits = model.step_bits(_bytes(q), levels)
            bit = bit or np.float32(
                SLOPE * (weights * searched.error(codes, levels)).sum() / max(bits, 1)
            )
        gradient, error = searched.gradient(_bytes(q), levels)
        push = weights * gradient
        fall = np.where(kept & (q > -LARGEST), curvature - push + bit * lower, 0)
        rise = np.where(kept & (q < LARGEST), curvature + push + bit * higher, 0)
        change = np.minimum(np.minimum(fall, rise), 0)
        change[:, resting > now] = 0
        promised = np.sort(np.partition(change, _MOST - 1, axis=0)[:_MOST], axis=0)
        together = np.cumsum(promised, axis=0)
        total = np.take_along_axis(together, many[None] - 1, 0)
        _, *places = best_of_blocks(np.where(total < 0, total, np.inf), rng.integers(2, size=2))
        chosen = np.zeros(levels.shape, bool)
        chosen[tuple(places)] = True
        if not chosen.any():
            break
        least = np.take_along_axis(promised, many[None] - 1, 0)
        made = chosen & (change < 0) & (change <= least)
        moves = np.where(fall < rise, -1, 1) * made
        spent = (bit * np.where(moves < 0, lower, higher) * made).sum(0)
        q += moves.astype(np.int16)
        around = sums_around(weights * (searched.error(_bytes(q), levels) - error), "constant")
        vain = chosen & (around + spent >= 0)
        q[:, vain] -= moves[:, vain].astype(np.int16)
        # Until bits are counted anew a value that moved may go back only: further on, its price
        # is not known.
        rose, fell = (made & ~vain & (moves == way) for way in (1, -1))
        lower, higher = (
            np.where(rose, -higher, np.where(fell, _UNKNOWN_BITS, lower)),
            np.where(fell, -lower, np.where(rose, _UNKNOWN_BITS, higher)),
        )
        resting[vain & (many == 1)] = now + _REST
        many[vain] = np.maximum(many[vain] // 2, 1)
    return _bytes(q)


def _bytes(q: NDArray[np.int16]) -> NDArray[np.uint8]:
    return (q + ZERO).astype(np.uint8)
