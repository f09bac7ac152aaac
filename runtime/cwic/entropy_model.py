"""The entropy model of a bundle: levels and codes of a map to symbols and back.

::

    plain        levels section: levels      codes section: codes
    progressive  levels section: levels of   codes section: codes of stage 0, then levels
                 stage 0                     and codes of stages 1 and 2

:mod:`cwic.layers` has the order, :mod:`cwic.level_model` and :mod:`cwic.context` the
probabilities.
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
from cwic.context import CodeModel, unpacked
from cwic.errors import BundleError, TruncatedError
from cwic.known import CodeMap
from cwic.layers import STAGES, Step, plain_steps, prefixes, stage_steps, stand_ins
from cwic.level_model import IntervalPair, Intervals, LevelModel
from cwic.rounding import Rounding

__all__ = ["Coded", "ContextModel", "Decoded", "read_tensors"]


@dataclass(frozen=True)
class Coded:
    """A map as symbols.

    Attributes:
        levels, codes: what the two sections are made of.
        groups: the group of each pass in ``codes``; L where it is of the levels.
    """

    levels: Intervals
    codes: Intervals
    groups: NDArray[np.intp]

    def group_bits(self, count: int) -> NDArray[np.float64]:
        """Ideal bits of the codes of each of the L groups."""
        return np.bincount(self.groups, self.codes.pass_bits, count + 1)[:count].astype(np.float64)


@dataclass(frozen=True)
class Decoded:
    """A map as far as it was read.

    Attributes:
        codes: uint8 [n/8, h, w]; masked bits are 0.
        levels: uint8 [h, w]; what they are taken for where not all is known.
        reached: the level up to which the codes reach, uint8 [h, w].
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
            :mod:`cwic.level_model`, :mod:`cwic.context` and :mod:`cwic.rounding` say.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
        if "levels.frequencies" not in tensors:
            raise BundleError("the entropy model lacks levels.frequencies; export the model again")
        self.levels = LevelModel(tensors["levels.frequencies"], levels)
        self.codes = CodeModel(tensors, n, levels)
        self._rounding = Rounding.of(tensors, n, levels)

    @classmethod
    def from_bytes(cls, data: bytes, n: int, levels: int) -> ContextModel:
        """Read ``context.safetensors``."""
        return cls(read_tensors(data), n, levels)

    @property
    def rounds(self) -> bool:
        """Whether codes depend on the levels that they are kept by: those of bit planes do."""
        return self._rounding is not None

    def rounded(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What to send of codes uint8 [n/8, h, w] under levels uint8 [h, w], of that shape."""
        return codes if self._rounding is None else self._rounding.codes(codes, levels)

    def encode(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8], *, progressive: bool = False
    ) -> Coded:
        """Symbols of codes uint8 [n/8, h, w] and levels uint8 [h, w]."""
        most, known, bits = self.codes.levels, self.codes.open(*levels.shape), unpacked(codes)
        parts: list[IntervalPair] = []
        groups: list[int] = []

        def add(steps: list[Step], seen: NDArray[np.uint8]) -> None:
            for step in steps:
                passes = self.codes.encode_step(known, step, bits, seen)
                parts.extend(passes)
                groups.extend([step[0]] * len(passes))

        if progressive:
            first = Intervals.joined(self.levels.encode_stage(levels, 0))
            for stage in range(len(STAGES)):
                if stage:
                    refining = self.levels.encode_stage(levels, stage)
                    parts.extend(refining)
                    groups.extend([most] * len(refining))
                seen = stand_ins(prefixes(levels, stage), stage, most)
                add(stage_steps(most, stage), seen)
        else:
            first = self.levels.encode(levels)
            add(plain_steps(most), levels)
        return Coded(first, Intervals.joined(parts), np.array(groups, np.intp))

    def decode_levels(
        self, decoder: rans.Decoder, height: int, width: int, *, progressive: bool = False
    ) -> NDArray[np.uint8]:
        """What a levels section says: levels uint8 [h, w], or what they are taken for.

        Raises:
            TruncatedError: the data ends too early.
        """
        if progressive:
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
        return Decoded(known.packed(), levels, reached.reshape(levels.shape))

    def _passes(
        self, decoder: rans.Decoder, known: CodeMap, levels: NDArray[np.uint8], progressive: bool
    ) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Decode pass after pass into ``known`` and ``levels``; yields group and positions."""
        most = self.codes.levels
        for stage in range(len(STAGES) if progressive else 1):
            if stage:
                levels[...] = self.levels.decode_stage(decoder, levels, stage)
            for step in stage_steps(most, stage) if progressive else plain_steps(most):
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
