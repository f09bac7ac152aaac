"""The entropy model of a bundle: levels and codes of a map to symbols and back.

::

    plain        levels section: levels      codes section: codes
    progressive  levels section: levels of   codes section: codes of stage 0, then levels
                 stage 0                     and codes of stages 1 and 2

:mod:`cwic.layers` has the order, :mod:`cwic.level_model` the probabilities of levels and
:mod:`cwic.context` or, where codes are values, :mod:`cwic.value_model` those of codes. Values
mean nothing without their level, so a progressive stream of them is in plain order: first the
values that say most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from cwic import rans
from cwic.context import CodeModel
from cwic.errors import BundleError, TruncatedError
from cwic.layers import STAGES, Step, prefixes, stage_steps, stand_ins
from cwic.level_model import IntervalPair, Intervals, LevelModel
from cwic.symbol_model import KnownMap, SymbolModel
from cwic.value_model import ValueModel

__all__ = ["Coded", "ContextModel", "Decoded", "read_tensors"]


@dataclass(frozen=True)
class Coded:
    """A map as symbols.

    Attributes:
        levels, codes: what the two sections are made of.
    """

    levels: Intervals
    codes: Intervals


@dataclass(frozen=True)
class Decoded:
    """A map as far as it was read.

    Attributes:
        codes: uint8 [channels, h, w]; 0 where they are left out.
        levels: uint8 [h, w]; what they are taken for where not all is known.
        reached: groups of codes that were read at each position, uint8 [h, w].
    """

    codes: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    reached: NDArray[np.uint8]


class ContextModel:
    """The entropy model of one bundle: of levels and of codes.

    Args:
        tensors: the arrays of ``context.safetensors`` by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: an array is missing or not of the shape, type or range that
            :mod:`cwic.level_model` and the model of the codes say.
    """

    codes: SymbolModel[Any, Any]

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        if "levels.frequencies" not in tensors:
            raise BundleError("the entropy model lacks levels.frequencies; export the model again")
        self.levels = LevelModel(tensors["levels.frequencies"], levels)
        kind = ValueModel if "values.sizes" in tensors else CodeModel
        self.codes = kind(tensors, n, levels)

    @classmethod
    def from_bytes(cls, data: bytes, n: int, levels: int) -> ContextModel:
        """Read ``context.safetensors``."""
        return cls(read_tensors(data), n, levels)

    def encode(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8], *, progressive: bool = False
    ) -> Coded:
        """Symbols of a map.

        Args:
            codes: as :meth:`cwic.symbol_model.SymbolModel.sent` gives them.
            levels: uint8 [h, w].
            progressive: in the order of a progressive stream.
        """
        if not (progressive and self.codes.layered):
            first = self.levels.encode(levels)
            return Coded(first, self.codes.encode(codes, levels))
        most, symbols = self.codes.levels, self.codes.symbols(codes)
        known = self.codes.open(*levels.shape)
        first = Intervals.joined(self.levels.encode_stage(levels, 0))
        parts: list[IntervalPair] = []
        for stage in range(len(STAGES)):
            if stage:
                parts.extend(self.levels.encode_stage(levels, stage))
            seen = stand_ins(prefixes(levels, stage), stage, most)
            for step in stage_steps(most, stage):
                parts.extend(self.codes.encode_step(known, step, symbols, seen))
        return Coded(first, Intervals.joined(parts))

    def decode_levels(
        self, decoder: rans.Decoder, height: int, width: int, *, progressive: bool = False
    ) -> NDArray[np.uint8]:
        """What a levels section says: levels uint8 [h, w], or what they are taken for.

        Raises:
            TruncatedError: the data ends too early.
        """
        if progressive and self.codes.layered:
            return self.levels.decode_stage(decoder, np.zeros((height, width), np.uint8), 0)
        return self.levels.decode(decoder, height, width)

    def decode_codes(
        self,
        decoder: rans.Decoder,
        levels: NDArray[np.uint8],
        *,
        progressive: bool = False,
        available: bool = False,
    ) -> Decoded:
        """What a codes section says.

        Args:
            decoder: of the section.
            levels: from :meth:`decode_levels`.
            progressive: whether the stream is.
            available: take data that ends too early as far as it goes.

        Raises:
            TruncatedError: the data ends too early, and ``available`` is not set.
        """
        known, levels = self.codes.open(*levels.shape), levels.copy()
        reached = np.zeros(levels.size, np.uint8)
        with contextlib.suppress(*([TruncatedError] if available else [])):
            for g, positions in self._passes(decoder, known, levels, progressive):
                reached[positions] = g + 1
        return Decoded(known.codes(), levels, reached.reshape(levels.shape))

    def _passes(
        self,
        decoder: rans.Decoder,
        known: KnownMap,
        levels: NDArray[np.uint8],
        progressive: bool,
    ) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Decode pass after pass into ``known`` and ``levels``; yields group and positions."""
        layered = progressive and self.codes.layered
        for stage in range(len(STAGES) if layered else 1):
            if stage:
                levels[...] = self.levels.decode_stage(decoder, levels, stage)
            steps: list[Step] = (
                stage_steps(self.codes.levels, stage) if layered else self.codes.steps()
            )
            for step in steps:
                for positions in self.codes.decode_step(known, step, decoder, levels):
                    yield step[0], positions


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
