"""Probabilities of code bits from what is already decoded: an integer network.

Group g of the codes (n/L channels) exists where the level is above g. Groups are coded one
after the other, or layer by layer (:mod:`cwic.layers`), each in the nine passes of
:mod:`cwic.scan`; a pass is computed for the whole map at once. For group g at a position,
with codes as -1, 1 and 0 (masked, outside, not yet known)::

    own      group g at the 12 known neighbours of the pass
    earlier  groups 0..g-1 at the position itself
    level    of the position, or what it is taken for

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

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import BundleError
from cwic.exact_layers import ExactLayers, check_exact
from cwic.known import CodeMap
from cwic.layers import Step
from cwic.level_model import IntervalPair
from cwic.scan import KINDS, NEIGHBOURS
from cwic.symbol_model import SymbolModel, array_of

__all__ = ["LOGITS", "CodeModel"]

LOGITS = 768
"""Entries of ``codes.p1``: logits from -12 in steps of 1/32."""
_TYPICAL_BITS = 0.78


class _Group:
    """The weights of one group."""

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
        check_exact(first)
        none = np.zeros((1, *own.shape[1:]))  # the first pass knows no neighbours
        stacked = [np.concatenate([part, earlier]) for part in np.concatenate([own, none])]
        self.first = [part.astype(np.float32) for part in stacked]
        self.level = level.astype(np.float32)
        self.layers = ExactLayers(of)

    def logits(
        self, inputs: NDArray[np.float32], levels: NDArray[np.uint8], kinds: list[tuple[int, slice]]
    ) -> NDArray[np.intp]:
        """Index into ``codes.p1`` of each bit: [positions, c].

        Args:
            inputs: own, then earlier codes, [positions, 12 c + g c].
            levels: of the positions.
            kinds: kind of pass, and which positions are of it.
        """
        z = np.empty((len(inputs), self.layers.hidden), np.float32)
        for kind, part in kinds:
            np.matmul(inputs[part], self.first[kind], out=z[part])
            z[part] += self.level[kind].take(levels[part], axis=0)
        z = self.layers(z)
        np.clip(z, -LOGITS // 2, LOGITS // 2 - 1, out=z)
        z += LOGITS // 2
        return z.astype(np.intp)


class CodeModel(SymbolModel[CodeMap, NDArray[np.uint16]]):
    """The network, and how the codes of a map are coded with it.

    Codes are bits, eight a byte: channel k is bit ``7 - k % 8`` of byte ``k // 8``.

    Args:
        tensors: the arrays above by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the form above, or sums are not exact.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        self.n, self.levels, self.size = n, levels, n // levels
        self.sizes = (self.size,) * levels
        self.groups_at = np.arange(levels + 1, dtype=np.uint8)
        self.channels, self.none, self.layered = n // 8, 0, True
        self.typical_bits = _TYPICAL_BITS * self.size * np.arange(levels + 1.0)
        _check(tensors, n, levels)
        self.p1: NDArray[np.uint16] = tensors["codes.p1"]
        self._groups = [_Group(tensors, g, self.size) for g in range(levels)]

    def open(self, height: int, width: int) -> CodeMap:
        return CodeMap(self.n, self.levels, height, width)

    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The codes as they are: what a level leaves out, coder and decoder network skip."""
        return codes

    def symbols(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bits uint8 [n, h w] of codes uint8 [n/8, h, w]."""
        return np.unpackbits(codes.reshape(len(codes), -1), axis=0)

    def shown(self, levels: NDArray[np.uint8], reached: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return reached

    def position_bits(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        known, bits = self.open(*levels.shape), self.symbols(codes)
        found = np.zeros(levels.size)
        for step in self.steps():
            positions, own_bits, p1, _ = self._predicted(known, step, bits, levels)
            ones = p1.astype(np.float64) / (1 << 16)
            found[positions] -= np.log2(np.where(own_bits, ones, 1 - ones)).sum(1)
        return found

    def encode_step(
        self, known: CodeMap, step: Step, bits: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> list[IntervalPair]:
        _, own_bits, p1, ends = self._predicted(known, step, bits, levels)
        starts, freqs = rans.bit_intervals(own_bits.reshape(-1), p1.reshape(-1))
        return list(zip(np.split(starts, ends), np.split(freqs, ends), strict=True))

    def turning_bits(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], float]:
        """What each kept code would cost more if it were the other one, and what all cost.

        What a code that is turned changes about the prediction of others is not counted.

        Args:
            codes: uint8 [n/8, h, w].
            levels: uint8 [h, w].

        Returns:
            Ideal bits [n, h, w], 0 where nothing is kept, and the sum of the kept codes' own.
        """
        known, bits = self.open(*levels.shape), self.symbols(codes)
        found = np.zeros((levels.size, self.n), np.float32)
        total = 0.0
        for step in self.steps():
            positions, own_bits, p1, _ = self._predicted(known, step, bits, levels)
            ones = p1.astype(np.float32) / (1 << 16)
            more = np.where(own_bits, 1, -1) * np.log2(ones / (1 - ones))
            first = step[0] * self.size
            found[positions, first : first + self.size] = more
            total += float(np.log2(1 + np.exp2(-more)).sum())
        return found.T.reshape(self.n, *levels.shape), total

    def _predicted(
        self, known: CodeMap, step: Step, bits: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8], NDArray[np.uint16], NDArray[np.intp]]:
        """A step's flat positions, bits and probabilities of a 1, and where its passes end."""
        g, having = step
        order, flat = known.order, levels.reshape(-1)
        kept, kinds, sizes = order.chosen(having[flat])
        positions = order.positions[kept]
        own_bits = bits[g * self.size : (g + 1) * self.size].T[positions]
        known.fill(g, positions, own_bits)
        index = self._groups[g].logits(known.inputs(g, kept), flat[positions], kinds)
        return positions, own_bits, self.p1[index], self.size * np.cumsum(sizes)[:-1]

    def predicted_pass(
        self, known: CodeMap, g: int, kept: NDArray[np.intp], levels: NDArray[np.uint8], kind: int
    ) -> NDArray[np.uint16]:
        """Probabilities of a 1 in 1/65536."""
        inputs = known.inputs(g, kept)
        index = self._groups[g].logits(inputs, levels, [(kind, slice(None))])
        return self.p1[index].reshape(-1)

    def decode_pass(self, decoder: rans.Decoder, p1: NDArray[np.uint16]) -> NDArray[np.uint8]:
        return decoder.decode_bits(p1)

    def decode_available(self, decoder: rans.Decoder, p1: NDArray[np.uint16]) -> NDArray[np.uint8]:
        return decoder.decode_available_bits(p1)


def _check(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
    size = n // levels
    middle = tensors.get("codes.middle")
    if middle is None:
        raise BundleError("the entropy model lacks codes.middle; export the model again")
    hidden = middle.shape[-1] if middle.ndim == 3 else 0
    if hidden < 1:
        raise BundleError("codes.middle does not fit the model; export the model again")
    forms: dict[str, tuple[str, tuple[int, ...]]] = {
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
    for name, (dtype, shape) in forms.items():
        array_of(tensors, f"codes.{name}", dtype, shape)
    if not tensors["codes.p1"].all() or (np.diff(tensors["codes.p1"].astype(np.int32)) < 0).any():
        raise BundleError("codes.p1 is damaged; export the model again")
