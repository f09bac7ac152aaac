"""Values of a map, and how they are coded: group by group, pass by pass.

What predicts them is :mod:`cwic.value_network`. The values of a pass are coded with the tables that
it chooses, at once; then come, a byte each, those that no symbol of a table stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import TruncatedError
from cwic.layers import Step
from cwic.level_model import IntervalPair
from cwic.quantiser import LARGEST, ZERO, Quantiser
from cwic.symbol_model import SymbolModel
from cwic.value_map import ValueMap
from cwic.value_network import ESCAPE, REACH, SYMBOLS, GroupNetwork, check_tensors

__all__ = ["ValueModel"]

_Distributions: TypeAlias = tuple[NDArray[np.int32], NDArray[np.int32]]


class ValueModel(SymbolModel[ValueMap, _Distributions]):
    """The network, and how the values of a map are coded with it.

    Args:
        tensors: the arrays of :mod:`cwic.value_network` by name.
        n: values of a position.
        levels: L.

    Raises:
        BundleError: an array is missing or not of its form, or sums are not exact.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        check_tensors(tensors, n, levels)
        self.n, self.levels = n, levels
        self.channels, self.none, self.layered = n, ZERO, False
        self.sizes = tuple(tensors["values.sizes"].tolist())
        self.groups_at: NDArray[np.uint8] = (
            tensors["values.first_levels"][None] <= np.arange(levels + 1)[:, None]
        ).sum(1, dtype=np.uint8)
        self._quantiser = Quantiser(
            tensors["values.steps"], np.repeat(tensors["values.first_levels"], self.sizes)
        )
        self.typical_bits = tensors["values.bits"].astype(np.float64)
        self._bounds = np.cumsum([0, *self.sizes]).tolist()
        self._groups = [GroupNetwork(tensors, g, size) for g, size in enumerate(self.sizes)]
        features = tensors["values.features"].astype(np.int8)
        # By the byte of an int8: 0..127, then -128..-1.
        self._features = np.concatenate([features, -features[:1], -features[:0:-1]])
        starts = tensors["values.cumulative"].astype(np.uint32)
        cumulative = np.append(starts, np.full((len(starts), 1), 1 << 16, np.uint32), 1)
        self._tables = rans.Tables(cumulative)
        freqs = np.diff(cumulative)
        symbol = np.where(freqs > 0, np.arange(SYMBOLS), ESCAPE)
        self._escapes = symbol == ESCAPE
        self._starts = np.take_along_axis(starts, symbol, 1).astype(np.uint16)
        self._freqs = np.take_along_axis(freqs, symbol, 1).astype(np.uint16)
        self._ideal_bits = (16 - np.log2(self._freqs) + 8 * self._escapes).astype(np.float32)
        self._plain = rans.Tables(np.arange(0, (1 << 16) + 1, 256, dtype=np.uint32)[None])

    def open(self, height: int, width: int) -> ValueMap:
        return ValueMap(self.sizes, self._features, height, width)

    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The values of an encoder network in steps of the levels (:mod:`cwic.quantiser`)."""
        return self._quantiser.quantised(codes, levels)

    def symbols(self, codes: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Values int8 [n, h w] of bytes uint8 [n, h, w]."""
        values: NDArray[np.int8] = (codes.reshape(len(codes), -1) ^ ZERO).view(np.int8)
        return values

    def shown(self, levels: NDArray[np.uint8], reached: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The levels, which say what values mean; 0 where the first values are missing."""
        return np.where(reached >= np.minimum(self.groups_at, 1)[levels], levels, 0).astype(
            np.uint8
        )

    def encode_step(
        self, known: ValueMap, step: Step, symbols: NDArray[np.int8], levels: NDArray[np.uint8]
    ) -> list[IntervalPair]:
        _, own, rows, centre, ends = self._predicted(known, step, symbols, levels)
        told, starts, freqs = self._intervals(own, rows, centre)
        parts: list[IntervalPair] = []
        escaped = (ZERO + own.astype(np.uint16)) * 256
        for first, last in zip([0, *ends], [*ends, len(own)], strict=True):
            if first == last:
                continue
            parts.append((starts[first:last].reshape(-1), freqs[first:last].reshape(-1)))
            others = escaped[first:last][told[first:last]]
            if len(others):
                parts.append((others, np.full(len(others), 256, np.uint16)))
        return parts

    def position_bits(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        known, values = self.open(*levels.shape), self.symbols(codes)
        bits = np.zeros(levels.size)
        for step in self.steps():
            positions, own, rows, centre, _ = self._predicted(known, step, values, levels)
            bits[positions] += self._bits(own, rows, centre).sum(1)
        return bits

    def steps_at(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a value of 1 stands for at each level, 0 at level 0; of the shape of ``levels``."""
        steps: NDArray[np.float32] = self._quantiser.steps[levels]
        return steps

    def step_bits(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """What each kept value would cost more if it were one less, or one more, and what all cost.

        What a change does to the prediction of others is not counted.

        Args:
            codes: bytes as :meth:`sent` gives them, uint8 [n, h, w].
            levels: uint8 [h, w].

        Returns:
            Ideal bits [n, h, w] twice, 0 where nothing is kept, and the sum of the values' own.
        """
        known, values = self.open(*levels.shape), self.symbols(codes)
        lower, higher = (np.zeros((levels.size, self.n), np.float32) for _ in range(2))
        total = 0.0
        for step in self.steps():
            positions, own, rows, centre, _ = self._predicted(known, step, values, levels)
            own_bits = self._bits(own, rows, centre)
            part = slice(self._bounds[step[0]], self._bounds[step[0] + 1])
            lower[positions, part] = self._bits(own - np.int16(1), rows, centre) - own_bits
            higher[positions, part] = self._bits(own + np.int16(1), rows, centre) - own_bits
            total += float(own_bits.sum(dtype=np.float64))
        shape = (self.n, *levels.shape)
        return lower.T.reshape(shape), higher.T.reshape(shape), total

    def _bits(
        self, values: NDArray[Any], rows: NDArray[np.int32], centre: NDArray[np.int32]
    ) -> NDArray[np.float32]:
        """Ideal bits of values, of the shape of all three."""
        bits: NDArray[np.float32] = self._ideal_bits.take(_entries(values, rows, centre))
        return bits

    def _intervals(
        self, own: NDArray[Any], rows: NDArray[np.int32], centre: NDArray[np.int32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.uint16], NDArray[np.uint16]]:
        """Which values are told behind their pass, and the starts and freqs of all symbols."""
        entries = _entries(own, rows, centre)
        return self._escapes.take(entries), self._starts.take(entries), self._freqs.take(entries)

    def _predicted(
        self, known: ValueMap, step: Step, values: NDArray[np.int8], levels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], NDArray[np.int8], NDArray[np.int32], NDArray[np.int32], list[int]]:
        """A step's flat positions, values, rows and centres, and where its passes end."""
        g, having = step
        order, flat = known.order, levels.reshape(-1)
        kept, kinds, sizes = order.chosen(having[flat])
        positions = order.positions[kept]
        own = values[self._bounds[g] : self._bounds[g + 1]].T[positions]
        known.fill(g, positions, own)
        rows, centre = self._rows(known, g, kept, flat[positions], kinds)
        return positions, own, rows, centre, np.cumsum(sizes)[:-1].tolist()

    def predicted_pass(
        self, known: ValueMap, g: int, kept: NDArray[np.intp], levels: NDArray[np.uint8], kind: int
    ) -> _Distributions:
        """Rows of the tables, and centres."""
        rows, centre = self._rows(known, g, kept, levels, [(kind, slice(None))])
        return rows.reshape(-1), centre.reshape(-1)

    def _rows(
        self,
        known: ValueMap,
        g: int,
        kept: NDArray[np.intp],
        levels: NDArray[np.uint8],
        kinds: list[tuple[int, slice]],
    ) -> _Distributions:
        """Rows and centres of group g at indices into the order of coding, [positions, c]."""
        group = self._groups[g]
        before = known.before(g, group.of_earlier).take(known.order.positions[kept], axis=0)
        return group.predicted(*known.near(g, kept), before, levels, kinds)

    def decode_pass(self, decoder: rans.Decoder, predicted: _Distributions) -> NDArray[np.int8]:
        rows, centre = predicted
        start = decoder.state
        symbol = decoder.decode_symbols(self._tables, rows)
        values = centre + symbol - REACH
        others = np.flatnonzero(symbol == ESCAPE)
        if len(others):
            try:
                plain = decoder.decode_symbols(self._plain, np.zeros(len(others), np.int32))
            except TruncatedError:
                decoder.state = start
                raise
            values[others] = plain.astype(np.int32) - ZERO
        return _limited(values)

    def decode_available(
        self, decoder: rans.Decoder, predicted: _Distributions
    ) -> NDArray[np.int8]:
        """Up to one that is told behind the pass."""
        rows, centre = predicted
        symbol = decoder.decode_available_symbols(self._tables, rows)
        told = int(np.argmax(np.append(symbol, ESCAPE) == ESCAPE))
        return _limited(centre[:told] + symbol[:told] - REACH)


def _entries(
    values: NDArray[Any], rows: NDArray[np.int32], centre: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Where the tables, one after the other, have the symbols of values, of the shape of all."""
    symbol = values - centre + np.int32(REACH)
    # Below 0 becomes as large as a number can be.
    np.minimum(symbol.view(np.uint32), np.uint32(ESCAPE), out=symbol.view(np.uint32))
    symbol += rows * np.int32(SYMBOLS)
    return symbol


def _limited(values: NDArray[np.int32]) -> NDArray[np.int8]:
    limited: NDArray[np.int8] = np.clip(values, -LARGEST, LARGEST).astype(np.int8)
    return limited
