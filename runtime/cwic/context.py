"""Probabilities of levels and code bits from what is already decoded: integer tables.

Everything is table look-up with integers, so that any two machines agree to the bit.
Symbols are coded in passes; within a pass no symbol depends on another, so a pass is
computed for the whole picture at once (and decoded so, see :mod:`cwic.rans`).

Levels, one per position, from coarse to fine::

    pass 0         every 16th position of every 16th row
    per s = 8,4,2,1:
      diagonal     odd multiples of s in both directions; known: the four corners (+-s, +-s)
      straight     odd in one direction only; known: up, down, left, right at distance s

    context = (kind of pass, mean of the known neighbours in halves, their spread)

Code bits, one pass per importance level g = 0..L-1: the n/L channels of group g at all
positions with level > g. A bit's context is up to 16 chosen bits of *earlier* groups, at
its own position or one of the eight around it (masked bits and the border count as 0)::

    index = sum over t of bit[channel_t, y + dy_t, x + dx_t] << t,   p1 = table[k][index]

Channels and tables come from the bundle's ``context.safetensors``:

==================  ======  =================  ===================================
name                dtype   shape              meaning
==================  ======  =================  ===================================
levels.frequencies  uint16  [contexts, L + 1]  rows of positive numbers, sum 65536
codes.neighbours    int16   [n, T, 3]          (channel, dy, dx); channel -1: none
codes.p1            uint16  [n, 2**T]          probability of a 1 in 1/65536, >= 1
==================  ======  =================  ===================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cwic import rans
from cwic.errors import BundleError

__all__ = [
    "LEVEL_SPREADS",
    "ContextModel",
    "Intervals",
    "level_context",
    "level_contexts",
    "level_passes",
]

_COARSEST = 16
_KINDS = 5
LEVEL_SPREADS = 4
_DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_STRAIGHT = ((-1, 0), (1, 0), (0, -1), (0, 1))
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


def level_contexts(levels: int) -> int:
    """Number of level contexts for a highest level L."""
    return _KINDS * (2 * levels + 1) * LEVEL_SPREADS + 1


@dataclass(frozen=True)
class LevelPass:
    """Positions of one pass and the offsets, in ``step``, of what they are predicted from."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    step: int
    kind: int
    neighbours: tuple[tuple[int, int], ...]


def _grid(height: int, width: int, y0: int, x0: int, step: int) -> Any:
    return np.mgrid[y0:height:step, x0:width:step].reshape(2, -1)


def level_passes(height: int, width: int) -> Iterator[LevelPass]:
    """The passes over a [height, width] map of levels, in coding order."""
    y, x = _grid(height, width, 0, 0, _COARSEST)
    yield LevelPass(y, x, _COARSEST, -1, ())
    step = _COARSEST // 2
    while step:
        kind = 2 * min(step.bit_length() - 1, 2)
        y, x = _grid(height, width, step, step, 2 * step)
        yield LevelPass(y, x, step, kind, _DIAGONAL)
        across = _grid(height, width, 0, step, 2 * step)
        down = _grid(height, width, step, 0, 2 * step)
        y, x = np.concatenate([across, down], axis=1)
        yield LevelPass(y, x, step, min(kind + 1, _KINDS - 1), _STRAIGHT)
        step //= 2


def level_context(known: NDArray[np.uint8], scan: LevelPass, levels: int) -> NDArray[np.intp]:
    """Row of the level table for each position of a pass, from the levels known so far."""
    if scan.kind < 0:
        return np.full(len(scan.rows), level_contexts(levels) - 1, np.intp)
    height, width = known.shape
    total = np.zeros(len(scan.rows), np.intp)
    count = np.zeros(len(scan.rows), np.intp)
    low = np.full(len(scan.rows), levels, np.intp)
    high = np.zeros(len(scan.rows), np.intp)
    for dy, dx in scan.neighbours:
        y, x = scan.rows + dy * scan.step, scan.columns + dx * scan.step
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        value = known[np.where(inside, y, 0), np.where(inside, x, 0)].astype(np.intp)
        total += np.where(inside, value, 0)
        count += inside
        low = np.where(inside, np.minimum(low, value), low)
        high = np.where(inside, np.maximum(high, value), high)
    # The upper left neighbour is always inside, so count is never 0.
    mean = (2 * total + count // 2) // count
    spread = np.searchsorted([1, 2, 4], high - low, side="right")
    return (scan.kind * (2 * levels + 1) + mean) * LEVEL_SPREADS + spread


class ContextModel:
    """The integer tables of one bundle and the passes they are used in.

    Args:
        tensors: the arrays of ``context.safetensors`` by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the shape, type or range above.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        self.n, self.levels, self.group = n, levels, n // levels
        try:
            frequencies = tensors["levels.frequencies"]
            self.neighbours = tensors["codes.neighbours"]
            self.p1 = tensors["codes.p1"]
        except KeyError as exc:
            raise BundleError(f"the entropy model lacks {exc}; export the model again") from exc
        self._check(frequencies)
        self.cumulative = np.zeros((len(frequencies), levels + 2), np.uint32)
        np.cumsum(frequencies, axis=1, out=self.cumulative[:, 1:], dtype=np.uint32)

    @classmethod
    def from_bytes(cls, data: bytes, n: int, levels: int) -> ContextModel:
        """Read ``context.safetensors``."""
        try:
            tensors = load(data)
        except (SafetensorError, ValueError, KeyError) as exc:
            raise BundleError(
                f"the entropy model cannot be read ({exc}); export the model again"
            ) from exc
        return cls(tensors, n, levels)

    def _check(self, frequencies: NDArray[Any]) -> None:
        neighbours, p1 = self.neighbours, self.p1
        sizes_fit = (
            frequencies.shape == (level_contexts(self.levels), self.levels + 1)
            and neighbours.ndim == 3
            and neighbours.shape[::2] == (self.n, 3)
            and neighbours.shape[1] <= 16
            and p1.shape == (self.n, 1 << neighbours.shape[1])
        )
        types = [array.dtype.name for array in (frequencies, neighbours, p1)]
        types_fit = types == ["uint16", "int16", "uint16"]
        if not sizes_fit or not types_fit:
            raise BundleError("the entropy model's tables do not fit; export the model again")
        first_of_group = np.arange(self.n) // self.group * self.group
        values_fit = (
            frequencies.min() > 0
            and (frequencies.sum(axis=1, dtype=np.int64) == 65536).all()
            and p1.min() > 0
            and (neighbours[..., 0] < first_of_group[:, None]).all()
            and (abs(neighbours[..., 1:].astype(np.int32)) <= 1).all()
        )
        if not values_fit:
            raise BundleError("the entropy model's tables are damaged; export the model again")

    def encode_levels(self, levels: NDArray[np.uint8]) -> Intervals:
        """Intervals of a map of levels, uint8 [h, w], each 0..L."""
        parts = []
        for scan in level_passes(*levels.shape):
            context = level_context(levels, scan, self.levels)
            symbols = levels[scan.rows, scan.columns]
            parts.append(rans.symbol_intervals(symbols, self.cumulative, context))
        return _joined(parts)

    def decode_levels(self, decoder: rans.Decoder, height: int, width: int) -> NDArray[np.uint8]:
        """The map of levels, uint8 [height, width]."""
        levels = np.zeros((height, width), np.uint8)
        for scan in level_passes(height, width):
            context = level_context(levels, scan, self.levels)
            levels[scan.rows, scan.columns] = decoder.decode_symbols(self.cumulative, context)
        return levels

    def encode_codes(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> Intervals:
        """Intervals of the kept bits of ``codes``, uint8 [n/8, h, w], under ``levels``."""
        bits = np.unpackbits(codes, axis=0).reshape(self.n, -1)
        planes = _Planes(self.n, levels)
        parts = []
        for g in range(self.levels):
            group = range(g * self.group, (g + 1) * self.group)
            positions = planes.positions(g)
            kept = np.take(bits[group.start : group.stop], positions, axis=1)
            places = planes.places(positions)
            p1 = self._p1(planes, group, places)
            planes.fill(group, places, kept)
            parts.append(rans.bit_intervals(kept.reshape(-1), p1))
        return _joined(parts)

    def decode_codes(self, decoder: rans.Decoder, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The packed codes, uint8 [n/8, h, w]; masked bits are 0."""
        planes = _Planes(self.n, levels)
        for g in range(self.levels):
            group = range(g * self.group, (g + 1) * self.group)
            places = planes.places(planes.positions(g))
            bits = decoder.decode_bits(self._p1(planes, group, places))
            planes.fill(group, places, bits.reshape(self.group, -1))
        return np.packbits(planes.inner(), axis=0)

    def _p1(self, planes: _Planes, group: range, places: NDArray[np.intp]) -> Any:
        """Probabilities of a 1 for the channels of a group at ``places``, uint16 [...]."""
        p1 = np.empty((self.group, len(places)), np.uint16)
        for row, k in enumerate(group):
            index = np.zeros(len(places), np.intp)
            for t, (channel, dy, dx) in enumerate(self.neighbours[k].tolist()):
                if channel >= 0:
                    index += planes.at(channel, places, dy, dx).astype(np.intp) << t
            p1[row] = self.p1[k][index]
        return p1.reshape(-1)


class _Planes:
    """The bits known so far, one plane per channel, with a border of zeros around each."""

    def __init__(self, n: int, levels: NDArray[np.uint8]) -> None:
        self.height, self.width = levels.shape
        self.levels = levels.reshape(-1)
        self.bits = np.zeros((n, (self.height + 2) * (self.width + 2)), np.uint8)

    def positions(self, g: int) -> NDArray[np.intp]:
        """Flat positions in the map of levels where group g is kept."""
        positions: NDArray[np.intp] = np.flatnonzero(self.levels > g)
        return positions

    def places(self, positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where ``positions`` lie in a plane with its border."""
        found: NDArray[np.intp] = positions + 2 * (positions // self.width) + (self.width + 3)
        return found

    def at(self, channel: int, places: NDArray[np.intp], dy: int, dx: int) -> NDArray[np.uint8]:
        """Bits of one channel, seen from ``places`` at an offset of -1..1."""
        seen: NDArray[np.uint8] = self.bits[channel][places + (dy * (self.width + 2) + dx)]
        return seen

    def fill(self, group: range, places: NDArray[np.intp], bits: NDArray[np.uint8]) -> None:
        self.bits[group.start : group.stop, places] = bits

    def inner(self) -> NDArray[np.uint8]:
        """All planes without their borders, uint8 [n, height, width]."""
        shaped = self.bits.reshape(-1, self.height + 2, self.width + 2)
        return shaped[:, 1:-1, 1:-1]


def _joined(parts: list[tuple[NDArray[np.uint16], NDArray[np.uint16]]]) -> Intervals:
    return Intervals(
        np.concatenate([starts for starts, _ in parts]),
        np.concatenate([freqs for _, freqs in parts]),
        tuple(len(starts) for starts, _ in parts),
    )
