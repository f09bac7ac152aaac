"""What the models of codes have in common: :mod:`cwic.context` and :mod:`cwic.value_model`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import BundleError, TruncatedError
from cwic.known import Geometry
from cwic.layers import Step
from cwic.level_model import IntervalPair, Intervals

__all__ = ["KnownMap", "SymbolModel", "array_of"]


class KnownMap(Protocol):
    """The codes of a map that are known so far."""

    order: Geometry

    def fill(self, g: int, positions: NDArray[np.intp], symbols: NDArray[Any], /) -> None:
        """Make symbols of group g known, [positions, c]."""

    def codes(self) -> NDArray[np.uint8]:
        """As a decoder network takes them, uint8 [channels, h, w]; 0 where nothing is known."""


_Known = TypeVar("_Known", bound=KnownMap)
_Predicted = TypeVar("_Predicted")


class SymbolModel(ABC, Generic[_Known, _Predicted]):
    """Codes of a map to symbols and back, group after group.

    A position has the first groups, as many as its level says.

    Attributes:
        n: codes of a position.
        levels: L.
        sizes: codes of each group, [G].
        groups_at: groups that a position has, by level, [L + 1], rising from 0.
        channels: channels of the bytes that a decoder network takes.
        none: the byte that stands for no code there.
        typical_bits: what a position takes, by level, about: [L + 1].
        layered: whether a level only says how many codes there are, and not what they mean: then
            a progressive stream may have levels in steps, see :mod:`cwic.layers`, and codes that
            were searched for at some levels are as good at others.
    """

    n: int
    levels: int
    sizes: tuple[int, ...]
    groups_at: NDArray[np.uint8]
    channels: int
    none: int
    typical_bits: NDArray[np.float64]
    layered: bool

    @abstractmethod
    def open(self, height: int, width: int) -> _Known:
        """A map of which no code is known yet."""

    @abstractmethod
    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is coded, and decoded from, of an encoder network's codes at these levels.

        Args:
            codes: as the encoder network gives them, uint8 [channels, h, w].
            levels: uint8 [h, w].

        Returns:
            As a decoder network takes them, uint8 [channels, h, w].
        """

    @abstractmethod
    def symbols(self, codes: NDArray[np.uint8]) -> NDArray[Any]:
        """Of codes as :meth:`sent` gives them, [n, h w]."""

    @abstractmethod
    def encode_step(
        self, known: _Known, step: Step, symbols: NDArray[Any], levels: NDArray[np.uint8]
    ) -> list[IntervalPair]:
        """``(starts, freqs)`` of a step's passes; its codes are known then.

        Args:
            known: the map so far.
            step: group, and the levels that have it now.
            symbols: of the whole map, [n, h w].
            levels: uint8 [h, w].
        """

    @abstractmethod
    def predicted_pass(
        self, known: _Known, g: int, kept: NDArray[np.intp], levels: NDArray[np.uint8], kind: int
    ) -> _Predicted:
        """What symbols of one pass are decoded with.

        Args:
            known: the map so far.
            g: group.
            kept: positions of the pass, as indices into the order of coding.
            levels: of these.
            kind: of the pass.
        """

    @abstractmethod
    def decode_pass(self, decoder: rans.Decoder, predicted: _Predicted) -> NDArray[Any]:
        """Symbols of a pass, [positions c].

        Raises:
            TruncatedError: the data ends before; the decoder stands where it stood.
        """

    @abstractmethod
    def decode_available(self, decoder: rans.Decoder, predicted: _Predicted) -> NDArray[Any]:
        """The first symbols of a pass whose data ends early."""

    def decode_step(
        self, known: _Known, step: Step, decoder: rans.Decoder, levels: NDArray[np.uint8]
    ) -> Iterator[NDArray[np.intp]]:
        """Decode a step into ``known``; yields the flat positions of each pass that is done.

        Raises:
            TruncatedError: the data ends too early; positions that it reaches were yielded.
        """
        g, having = step
        size, order, flat = self.sizes[g], known.order, levels.reshape(-1)
        chosen, kinds, _ = order.chosen(having[flat])
        for kind, part in kinds:
            kept = chosen[part]
            positions = order.positions[kept]
            predicted = self.predicted_pass(known, g, kept, flat[positions], kind)
            try:
                symbols = self.decode_pass(decoder, predicted)
            except TruncatedError:
                symbols = self.decode_available(decoder, predicted)
                whole = len(symbols) // size
                known.fill(g, positions[:whole], symbols[: whole * size].reshape(-1, size))
                yield positions[:whole]
                raise
            known.fill(g, positions, symbols.reshape(-1, size))
            yield positions

    @abstractmethod
    def position_bits(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Ideal bits of the codes at each position, [h w]; arguments as for :meth:`encode`."""

    @abstractmethod
    def shown(self, levels: NDArray[np.uint8], reached: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Levels for a decoder network that has the first ``reached`` groups of a position."""

    def finest(self, codes: NDArray[np.uint8]) -> NDArray[Any]:
        """An encoder network's codes one by one, [n, h w]; values in the smallest steps."""
        highest = np.full(codes.shape[1:], self.levels, np.uint8)
        return self.symbols(self.sent(codes, highest))

    def steps(self) -> list[Step]:
        """Groups in plain order, and which levels have them."""
        return [(g, self.groups_at > g) for g in range(len(self.sizes))]

    def encode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> Intervals:
        """Intervals of the kept codes in plain order.

        Args:
            codes: as :meth:`sent` gives them, uint8 [channels, h, w].
            levels: uint8 [h, w].
        """
        known, symbols = self.open(*levels.shape), self.symbols(codes)
        return Intervals.joined(
            [
                part
                for step in self.steps()
                for part in self.encode_step(known, step, symbols, levels)
            ]
        )

    def kept(self, levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which codes positions of these levels [h, w] have, [n, h, w]."""
        group = np.repeat(np.arange(len(self.sizes)), self.sizes)
        kept: NDArray[np.bool_] = group[:, None, None] < self.groups_at[levels]
        return kept

    def count(self, groups: NDArray[np.uint8]) -> int:
        """Codes of positions that have so many groups each."""
        up_to = np.cumsum([0, *self.sizes])
        return int(up_to[groups].sum())


def array_of(
    tensors: Mapping[str, NDArray[Any]], name: str, dtype: str, shape: tuple[int, ...]
) -> NDArray[Any]:
    """The array of a name.

    Raises:
        BundleError: there is none, or of another type or shape.
    """
    array = tensors.get(name)
    if array is None:
        raise BundleError(f"the entropy model lacks {name}; export the model again")
    if (array.dtype.name, array.shape) != (dtype, shape):
        raise BundleError(f"{name} does not fit the model; export the model again")
    return array
