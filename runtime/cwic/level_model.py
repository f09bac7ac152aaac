"""Probabilities of importance levels: integer tables, indexed by the levels around.

In the passes of :mod:`cwic.scan`; of a position's four nearest known neighbours, those
inside the map::

    mean    (2 * sum + count // 2) // count        0..2L, in halves
    spread  highest - lowest: 0, 1, 2..3, 4 and more
    row     (kind of the pass * (2L + 1) + mean) * 4 + spread; the first pass: mean = spread = 0

The row of ``levels.frequencies`` gives the probability of each level in 1/65536.

A progressive stream tells the levels in the stages of :mod:`cwic.layers`, by the same rows,
from what the levels around are taken for: a prefix has the probability of all its levels
together, in proportion to that of the prefix before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import BundleError, CorruptError
from cwic.layers import OFFSET, STAGES, prefixes, stand_ins
from cwic.scan import KINDS, PASSES, Pass

__all__ = ["LEVEL_SPREADS", "Intervals", "LevelModel", "level_context", "level_contexts"]

LEVEL_SPREADS = 4
_NEAREST = 4
IntervalPair = tuple[NDArray[np.uint16], NDArray[np.uint16]]
"""``starts`` and ``freqs`` of a pass."""

_BITS_COST = 16 - np.log2(np.maximum(np.arange(65537), 1)).astype(np.float64)


@dataclass(frozen=True)
class Intervals:
    """What the entropy coder writes: one interval per symbol, pass after pass.

    Attributes:
        starts, freqs: uint16 [symbols], in 1/65536.
        pass_sizes: symbols per pass.
    """

    starts: NDArray[np.uint16]
    freqs: NDArray[np.uint16]
    pass_sizes: tuple[int, ...]

    @property
    def bits(self) -> float:
        """Ideal code length under the model, in bits."""
        return float(_BITS_COST[self.freqs].sum())

    @property
    def pass_bits(self) -> NDArray[np.float64]:
        """:attr:`bits` of each pass."""
        ends = np.cumsum(self.pass_sizes)
        up_to = np.append(0.0, np.cumsum(_BITS_COST[self.freqs]))
        bits: NDArray[np.float64] = np.diff(up_to[ends], prepend=0.0)
        return bits

    def to_bytes(self, lanes: int) -> bytes:
        """The rANS stream of these symbols."""
        return rans.encode(self.starts, self.freqs, self.pass_sizes, lanes)

    @classmethod
    def joined(cls, parts: list[IntervalPair]) -> Intervals:
        """One after the other, each ``(starts, freqs)`` a pass."""
        none = np.zeros(0, np.uint16)
        return cls(
            np.concatenate([none, *(starts for starts, _ in parts)]),
            np.concatenate([none, *(freqs for _, freqs in parts)]),
            tuple(len(starts) for starts, _ in parts),
        )


def level_contexts(levels: int) -> int:
    """Number of rows for a highest level L."""
    return KINDS * (2 * levels + 1) * LEVEL_SPREADS


@lru_cache(maxsize=16)
def _nearest(height: int, width: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Positions and their four nearest known neighbours, pass after pass."""
    found = []
    for scan in PASSES:
        positions = scan.positions(height, width)
        found.append((positions, scan.neighbours(positions, height, width)[:, :_NEAREST]))
    return found


def level_context(
    known: NDArray[np.uint8], scan: Pass, neighbours: NDArray[np.intp], levels: int
) -> NDArray[np.intp]:
    """Row of the table for each position of a pass.

    Args:
        known: the map so far, flat, uint8 [h * w].
        scan: the pass.
        neighbours: flat indices [positions, 4 or 0]; h * w for one outside the map.
        levels: L.
    """
    first = scan.kind * (2 * levels + 1) * LEVEL_SPREADS
    if not scan.offsets:
        return np.full(len(neighbours), first, np.intp)
    padded = np.append(known, 0)
    inside = neighbours < len(known)
    value = padded[neighbours].astype(np.intp)
    total, count = value.sum(axis=1), inside.sum(axis=1)
    low = np.where(inside, value, levels).min(axis=1)
    high = value.max(axis=1)
    # One neighbour up or left is always inside, so count is never 0.
    mean = (2 * total + count // 2) // count
    spread = np.searchsorted([1, 2, 4], high - low, side="right")
    rows: NDArray[np.intp] = first + mean * LEVEL_SPREADS + spread
    return rows


class LevelModel:
    """The tables and how a map of levels is coded with them.

    Args:
        frequencies: ``levels.frequencies``, uint16 [rows, L + 1], positive, rows sum to 65536.
        levels: L.

    Raises:
        BundleError: the table is not of that form.
    """

    def __init__(self, frequencies: NDArray[Any], levels: int) -> None:
        shape = (level_contexts(levels), levels + 1)
        if frequencies.shape != shape or frequencies.dtype != np.uint16:
            raise BundleError("the table of levels does not fit the model; export the model again")
        if not frequencies.all() or (frequencies.sum(axis=1, dtype=np.int64) != 65536).any():
            raise BundleError("the table of levels is damaged; export the model again")
        self.levels = levels
        self.cumulative = np.zeros((len(frequencies), levels + 2), np.uint32)
        np.cumsum(frequencies, axis=1, out=self.cumulative[:, 1:], dtype=np.uint32)
        self._tables = rans.Tables(self.cumulative)
        self._made: dict[int, tuple[rans.Tables, NDArray[np.intp]]] = {}

    def encode(self, levels: NDArray[np.uint8]) -> Intervals:
        """Intervals of a map, uint8 [h, w], each 0..L."""
        flat, parts = levels.reshape(-1), []
        for positions, rows in self._passes(flat, *levels.shape):
            parts.append(rans.symbol_intervals(flat[positions], self.cumulative, rows))
        return Intervals.joined(parts)

    def decode(self, decoder: rans.Decoder, height: int, width: int) -> NDArray[np.uint8]:
        """The map of levels, uint8 [height, width]."""
        flat = np.zeros(height * width, np.uint8)
        for positions, rows in self._passes(flat, height, width):
            flat[positions] = decoder.decode_symbols(self._tables, rows)
        return flat.reshape(height, width)

    def encode_stage(self, levels: NDArray[np.uint8], stage: int) -> list[IntervalPair]:
        """``(starts, freqs)`` of each pass of what a stage tells of levels uint8 [h, w]."""
        flat, parts = levels.reshape(-1), []
        known, before = prefixes(flat, stage), self._before(flat, stage)
        tables, first = self._stage_tables(stage)
        seen = stand_ins(known, stage, self.levels)
        for positions, rows in self._passes(seen, *levels.shape):
            of = before[positions]
            symbols = (known[positions] - first[of]).astype(np.uint8)
            parts.append(rans.symbol_intervals(symbols, tables.cumulative, rows * len(first) + of))
        return parts

    def decode_stage(
        self, decoder: rans.Decoder, levels: NDArray[np.uint8], stage: int
    ) -> NDArray[np.uint8]:
        """What levels are taken for after a stage, uint8 [h, w].

        Args:
            decoder: of the section.
            levels: what they were taken for before.
            stage: its number.

        Raises:
            TruncatedError: the data ends too early.
            CorruptError: it says what no level is.
        """
        before = self._before(levels.reshape(-1), stage)
        tables, first = self._stage_tables(stage)
        seen = np.zeros(levels.size, np.uint8)
        for positions, rows in self._passes(seen, *levels.shape):
            of = before[positions]
            known = first[of] + decoder.decode_symbols(tables, rows * len(first) + of)
            self._check(known, stage)
            seen[positions] = stand_ins(known, stage, self.levels)
        return seen.reshape(levels.shape)

    def _check(self, known: NDArray[np.intp], stage: int) -> None:
        shift = STAGES[stage][0]
        lowest = (known << shift) - OFFSET
        if ((lowest > self.levels) | (lowest + (1 << shift) <= 0)).any():
            raise CorruptError("a level is out of range; fetch or encode the stream again")

    @staticmethod
    def _before(levels: NDArray[np.uint8], stage: int) -> NDArray[np.intp]:
        """What is known of levels before a stage; of what they are taken for, too."""
        return prefixes(levels, stage - 1) if stage else np.zeros(levels.size, np.intp)

    def _stage_tables(self, stage: int) -> tuple[rans.Tables, NDArray[np.intp]]:
        """Cumulative tables of a stage, one for each row and prefix before; their first symbols."""
        if stage not in self._made:
            shift, most = STAGES[stage][0], self.levels + OFFSET
            if stage:
                first = 2 * np.arange((most >> shift + 1) + 1)
                symbols = 2
            else:
                # One that never is: a symbol must not take all of the table.
                first, symbols = np.zeros(1, np.intp), (most >> shift) + 2
            ends = (first[:, None] + np.arange(symbols + 1) << shift) - OFFSET
            sums = self.cumulative[:, np.clip(ends, 0, self.levels + 1)].astype(np.int64)
            sums -= sums[..., :1]
            total = np.maximum(sums[..., -1:], 1)
            # Each symbol keeps at least 1.
            tables = sums * (65536 - symbols) // total + np.arange(symbols + 1)
            tables[..., -1] = 65536
            cumulative = tables.reshape(-1, symbols + 1).astype(np.uint32)
            self._made[stage] = rans.Tables(cumulative), first
        return self._made[stage]

    def _passes(
        self, seen: NDArray[np.uint8], height: int, width: int
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Positions and rows of each pass; ``seen`` is filled by the caller meanwhile."""
        for scan, (positions, neighbours) in zip(PASSES, _nearest(height, width), strict=True):
            yield positions, level_context(seen, scan, neighbours, self.levels)
