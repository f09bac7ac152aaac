"""Probabilities of whole numbers from what is already decoded: an integer network.

For models whose codes are values, n numbers q of -127..127 at a position (their step size is the
level's: :mod:`cwic.quantiser`). Group g of them exists from level ``values.first_levels[g]`` on.
Groups are coded one after the other, each in the nine passes of :mod:`cwic.scan`, as in
:mod:`cwic.context`. For group g at a position::

    f    values.features[abs(q)] sign(q)          of a value q: about 8 log2(1 + abs(q))
    own  f of group g at the 12 known neighbours of the pass
    earlier  f of groups 0..g-1 at the position itself         both 0: outside, or not kept

    a1  = clip((own[kind] u_own + earlier u_earlier + 16 (level[level] + kind[kind]) + 8) >> 4,
               0, 255)
    a2  = clip((middle a1 + middle_bias + 32) >> 6, 0, 255)
    z   = (last a2 + last_bias + 32) >> 6         a mean and a place for each value, in 1/32
    m   = (2 z_mean + sum over neighbours t of line[kind, t] q_t + 4) >> 3        in 1/8
    row = 8 clip(((z_place + 2) >> 2) + 32, 0, 63) + m mod 8
    c   = clip(m div 8, -127, 127)

Table ``row`` of ``values.cumulative`` gives the probability of symbol ``q - c + 31`` in 1/65536:
that of a logistic distribution, about, of mean (m mod 8)/8, and scale ``0.05 * 1.108^place``.
Symbol 63 stands for all others, and for those without a probability of their own: after a pass
comes one of these values, as ``q + 128``, each of 256 as likely.

**Exact on every machine**, as :mod:`cwic.context` is and for the same reasons.

Tensors of ``context.safetensors`` (H: hidden width; G groups; c: values of group g, which has the
values from k on):

=====================  =======  ====================  ==========================================
name                   dtype    shape                 meaning
=====================  =======  ====================  ==========================================
levels.frequencies     uint16   [rows, L + 1]         see :mod:`cwic.level_model`
values.sizes           uint16   [G]                   c of each group; n together
values.first_levels    uint8    [G]                   rising, 1..L
values.steps           float32  [L + 1]               see :mod:`cwic.quantiser`
values.bits            float32  [L + 1]               typical bits of a position, by level
values.features        uint8    [128]                 0 for 0
values.cumulative      uint16   [512, 64]             rising from 0; below 65536
values.{g}.own         int8     [6, 12 c, H]          by kind of pass, neighbour
values.{g}.earlier     int8     [k, H]
values.{g}.level       int32    [L + 1, H]
values.{g}.kind        int32    [7, H]
values.{g}.middle      int8     [H, H]
values.{g}.middle_bias int32    [H]
values.{g}.last        int8     [H, 2 c]              means, then places
values.{g}.last_bias   int32    [2 c]
values.{g}.line        int8     [6, 12, c]
=====================  =======  ====================  ==========================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.context import LARGEST_ACTIVATION, WEIGHT_GRID
from cwic.errors import BundleError, TruncatedError
from cwic.known import Geometry, geometry
from cwic.layers import Step
from cwic.level_model import IntervalPair
from cwic.quantiser import LARGEST, LARGEST_STEP, SMALLEST_STEP, ZERO, Quantiser
from cwic.scan import KINDS, NEIGHBOURS
from cwic.symbol_model import SymbolModel, array_of, check_exact

__all__ = ["FEATURE", "MEANS", "REACH", "SCALES", "SYMBOLS", "ValueModel", "scale_of"]

FEATURE = 8
"""Features are in 1/8."""
MEANS = 8
"""Means are in 1/8."""
SCALES = 64
SYMBOLS = 64
REACH = 31
"""Symbols stand for values up to so far from c."""
_ESCAPE = SYMBOLS - 1
_LEVEL_GRID = 16
_MOST_GROUPS = 255
_MOST_HIDDEN = 1024


def scale_of(place: Any) -> Any:
    """Scale of the logistic distribution at a place 0..63, a number or an array."""
    return 0.05 * 1.108**place


class _Group:
    """The float32 weights of one group, scaled so that no shift is left to do."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], g: int, size: int) -> None:
        def of(name: str) -> NDArray[np.float64]:
            part: NDArray[Any] = tensors[f"values.{g}.{name}"]
            return part.astype(np.float64)

        self.size = size
        own, earlier = of("own"), of("earlier")
        level = of("level")[None] + of("kind")[:, None]
        half = WEIGHT_GRID // 2
        most = float(tensors["values.features"].max())
        bounds = [
            most * (np.abs(own).sum(1).max(initial=0) + np.abs(earlier).sum(0).max(initial=0))
            + _LEVEL_GRID * (np.abs(of("level")).max() + np.abs(of("kind")).max() + 1)
        ]
        for name in ("middle", "last"):
            bias = np.abs(of(f"{name}_bias")).max() + half
            bounds.append(LARGEST_ACTIVATION * np.abs(of(name)).sum(0).max() + bias)
        # Then 8 m stays below 2^20, whatever ``line`` holds.
        check_exact(max(bounds))
        none = np.zeros((1, *own.shape[1:]))  # the first pass knows no neighbours
        stacked = [np.concatenate([part, earlier]) for part in np.concatenate([own, none])]
        self.first_weights = [(part / _LEVEL_GRID).astype(np.float32) for part in stacked]
        self.level = (level + 0.5).astype(np.float32)
        self.middle, self.last = (
            (of(k) / WEIGHT_GRID).astype(np.float32) for k in ("middle", "last")
        )
        self.middle_bias, self.last_bias = (
            ((of(f"{k}_bias") + half) / WEIGHT_GRID).astype(np.float32) for k in ("middle", "last")
        )
        none = np.zeros((1, NEIGHBOURS, size))
        self.line = np.concatenate([of("line"), none]).astype(np.float32)

    def predicted(
        self,
        inputs: NDArray[np.float32],
        numbers: NDArray[np.int8],
        levels: NDArray[np.uint8],
        kinds: list[tuple[int, slice]],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Row of the table, and c, of each value: both [positions, c].

        Args:
            inputs: own, then earlier features, [positions, 12 c + k].
            numbers: own group at the neighbours, [positions, 12, c].
            levels: of the positions.
            kinds: kind of pass, and which positions are of it.
        """
        z = np.empty((len(inputs), self.middle.shape[0]), np.float32)
        line = np.empty((len(inputs), self.size), np.float32)
        for kind, part in kinds:
            np.matmul(inputs[part], self.first_weights[kind], out=z[part])
            z[part] += self.level[kind].take(levels[part], axis=0)
            np.einsum("ptc,tc->pc", numbers[part], self.line[kind], out=line[part], casting="safe")
        for weights, bias in ((self.middle, self.middle_bias), (self.last, self.last_bias)):
            np.floor(z, out=z)
            np.clip(z, 0, LARGEST_ACTIVATION, out=z)
            z = z @ weights
            z += bias
        np.floor(z, out=z)
        line += 2 * z[:, : self.size] + 4
        mean = line.astype(np.int32) >> 3
        place = z[:, self.size :].astype(np.int32) + 2 >> 2
        place += SCALES // 2
        np.clip(place, 0, SCALES - 1, out=place)
        place *= MEANS
        place += mean & (MEANS - 1)
        mean >>= 3
        return place, np.clip(mean, -LARGEST, LARGEST, out=mean)


class ValueMap:
    """The values known so far, and their features; 0: not kept or not known.

    By group there is one more position, of zeros: what lies outside the map.
    """

    def __init__(
        self, sizes: tuple[int, ...], features: NDArray[np.int8], height: int, width: int
    ) -> None:
        self.shape = height, width
        self.order: Geometry = geometry(height, width)
        self._features = features
        self._firsts = np.cumsum([0, *sizes]).tolist()
        positions = height * width
        self._here = np.zeros((positions, sum(sizes)), np.int8)
        self._own = [np.zeros((positions + 1, size), np.int8) for size in sizes]
        self._numbers = [np.zeros((positions + 1, size), np.int8) for size in sizes]

    def fill(self, g: int, positions: NDArray[np.intp], values: NDArray[np.int8]) -> None:
        """Make values of group g known, int8 [positions, c]."""
        features = self._features[values.view(np.uint8)]
        self._here[positions, self._firsts[g] : self._firsts[g + 1]] = features
        self._own[g][positions] = features
        self._numbers[g][positions] = values

    def inputs(
        self, g: int, kept: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """``inputs`` and ``numbers`` that predict group g at indices into the order of coding."""
        neighbours = self.order.neighbours[kept]
        first, width = self._firsts[g], NEIGHBOURS * self._own[g].shape[1]
        inputs = np.empty((len(kept), width + first), np.float32)
        inputs[:, :width] = self._own[g].take(neighbours, axis=0).reshape(len(kept), width)
        here = self._here.take(self.order.positions[kept], axis=0)
        inputs[:, width:] = here[:, :first]
        return inputs, self._numbers[g].take(neighbours, axis=0)

    def codes(self) -> NDArray[np.uint8]:
        """All values as bytes ``q + 128``, uint8 [n, h, w]."""
        values = np.concatenate([numbers[:-1] for numbers in self._numbers], axis=1)
        return np.ascontiguousarray(values.T.view(np.uint8) ^ ZERO).reshape(-1, *self.shape)


class ValueModel(SymbolModel[ValueMap]):
    """The network, and how the values of a map are coded with it.

    Args:
        tensors: the arrays above by name.
        n: values of a position.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the form above, or sums are not exact.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        _check(tensors, n, levels)
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
        self._groups = [_Group(tensors, g, size) for g, size in enumerate(self.sizes)]
        features = tensors["values.features"].astype(np.int8)
        # By the byte of an int8: 0..127, then -128..-1.
        self._features = np.concatenate([features, -features[:1], -features[:0:-1]])
        starts = tensors["values.cumulative"].astype(np.uint32)
        self._starts = np.append(starts, np.full((len(starts), 1), 1 << 16, np.uint32), 1)
        self._tables = rans.Tables(self._starts)
        self._plain = rans.Tables(np.arange(0, (1 << 16) + 1, 256, dtype=np.uint32)[None])

    def open(self, height: int, width: int) -> ValueMap:
        return ValueMap(self.sizes, self._features, height, width)

    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The values of an encoder network in steps of the levels (:mod:`cwic.quantiser`)."""
        return self._quantiser.quantised(codes, levels)

    def moved(
        self, codes: NDArray[np.uint8], sent: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        return self._quantiser.moved(codes, sent, levels)

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
        symbol, starts, freqs = self._intervals(own, rows, centre)
        parts: list[IntervalPair] = []
        escaped = (ZERO + own.astype(np.uint16)) * 256
        for first, last in zip([0, *ends], [*ends, len(own)], strict=True):
            if first == last:
                continue
            parts.append((starts[first:last].reshape(-1), freqs[first:last].reshape(-1)))
            others = escaped[first:last][symbol[first:last] == _ESCAPE]
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
        symbol, _, freqs = self._intervals(values, rows, centre)
        bits: NDArray[np.float32] = 16 - np.log2(freqs.astype(np.float32))
        bits[symbol == _ESCAPE] += 8
        return bits

    def _intervals(
        self, own: NDArray[Any], rows: NDArray[np.int32], centre: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.uint16]]:
        symbol = own - centre + REACH
        symbol[(symbol < 0) | (symbol >= _ESCAPE)] = _ESCAPE
        freqs = self._starts[rows, symbol + 1] - self._starts[rows, symbol]
        symbol[freqs == 0] = _ESCAPE
        starts = self._starts[rows, symbol]
        freqs = self._starts[rows, symbol + 1] - starts
        return symbol, starts.astype(np.uint16), freqs.astype(np.uint16)

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
        inputs, numbers = known.inputs(g, kept)
        rows, centre = self._groups[g].predicted(inputs, numbers, flat[positions], kinds)
        return positions, own, rows, centre, np.cumsum(sizes)[:-1].tolist()

    def decode_step(
        self, known: ValueMap, step: Step, decoder: rans.Decoder, levels: NDArray[np.uint8]
    ) -> Iterator[NDArray[np.intp]]:
        g, having = step
        order, flat = known.order, levels.reshape(-1)
        chosen, kinds, _ = order.chosen(having[flat])
        for kind, part in kinds:
            kept = chosen[part]
            positions = order.positions[kept]
            inputs, numbers = known.inputs(g, kept)
            rows, centre = self._groups[g].predicted(
                inputs, numbers, flat[positions], [(kind, slice(None))]
            )
            flat_rows, flat_centre = rows.reshape(-1), centre.reshape(-1)
            try:
                values = self._decoded(decoder, flat_rows, flat_centre)
            except TruncatedError:
                values = self._available(decoder, flat_rows, flat_centre)
                whole = len(values) // self.sizes[g]
                values = values[: whole * self.sizes[g]]
                known.fill(g, positions[:whole], values.reshape(-1, self.sizes[g]))
                yield positions[:whole]
                raise
            known.fill(g, positions, values.reshape(-1, self.sizes[g]))
            yield positions

    def _decoded(
        self, decoder: rans.Decoder, rows: NDArray[np.int32], centre: NDArray[np.int32]
    ) -> NDArray[np.int8]:
        """A pass of values. If it ends too early the decoder stands where it stood before."""
        start = decoder.state
        symbol = decoder.decode_symbols(self._tables, rows)
        values = centre + symbol - REACH
        others = np.flatnonzero(symbol == _ESCAPE)
        if len(others):
            try:
                plain = decoder.decode_symbols(self._plain, np.zeros(len(others), np.int32))
            except TruncatedError:
                decoder.state = start
                raise
            values[others] = plain.astype(np.int32) - ZERO
        return _limited(values)

    def _available(
        self, decoder: rans.Decoder, rows: NDArray[np.int32], centre: NDArray[np.int32]
    ) -> NDArray[np.int8]:
        """The first values of a pass, up to one that is told behind the pass."""
        symbol = decoder.decode_available_symbols(self._tables, rows)
        told = int(np.argmax(np.append(symbol, _ESCAPE) == _ESCAPE))
        values = centre[:told] + symbol[:told] - REACH
        return _limited(values)


def _limited(values: NDArray[np.int32]) -> NDArray[np.int8]:
    limited: NDArray[np.int8] = np.clip(values, -LARGEST, LARGEST).astype(np.int8)
    return limited


def _check(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
    def form(name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return array_of(tensors, f"values.{name}", dtype, shape)

    def refuse(name: str) -> BundleError:
        return BundleError(f"values.{name} is damaged; export the model again")

    groups = int(np.size(tensors.get("values.sizes", ())))
    sizes = form("sizes", "uint16", (groups,)).astype(np.int64)
    if not 1 <= groups <= _MOST_GROUPS or sizes.min() < 1 or sizes.sum() != n:
        raise refuse("sizes")
    first_levels = form("first_levels", "uint8", (groups,)).astype(np.int64)
    if first_levels[0] < 1 or first_levels[-1] > levels or (np.diff(first_levels) < 0).any():
        raise refuse("first_levels")
    steps = form("steps", "float32", (levels + 1,))
    if steps[0] != 0 or not ((steps[1:] >= SMALLEST_STEP) & (steps[1:] <= LARGEST_STEP)).all():
        raise refuse("steps")
    bits = form("bits", "float32", (levels + 1,))
    if not np.isfinite(bits).all() or bits[0] != 0 or (np.diff(bits) < 0).any() or not bits[-1]:
        raise refuse("bits")
    features = form("features", "uint8", (LARGEST + 1,)).astype(np.int64)
    if features[0] or features.max() > LARGEST or (np.diff(features) < 0).any():
        raise refuse("features")
    starts = form("cumulative", "uint16", (SCALES * MEANS, SYMBOLS)).astype(np.int64)
    # The last symbol ends at 65536; no symbol may have all of a table.
    if starts[:, 0].any() or (np.diff(starts) < 0).any() or not starts[:, -1].all():
        raise refuse("cumulative")
    middle = tensors.get("values.0.middle", np.zeros((1, 1), np.int8))
    hidden = middle.shape[-1] if middle.ndim == 2 else 0
    if not 1 <= hidden <= _MOST_HIDDEN:
        raise BundleError("values.0.middle does not fit the model; export the model again")
    for g, size in enumerate(sizes.tolist()):
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "middle": ("int8", (hidden, hidden)),
            "own": ("int8", (KINDS - 1, NEIGHBOURS * size, hidden)),
            "earlier": ("int8", (int(sizes[:g].sum()), hidden)),
            "level": ("int32", (levels + 1, hidden)),
            "kind": ("int32", (KINDS, hidden)),
            "middle_bias": ("int32", (hidden,)),
            "last": ("int8", (hidden, 2 * size)),
            "last_bias": ("int32", (2 * size,)),
            "line": ("int8", (KINDS - 1, NEIGHBOURS, size)),
        }
        for name, (dtype, shape) in shapes.items():
            form(f"{g}.{name}", dtype, shape)
