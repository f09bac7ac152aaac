"""A picture that has been through the encoder network: files of it at any rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic import tiled
from cwic.backends import Runner
from cwic.bundle import Bundle
from cwic.coding import MapCoder
from cwic.container import Header, Stream
from cwic.errors import RateError, UsageError
from cwic.image import Picture
from cwic.rate import DEFAULT_QUALITY, QualityScale, levels_from_importance, moved
from cwic.targets import PSNR_TOLERANCE_DB, Measured, refined, scale_for_budget, scale_for_psnr

__all__ = ["MOST_EFFORT", "Encoded", "Encoding", "Target"]

MOST_EFFORT = 1000
_AIM, _ENOUGH = 0.996, 0.985
"""Shares of a budget that a search for values is to take, and that do."""
_USUAL_GAIN_DB = 0.25
_MOST_SEARCHES = 5


@dataclass(frozen=True)
class Encoded:
    """An encoded picture with what is worth knowing about it.

    Attributes:
        data: the ``.cwic`` stream.
        levels: the importance levels that were coded, uint8 [h/8, w/8].
        width_px, height_px: size of the picture.
        scale: the rate factor s that was chosen.
    """

    data: bytes
    levels: NDArray[np.uint8]
    width_px: int
    height_px: int
    scale: float

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * len(self.data) / (self.width_px * self.height_px)


@dataclass(frozen=True)
class Target:
    """What is wanted: at most one of the first four decides the rate.

    Attributes:
        quality: 1..100; 50 if nothing is given.
        bpp: most bits per pixel of the file.
        max_bytes: most bytes of the file.
        psnr_db: least PSNR of the picture.
        effort: rounds of the search for better codes, 0 to :data:`MOST_EFFORT`.
    """

    quality: float | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    psnr_db: float | None = None
    effort: int = 0

    def __post_init__(self) -> None:
        rates = self.quality, self.bpp, self.max_bytes, self.psnr_db
        if sum(value is not None for value in rates) > 1:
            raise UsageError(
                "quality, bpp, max_bytes and psnr_db exclude each other; give one of them"
            )
        if not 0 <= self.effort <= MOST_EFFORT:
            raise UsageError(
                f"an effort of {self.effort} is outside 0..{MOST_EFFORT}; use for example 12"
            )
        if self.psnr_db is not None and not 0 < self.psnr_db < 100:
            raise UsageError(f"a PSNR of {self.psnr_db} dB is outside 0..100; use for example 32")
        if self.bpp is not None and not self.bpp > 0:
            raise UsageError(f"{self.bpp} bits per pixel are not positive; use for example 0.5")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise UsageError(
                f"a budget of {self.max_bytes} bytes holds nothing; use for example 20000"
            )

    def budget_bytes(self, pixels: int) -> int | None:
        """Most bytes of a file of so many pixels; None if they are not what is asked for."""
        if self.bpp is not None:
            return int(min(self.bpp, 1e6) * pixels / 8)
        return self.max_bytes


class Encoding:
    """Codes and importance of a picture, and the files that they make.

    Args:
        bundle, runner, coder, qualities: of the model.
        picture: what was encoded.
        extras: extra sections of the stream.
        weights: factors of importance at each position, float [h, w]; None: no region.
        progressive: whether files have their codes in layers.
    """

    def __init__(
        self,
        bundle: Bundle,
        runner: Runner,
        coder: MapCoder,
        qualities: QualityScale,
        picture: Picture,
        extras: Mapping[str, bytes],
        weights: NDArray[np.float64] | None,
        progressive: bool = False,
    ) -> None:
        self._bundle, self._runner, self._coder = bundle, runner, coder
        self._qualities, self._picture, self._extras = qualities, picture, extras
        self._weights, self._progressive = weights, progressive
        self._found: NDArray[np.float64] | None = None
        self._size = picture.height_px, picture.width_px
        self._codes, self._importance = tiled.encode(
            runner, picture.part, *self._size, bundle.stride
        )

    def reach(self, target: Target) -> Encoded:
        """The file that meets a target.

        With some effort, better codes are searched for, from those of a first file: codes that mean
        the same at every level with their levels, and what was found meets the target anew; values
        at levels that stay, chosen so that what is found meets the target. Where regions have
        weights, levels are theirs to decide.

        Raises:
            RateError: none does.
            UsageError: a quality out of range.
        """
        if target.effort == 0:
            return self._with_present_codes(target)
        if self._coder.context.codes.layered:
            return self._with_found_codes(target)
        budget = self._budget(target)
        if budget is not None:
            return self._searched_within(budget, target.effort)
        if target.psnr_db is not None:
            return self._searched_reaching(target.psnr_db, target.effort)
        start = self._with_present_codes(target)
        return self._searched_from(start, target.effort)

    def _with_found_codes(self, target: Target) -> Encoded:
        """Codes that mean the same at every level, and with them levels, are searched for first."""
        encoded = self._with_present_codes(target)
        sent, levels = self._searched(encoded, target.effort)
        self._codes = sent
        self._found = moved(self._fine(), encoded.scale, levels, self._bundle.levels)
        return self._with_present_codes(target)

    def _searched(self, start: Encoded, rounds: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes as they are sent, and levels, found from those of a plain file."""
        return tiled.search(
            self._runner,
            self._coder.context.codes,
            self._sent(start.levels),
            start.levels,
            self._picture.part,
            *self._size,
            self._bundle.stride,
            rounds=rounds,
            keep_levels=self._weights is not None,
        )

    def _searched_from(self, start: Encoded, rounds: int) -> Encoded:
        """Values found from those of a file; the plain file if it is neither larger nor worse."""
        sent, levels = self._searched(start, rounds)
        found = self._written(sent, levels, start.scale)[0]
        if len(found.data) < len(start.data):
            return found
        better = self._psnr_db(sent, levels) > self._psnr_db(self._sent(start.levels), start.levels)
        return found if better else start

    def _searched_within(self, budget_bytes: int, rounds: int) -> Encoded:
        """Values found from those of a file of about the budget; the plain file if it is better."""
        start = best = self._within(budget_bytes)
        best_db = self._psnr_db(self._sent(start.levels), start.levels)
        aim = float(budget_bytes)
        for _ in range(_MOST_SEARCHES):
            sent, levels = self._searched(start, rounds)
            found = self._written(sent, levels, start.scale)[0]
            if len(found.data) <= budget_bytes:
                reached = self._psnr_db(sent, levels)
                if reached > best_db:
                    best, best_db = found, reached
                if len(found.data) >= _ENOUGH * budget_bytes:
                    break
            aim *= _AIM * budget_bytes / len(found.data)
            try:
                another = self._within(int(aim))
            except RateError:  # so small a budget leaves nothing to search for
                break
            if another.data == start.data:
                break
            start = another
        return best

    def _searched_reaching(self, psnr_db: float, rounds: int) -> Encoded:
        """Values found from those of a worse picture, by what the search is worth to it."""
        gain, found = _USUAL_GAIN_DB, list[Encoded]()
        for _ in range(_MOST_SEARCHES):
            start = self._reaching(psnr_db - gain)
            sent, levels = self._searched(start, rounds)
            reached = self._psnr_db(sent, levels)
            if reached >= psnr_db:
                found.append(self._written(sent, levels, start.scale)[0])
                if reached <= psnr_db + PSNR_TOLERANCE_DB:
                    break
            gain += reached - psnr_db - PSNR_TOLERANCE_DB / 2
        try:
            found.append(self._reaching(psnr_db))
        except RateError:
            if not found:
                raise
        return min(found, key=lambda encoded: len(encoded.data))

    def _budget(self, target: Target) -> int | None:
        return target.budget_bytes(self._size[0] * self._size[1])

    def _sent(self, levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._coder.context.codes.sent(self._codes, levels)

    def _with_present_codes(self, target: Target) -> Encoded:
        if target.psnr_db is not None:
            return self._reaching(target.psnr_db)
        budget = self._budget(target)
        if budget is not None:
            return self._within(budget)
        quality = DEFAULT_QUALITY if target.quality is None else target.quality
        plain = self._weights is None and self._found is None
        importance = self._importance if plain else self._fine()
        return self._at(self._qualities.scale(quality), importance)[0]

    def _fine(self) -> NDArray[np.float64]:
        """Importance without equal values, times the weights; or what a search made of it."""
        if self._found is not None:
            return self._found
        fine = refined(self._importance)
        return fine if self._weights is None else fine * self._weights

    @property
    def _highest_scale(self) -> float:
        """Where a search stops; with weights, a large budget reaches the background too."""
        weights = self._weights
        lowest = 1.0 if weights is None else float(weights[weights > 0].min())
        return self._qualities.highest / lowest

    def _at(
        self, scale: float, importance: NDArray[np.uint8] | NDArray[np.float64]
    ) -> tuple[Encoded, Measured]:
        levels = levels_from_importance(importance, scale, self._bundle.levels)
        return self._written(self._sent(levels), levels, scale)

    def _written(
        self, sent: NDArray[np.uint8], levels: NDArray[np.uint8], scale: float
    ) -> tuple[Encoded, Measured]:
        written = self._coder.write(sent, levels, progressive=self._progressive)
        height_px, width_px = self._size
        header = Header(
            width_px,
            height_px,
            self._bundle.model_id,
            self._qualities.quality(scale),
            written.lanes,
            self._coder.tile,
            self._picture.grey,
            tuple(self._extras),
            self._progressive,
        )
        data = Stream(header, written.tiles, self._extras).to_bytes()
        encoded = Encoded(data, levels, width_px, height_px, scale)
        return encoded, Measured(len(data), written.code_bits)

    def _within(self, budget_bytes: int) -> Encoded:
        fine, made = self._fine(), dict[float, Encoded]()

        def measure(scale: float) -> Measured:
            made[scale], measured = self._at(scale, fine)
            return measured

        typical_bits = self._coder.context.codes.typical_bits
        scale = scale_for_budget(measure, budget_bytes, fine, typical_bits, self._highest_scale)
        return made[scale]

    def _reaching(self, psnr_db: float) -> Encoded:
        fine = self._fine()

        def measure(scale: float) -> float:
            levels = levels_from_importance(fine, scale, self._bundle.levels)
            return self._psnr_db(self._sent(levels), levels)

        typical_bits = self._coder.context.codes.typical_bits
        scale = scale_for_psnr(measure, psnr_db, fine, typical_bits, self._highest_scale)
        return self._at(scale, fine)[0]

    def _psnr_db(self, sent: NDArray[np.uint8], levels: NDArray[np.uint8]) -> float:
        """PSNR (RGB) of what the decoder network makes of codes."""
        squares = 0.0

        def add(rows: slice, columns: slice, part: NDArray[np.uint8]) -> None:
            nonlocal squares
            error = part.astype(np.float32) - self._picture.part(rows, columns)
            squares += float(np.square(error).sum(dtype=np.float64))

        tiled.decode(self._runner, sent, levels, add, *self._size, self._bundle.stride)
        mean = squares / (3 * self._size[0] * self._size[1])
        return float(10 * np.log10(255**2 / max(mean, 1e-10)))
