"""Probabilities of code bits from what is already decoded: an integer network.

Group g of the codes (n/L channels) exists where the level is above g. Groups are coded one
after the other, each in the nine passes of :mod:`cwic.scan`; a pass is computed for the
whole map at once. For group g at a position, with codes as -1, 1 and 0 (masked, outside)::

    own      group g at the 12 known neighbours of the pass
    earlier  groups 0..g-1 at the position itself

    a1  = clip(own[kind, g] u_own + earlier[g] u_earlier + level[g, level] + kind[kind, g], 0, 255)
    a2  = clip((middle[g] a1 + middle_bias[g] + 32) >> 6, 0, 255)
    z   = clip((last[g] a2 + last_bias[g] + 32) >> 6, -384, 383)      n/L logits in 1/32
    p1  = codes.p1[z + 384]                       probability of a 1 in 1/65536

**Exact on every machine.** All of it is whole numbers. The products are computed in float32
for speed; no sum, in whatever order, reaches 2^24 (checked when a model is loaded), and the
shifts divide by powers of two, so every float32 result is the exact one.

Tensors of ``context.safetensors`` (H: hidden width; G: L groups; c = n/L):

=================  ======  =====================  ==================================
name               dtype   shape                  meaning
=================  ======  =====================  ==================================
levels.frequencies uint16  [rows, L + 1]          see :mod:`cwic.level_model`
codes.own          int8    [6, G, 12 c, H]        by kind of pass, group, neighbour
codes.earlier      int8    [G, n, H]              0 for channels from group g on
codes.level        int32   [G, L + 1, H]
codes.kind         int32   [7, G, H]
codes.middle       int8    [G, H, H]
codes.middle_bias  int32   [G, H]
codes.last         int8    [G, H, c]
codes.last_bias    int32   [G, c]
codes.p1           uint16  [768]                  rising, >= 1
=================  ======  =====================  ==================================

The idea is the convolutional entropy coder of the paper (section 3.4), which predicts one
bit after the other in float; here whole passes are predicted at once and in integers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cwic import rans
from cwic.errors import BundleError, TruncatedError
from cwic.level_model import Intervals, LevelModel
from cwic.scan import KINDS, NEIGHBOURS, PASSES

__all__ = ["CodeModel", "ContextModel", "Intervals", "read_tensors"]

ACTIVATION = 32
"""Steps of 1/32: activations, and the weights of the first layer, whose inputs are -1, 0, 1."""
WEIGHT_GRID = 64
"""Steps of 1/64: weights of the other layers."""
LARGEST_ACTIVATION = 255
LOGITS = 768
"""Entries of ``codes.p1``: logits from -12 in steps of 1/32."""
_EXACT = 1 << 24


@dataclass(frozen=True)
class _Geometry:
    """The passes of one map size, concatenated in coding order."""

    positions: NDArray[np.intp]  # [h w]
    neighbours: NDArray[np.intp]  # [h w, 12]; h w: outside
    sizes: tuple[int, ...]  # positions per pass

    @property
    def passes(self) -> Iterator[tuple[int, slice]]:
        """Kind of each pass and where it lies."""
        first = 0
        for scan, size in zip(PASSES, self.sizes, strict=True):
            yield scan.kind, slice(first, first + size)
            first += size


@lru_cache(maxsize=16)
def _geometry(height: int, width: int) -> _Geometry:
    positions = [scan.positions(height, width) for scan in PASSES]
    neighbours = [np.full((len(positions[0]), NEIGHBOURS), height * width, np.intp)]
    for scan, found in zip(PASSES[1:], positions[1:], strict=True):
        neighbours.append(scan.neighbours(found, height, width))
    sizes = tuple(len(found) for found in positions)
    return _Geometry(np.concatenate(positions), np.concatenate(neighbours), sizes)


class _Group:
    """The float32 weights of one group, scaled so that no shift is left to do."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], g: int, size: int) -> None:
        def of(name: str) -> NDArray[np.float64]:
            part: NDArray[Any] = tensors[f"codes.{name}"][g]
            return part.astype(np.float64)

        earlier = of("earlier")[: g * size]
        own = tensors["codes.own"][:, g].astype(np.float64)
        kind = tensors["codes.kind"][:, g, None].astype(np.float64)
        level = of("level")[None] + kind
        # One by one: another implementation may add them in another order.
        parts = (np.abs(own).sum(1), np.abs(earlier).sum(0), np.abs(of("level")), np.abs(kind))
        first = sum(float(part.max(initial=0)) for part in parts)
        half = WEIGHT_GRID // 2
        sums = [first]
        for name in ("middle", "last"):
            bias = np.abs(of(f"{name}_bias")).max() + half
            sums.append(LARGEST_ACTIVATION * np.abs(of(name)).sum(0).max() + bias)
        if max(sums) >= _EXACT:
            raise BundleError(
                f"a sum of the entropy model can reach {max(sums):.0f}, more than float32 holds "
                "exactly; train the entropy model again"
            )
        none = np.zeros((1, *own.shape[1:]))  # the first pass knows no neighbours
        stacked = [np.concatenate([part, earlier]) for part in np.concatenate([own, none])]
        self.first = [part.astype(np.float32) for part in stacked]
        self.level = level.astype(np.float32)
        self.middle, self.last = (
            (of(k) / WEIGHT_GRID).astype(np.float32) for k in ("middle", "last")
        )
        self.middle_bias, self.last_bias = (
            ((of(f"{k}_bias") + half) / WEIGHT_GRID).astype(np.float32) for k in ("middle", "last")
        )

    def logits(
        self, inputs: NDArray[np.float32], levels: NDArray[np.uint8], kinds: list[tuple[int, slice]]
    ) -> NDArray[np.intp]:
        """Index into ``codes.p1`` of each bit: [positions, c].

        Args:
            inputs: own, then earlier codes, [positions, 12 c + g c].
            levels: of the positions.
            kinds: kind of pass, and which positions are of it.
        """
        z = np.empty((len(inputs), self.middle.shape[0]), np.float32)
        for kind, part in kinds:
            np.matmul(inputs[part], self.first[kind], out=z[part])
            z[part] += self.level[kind].take(levels[part], axis=0)
        np.clip(z, 0, LARGEST_ACTIVATION, out=z)
        z = z @ self.middle
        z += self.middle_bias
        np.floor(z, out=z)
        np.clip(z, 0, LARGEST_ACTIVATION, out=z)
        z = z @ self.last
        z += self.last_bias
        np.floor(z, out=z)
        np.clip(z, -LOGITS // 2, LOGITS // 2 - 1, out=z)
        z += LOGITS // 2
        return z.astype(np.intp)


class CodeModel:
    """The network, and how the codes of a map are coded with it.

    Args:
        tensors: the arrays above by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the form above, or sums are not exact.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        self.n, self.levels, self.size = n, levels, n // levels
        _check(tensors, n, levels)
        self.p1: NDArray[np.uint16] = tensors["codes.p1"]
        self._groups = [_Group(tensors, g, self.size) for g in range(levels)]

    def encode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> Intervals:
        """Intervals of the kept bits of ``codes``, uint8 [n/8, h, w], under ``levels`` [h, w]."""
        flat = levels.reshape(-1)
        geometry = _geometry(*levels.shape)
        bits = np.unpackbits(codes.reshape(len(codes), -1), axis=0)
        known = _Known(self.n, self.levels, len(flat))
        in_order = flat[geometry.positions]
        parts = []
        for g, group in enumerate(self._groups):
            kept = np.flatnonzero(in_order > g)
            positions = geometry.positions[kept]
            own_bits = bits[g * self.size : (g + 1) * self.size].T[positions]
            known.fill(g, positions, own_bits)
            kinds, sizes = [], []
            for kind, part in geometry.passes:
                first, last = np.searchsorted(kept, [part.start, part.stop])
                sizes.append(int(last - first))
                if last > first:
                    kinds.append((kind, slice(int(first), int(last))))
            inputs = known.inputs(g, positions, geometry.neighbours[kept])
            index = group.logits(inputs, flat[positions], kinds)
            starts, freqs = rans.bit_intervals(own_bits.reshape(-1), self.p1[index].reshape(-1))
            ends = self.size * np.cumsum(sizes)[:-1]
            parts += list(zip(np.split(starts, ends), np.split(freqs, ends), strict=True))
        return Intervals.joined(parts)

    def decode(self, decoder: rans.Decoder, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The packed codes, uint8 [n/8, h, w]; masked bits are 0.

        Raises:
            TruncatedError: the data ends too early.
        """
        known = _Known(self.n, self.levels, levels.size)
        for _ in self._passes(decoder, levels, known):
            pass
        return known.packed(*levels.shape)

    def decode_available(
        self, decoder: rans.Decoder, levels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """:meth:`decode` of data that may be cut.

        Returns:
            The codes of every pass that is whole, uint8 [n/8, h, w], and the level up to
            which they reach at each position, uint8 [h, w].
        """
        known = _Known(self.n, self.levels, levels.size)
        reached = np.zeros(levels.size, np.uint8)
        with contextlib.suppress(TruncatedError):
            for g, positions in self._passes(decoder, levels, known):
                reached[positions] = g + 1
        return known.packed(*levels.shape), reached.reshape(levels.shape)

    def _passes(
        self, decoder: rans.Decoder, levels: NDArray[np.uint8], known: _Known
    ) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Decode pass after pass into ``known``; yields the group and positions of each."""
        flat = levels.reshape(-1)
        geometry = _geometry(*levels.shape)
        in_order = flat[geometry.positions]
        for g, group in enumerate(self._groups):
            for kind, part in geometry.passes:
                kept = part.start + np.flatnonzero(in_order[part] > g)
                if not len(kept):
                    continue
                positions = geometry.positions[kept]
                inputs = known.inputs(g, positions, geometry.neighbours[kept])
                index = group.logits(inputs, flat[positions], [(kind, slice(None))])
                bits = decoder.decode_bits(self.p1[index].reshape(-1))
                known.fill(g, positions, bits.reshape(-1, self.size))
                yield g, positions


class _Known:
    """The codes known so far as -1, 0, 1, by position and by group.

    By group there is one more position, of zeros: what lies outside the map.
    """

    def __init__(self, n: int, levels: int, positions: int) -> None:
        self._size = n // levels
        self._by_position = np.zeros((positions, n), np.int8)
        self._by_group = np.zeros((levels, positions + 1, self._size), np.int8)

    def fill(self, g: int, positions: NDArray[np.intp], bits: NDArray[np.uint8]) -> None:
        signs = 2 * bits.view(np.int8) - 1
        self._by_position[positions, g * self._size : (g + 1) * self._size] = signs
        self._by_group[g, positions] = signs

    def inputs(
        self, g: int, positions: NDArray[np.intp], neighbours: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        width = NEIGHBOURS * self._size
        inputs = np.empty((len(positions), width + g * self._size), np.float32)
        own = self._by_group[g].take(neighbours, axis=0)
        inputs[:, :width] = own.reshape(len(positions), width)
        # Whole rows, then their beginnings: take() copies what is not contiguous.
        inputs[:, width:] = self._by_position.take(positions, axis=0)[:, : g * self._size]
        return inputs

    def packed(self, height: int, width: int) -> NDArray[np.uint8]:
        bits = (self._by_position > 0).T.reshape(-1, height, width)
        return np.packbits(bits, axis=0)


class ContextModel:
    """The entropy model of one bundle: of levels and of codes.

    Args:
        tensors: the arrays of ``context.safetensors`` by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the shape, type or range above.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        if "levels.frequencies" not in tensors:
            raise BundleError("the entropy model lacks levels.frequencies; export the model again")
        self.levels = LevelModel(tensors["levels.frequencies"], levels)
        self.codes = CodeModel(tensors, n, levels)

    @classmethod
    def from_bytes(cls, data: bytes, n: int, levels: int) -> ContextModel:
        """Read ``context.safetensors``."""
        return cls(read_tensors(data), n, levels)


def read_tensors(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of ``context.safetensors`` by name.

    Raises:
        BundleError: the bytes are not a safetensors file.
    """
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as exc:
        raise BundleError(
            f"the entropy model cannot be read ({exc}); export the model again"
        ) from exc


def _check(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
    size = n // levels
    middle = tensors.get("codes.middle")
    if middle is None:
        raise BundleError("the entropy model lacks codes.middle; export the model again")
    hidden = middle.shape[-1] if middle.ndim == 3 else 0
    if hidden < 1:
        raise BundleError("codes.middle does not fit the model; export the model again")
    forms = {
        "own": ("int8", (KINDS - 1, levels, NEIGHBOURS * size, hidden)),
        "earlier": ("int8", (levels, n, hidden)),
        "level": ("int32", (levels, levels + 1, hidden)),
        "kind": ("int32", (KINDS, levels, hidden)),
        "middle": ("int8", (levels, hidden, hidden)),
        "middle_bias": ("int32", (levels, hidden)),
        "last": ("int8", (levels, hidden, size)),
        "last_bias": ("int32", (levels, size)),
        "p1": ("uint16", (LOGITS,)),
    }
    for name, form in forms.items():
        array = tensors.get(f"codes.{name}")
        if array is None:
            raise BundleError(f"the entropy model lacks codes.{name}; export the model again")
        if (array.dtype.name, array.shape) != form:
            raise BundleError(f"codes.{name} does not fit the model; export the model again")
    if not tensors["codes.p1"].all() or (np.diff(tensors["codes.p1"].astype(np.int32)) < 0).any():
        raise BundleError("codes.p1 is damaged; export the model again")
