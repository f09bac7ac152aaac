"""In which order a stream has its codes: plain, or in layers for a progressive one.

Plain, group follows group, each over all positions whose level is above it.

A progressive stream has sixteen layers in three stages. Every stage first makes the levels finer,
then has its layers. With ``a = l + 2``::

    stage  known of the level l   which is taken for   layers t
    0      a div 4                v = 4 (a div 4)      1 to 8
    1      a div 2                v = 2 (a div 2) - 2  9 to 14
    2      a                      v = l                15 to 16

v is cut off at L. Up to the end of layer t a position has its first ``R(t) = (v t + 8) div 16``
groups (or as many as before, if that is more): about the level that it would have at t/16 of the
rate factor. So what was read by then is a coarser file of the same picture. Levels become finer
as late as that lets them: told early, they would take the place of codes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "OFFSET",
    "STAGES",
    "Step",
    "layer_of",
    "prefixes",
    "stage_of",
    "stage_steps",
    "stand_ins",
]

OFFSET = 2
STAGES = ((2, 2, range(1, 9)), (1, 0, range(9, 15)), (0, 0, range(15, 17)))
"""Of each stage: lower bits of a that are not known, v above the lowest level, layers."""
_LAYERS = 16

Step = tuple[int, NDArray[np.bool_]]
"""A group, and whether a position of each level has it in this step, [L + 1]."""


def prefixes(levels: NDArray[np.uint8], stage: int) -> NDArray[np.intp]:
    """What is known of levels after a stage has refined them."""
    return (levels.astype(np.intp) + OFFSET) >> STAGES[stage][0]


def stand_ins(known: NDArray[np.intp], stage: int, levels: int) -> NDArray[np.uint8]:
    """What these prefixes are taken for, uint8 0..L."""
    shift, above, _ = STAGES[stage]
    taken_for: NDArray[np.uint8] = np.clip((known << shift) - OFFSET + above, 0, levels)
    return taken_for.astype(np.uint8)


@lru_cache(maxsize=16)
def layer_of(levels: int) -> NDArray[np.intp]:
    """The layer 1..16 that has a group, [L, L + 1] by group and level; 17 where none has it."""
    level = np.arange(levels + 1, dtype=np.uint8)
    reach = []
    for stage, (_, _, layers) in enumerate(STAGES):
        v = stand_ins(prefixes(level, stage), stage, levels).astype(np.intp)
        reach += [(v * t + _LAYERS // 2) // _LAYERS for t in layers]
    reached = np.maximum.accumulate(reach)
    later: NDArray[np.intp] = (reached[:, None, :] <= np.arange(levels)[:, None]).sum(axis=0)
    return 1 + later


def stage_of(layer: NDArray[np.intp]) -> NDArray[np.intp]:
    """The stage of layers 1..16."""
    return np.searchsorted([layers[-1] for _, _, layers in STAGES], layer)


@lru_cache(maxsize=64)
def stage_steps(levels: int, stage: int) -> list[Step]:
    """Of one stage; which positions have a group is said of what their levels are taken for."""
    found, level = layer_of(levels), np.arange(levels + 1, dtype=np.uint8)
    taken_for = stand_ins(prefixes(level, stage), stage, levels)
    steps = []
    for layer in STAGES[stage][2]:
        for g in range(levels):
            having = np.zeros(levels + 1, np.bool_)
            having[taken_for] = found[g] == layer
            if having.any():
                steps.append((g, having))
    return steps
