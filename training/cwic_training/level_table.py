"""The table of level frequencies of :mod:`cwic.level_model`: counted, and smoothed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.level_model import LEVEL_SPREADS, level_context, level_contexts
from cwic.scan import KINDS, PASSES

__all__ = ["frequencies", "level_table"]

_SHRINKAGE = 8.0


def level_table(maps: Iterable[NDArray[np.uint8]], levels: int) -> NDArray[np.uint16]:
    """Rows of frequencies: counts, shrunk towards all contexts of the same mean.

    Args:
        maps: levels of pictures at rates that they are coded at, uint8 [h, w] each.
        levels: L.
    """
    counts = np.zeros((level_contexts(levels), levels + 1))
    for chosen in maps:
        flat = chosen.reshape(-1)
        for scan in PASSES:
            positions = scan.positions(*chosen.shape)
            nearest = scan.neighbours(positions, *chosen.shape)[:, :4]
            context = level_context(flat, scan, nearest, levels)
            np.add.at(counts, (context, flat[positions]), 1)
    by_mean = counts.reshape(KINDS, 2 * levels + 1, LEVEL_SPREADS, levels + 1)
    # Where nothing of a mean was seen, levels near to it are likelier.
    mean, level = np.ogrid[0 : 2 * levels + 1, 0 : levels + 1]
    shared = by_mean[:-1].sum(axis=(0, 2)) + 2.0 ** -abs(level - mean / 2)
    prior = shared / shared.sum(axis=1, keepdims=True)
    smoothed = by_mean + _SHRINKAGE * prior[None, :, None, :]
    return frequencies(smoothed.reshape(-1, levels + 1))


def frequencies(weights: NDArray[Any]) -> NDArray[np.uint16]:
    """Scale rows of positive weights to whole numbers >= 1 that sum to 65536."""
    symbols = weights.shape[1]
    share = weights / weights.sum(axis=1, keepdims=True) * (65536 - symbols)
    whole = np.floor(share).astype(np.int64) + 1
    whole[np.arange(len(whole)), share.argmax(axis=1)] += 65536 - whole.sum(axis=1)
    found: NDArray[np.uint16] = whole.astype(np.uint16)
    return found
