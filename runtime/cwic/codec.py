"""The codec: pictures to ``.cwic`` bytes and back.

::

    encode: picture ─ pad ─▶ runner ─▶ codes, importance ─ rate ─▶ levels
            per tile: levels, codes ─ context, rANS ─▶ sections ─ container ─▶ bytes
    decode: bytes ─ container ─▶ per tile: rANS, context ─▶ levels, codes
            ─▶ runner ─ crop ─▶ picture
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic import rans, rate
from cwic.backends import Runner, open_runner
from cwic.bundle import Bundle
from cwic.container import DEFAULT_MAX_PIXELS, STRIDE, Header, Sections, Stream
from cwic.context import ContextModel, Intervals
from cwic.errors import BundleError, ImageError, ModelMismatchError, StreamError, UsageError
from cwic.image import as_rgb, crop_to, pad_to_multiple
from cwic.tiles import Tile, tile_grid

if TYPE_CHECKING:
    from cwic.types import ImageLike

__all__ = ["Codec", "Encoded", "Salvaged", "load"]

TILE = 128
"""Longest side of a tile in positions: 1024 pixels."""
_SYMBOLS_PER_LANE = 16_384

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Encoded:
    """An encoded picture with what is worth knowing about it.

    Attributes:
        data: the ``.cwic`` stream.
        levels: the importance levels that were coded, uint8 [h/8, w/8].
        width_px, height_px: size of the picture.
    """

    data: bytes
    levels: NDArray[np.uint8]
    width_px: int
    height_px: int

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return 8 * len(self.data) / (self.width_px * self.height_px)


@dataclass(frozen=True)
class Salvaged:
    """What a cut or damaged stream still gives.

    Attributes:
        image: the picture, mode RGB, of the size that the header says.
        codes_kept: share of the stream's codes that were read, 0..1 of those whose number is
            known (a tile without its levels counts as none).
        tiles: number of tiles.
        lost: tiles of which nothing could be read, by number; grey in the picture.
        coarse: tiles that lack codes and are coarser than they were encoded.
    """

    image: Image.Image
    codes_kept: float
    tiles: int
    lost: tuple[int, ...]
    coarse: tuple[int, ...]

    @property
    def left_out(self) -> str:
        """What is missing, in words; empty for a whole stream."""
        if not self.lost and not self.coarse:
            return ""
        words = [f"{100 * self.codes_kept:.0f} % of the known codes"]
        for name, numbers in (("coarse", self.coarse), ("lost", self.lost)):
            if numbers:
                few = ", ".join(str(number + 1) for number in numbers[:8])
                more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
                words.append(f"{name} tiles: {few}{more} of {self.tiles}")
        return "; ".join(words)


class Codec:
    """Encoder and decoder of one model. Methods may be called from several threads.

    Args:
        bundle: the model.
        runner: the backend that runs its graphs.
        threads: tiles that are entropy-coded at a time. On two cores more than one gains nothing:
            the products inside a tile already use all cores.
    """

    def __init__(self, bundle: Bundle, runner: Runner, threads: int = 1) -> None:
        if bundle.stride != STRIDE:
            raise BundleError(
                f"the model has a stride of {bundle.stride} and the stream {STRIDE}; "
                "export the model again with this release"
            )
        self.bundle, self.runner = bundle, runner
        if threads < 1:
            raise UsageError(f"{threads} threads cannot code; use 1 or more")
        self.threads = threads
        data = bundle.read("context.safetensors")
        self.context = ContextModel.from_bytes(data, bundle.n, bundle.levels)

    def encode(
        self,
        image: ImageLike,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> bytes:
        """Compress a picture; :meth:`encode_detailed` without the details."""
        return self.encode_detailed(
            image, quality=quality, bpp=bpp, max_bytes=max_bytes, max_pixels=max_pixels
        ).data

    def encode_detailed(
        self,
        image: ImageLike,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Encoded:
        """Compress a picture at a quality, a bit rate or a byte budget (at most one of them).

        Args:
            image: Pillow image of any mode, or uint8 [H, W, 3] or [H, W].
            quality: 1..100; 50 if nothing is given.
            bpp: the file takes at most this many bits per pixel.
            max_bytes: the file takes at most this many bytes.
            max_pixels: refuse larger pictures, as a decoder does by default: pictures are
                coded whole, in memory that grows with them.

        Raises:
            ImageError: the picture cannot be coded, or is larger than ``max_pixels``.
            RateError: the rate cannot be met; the message names the smallest file.
            UsageError: an option out of range, or more than one.
        """
        picture = as_rgb(image)
        height_px, width_px = picture.shape[:2]
        if height_px * width_px > max_pixels:
            raise ImageError(
                f"the picture is {width_px}x{height_px} pixels, more than the limit of "
                f"{max_pixels}; shrink it, or raise max_pixels (--max-pixels) here and in decode"
            )
        budget = _budget_bytes(quality, bpp, max_bytes, width_px * height_px)
        padded = pad_to_multiple(picture, self.bundle.stride)
        codes, importance = (array[0] for array in self.runner.encode(padded[None]))

        made: dict[float, Encoded] = {}  # the search ends at a rate that it has tried

        def at(scale: float) -> Encoded:
            if scale not in made:
                levels = rate.levels_from_importance(importance, scale, self.bundle.levels)
                data = self.write_stream(codes, levels, width_px, height_px, scale)
                made[scale] = Encoded(data, levels, width_px, height_px)
            return made[scale]

        if budget is None:
            return at(rate.scale_from_quality(rate.DEFAULT_QUALITY if quality is None else quality))
        return at(rate.scale_for_budget(lambda scale: len(at(scale).data), budget))

    def write_stream(
        self,
        codes: NDArray[np.uint8],
        levels: NDArray[np.uint8],
        width_px: int,
        height_px: int,
        scale: float,
    ) -> bytes:
        """Entropy-code codes uint8 [n/8, h, w] and levels uint8 [h, w] into a stream."""

        def model(tile: Tile) -> tuple[Intervals, Intervals]:
            rows, columns = tile.area
            part = levels[rows, columns]
            coded = self.context.codes.encode(codes[:, rows, columns], part)
            return self.context.levels.encode(part), coded

        height, width = levels.shape
        modelled = self._map(model, tile_grid(height, width, TILE))
        lanes = _lanes(max(len(coded.freqs) for _, coded in modelled))
        tiles = self._map(lambda m: Sections(m[0].to_bytes(1), m[1].to_bytes(lanes)), modelled)
        quality = rate.quality_from_scale(scale)
        header = Header(width_px, height_px, self.bundle.model_id, quality, lanes, TILE)
        return Stream(header, tuple(tiles)).to_bytes()

    def decode(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """Restore a picture, mode RGB.

        Args:
            data: a whole ``.cwic`` stream.
            max_pixels: refuse larger pictures before anything is allocated for them.

        Raises:
            StreamError: of the kind that says what is wrong with the stream.
            BackendError: the decoder graph fails.
        """
        stream = Stream.from_bytes(bytes(data), max_pixels)
        return self._picture(stream.header, *self.read_codes(stream))

    def read_codes(self, stream: Stream) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes uint8 [n/8, h, w] and levels uint8 [h, w] of a parsed stream."""
        self._check_model(stream.header)
        lanes = stream.header.lanes

        def read(job: tuple[Tile, Sections]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            levels = self._levels(*job)
            decoder = rans.Decoder(job[1].codes, lanes)
            codes = self.context.codes.decode(decoder, levels)
            decoder.finish()
            return codes, levels

        return self._assembled(stream, read)

    def salvage(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Salvaged:
        """Restore what is intact of a stream that was cut or damaged behind its header.

        Every section and chunk that is used has passed its checksum. A tile whose codes end
        early keeps its whole passes: it is coarser. A tile without levels is lost.

        Args, errors: as :meth:`decode`; a damaged header cannot be salvaged.
        """
        stream = Stream.salvage(bytes(data), max_pixels)
        self._check_model(stream.header)
        group = self.bundle.n // self.bundle.levels
        wanted: dict[Tile, int] = {}  # codes of each tile whose levels are known
        reached: dict[Tile, int] = {}  # and how many of them were read

        def read(job: tuple[Tile, Sections]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            tile, sections = job
            try:
                levels = self._levels(tile, sections)
            except StreamError:
                nothing = np.zeros((tile.height, tile.width), np.uint8)
                return np.zeros((self.bundle.n // 8, *nothing.shape), np.uint8), nothing
            codes, kept = self._available(sections, levels, stream.header.lanes)
            wanted[tile], reached[tile] = (
                group * int(array.sum(dtype=np.int64)) for array in (levels, kept)
            )
            return codes, kept

        image = self._picture(stream.header, *self._assembled(stream, read))
        grid = self._grid(stream)
        lost = [i for i, tile in enumerate(grid) if tile not in wanted]
        coarse = [i for i, t in enumerate(grid) if t in wanted and reached[t] < wanted[t]]
        share = sum(reached.values()) / max(1, sum(wanted.values()))
        return Salvaged(image, share, len(grid), tuple(lost), tuple(coarse))

    def _available(
        self, sections: Sections, levels: NDArray[np.uint8], lanes: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes that can be read, and the level up to which they reach at each position."""
        nothing = np.zeros((self.bundle.n // 8, *levels.shape), np.uint8), np.zeros_like(levels)
        # A stream of 16-bit words may have been cut in the middle of one.
        odd = (len(sections.codes) - rans.head_bytes(lanes)) % 2
        try:
            decoder = rans.Decoder(sections.codes[: len(sections.codes) - odd], lanes)
            found = self.context.codes.decode_available(decoder, levels)
            if sections.complete:
                decoder.finish()  # checksums are right, so anything but the end is wrong codes
        except StreamError:
            return nothing
        return found

    def _levels(self, tile: Tile, sections: Sections) -> NDArray[np.uint8]:
        if sections.levels is None:
            raise StreamError("a tile has no levels; fetch or encode it again")
        decoder = rans.Decoder(sections.levels, 1)
        levels = self.context.levels.decode(decoder, tile.height, tile.width)
        decoder.finish()
        return levels

    def _assembled(
        self,
        stream: Stream,
        read: Callable[[tuple[Tile, Sections]], tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes and levels of the whole picture from those of its tiles."""
        grid = self._grid(stream)
        levels = np.empty(stream.header.map_size, np.uint8)
        codes = np.empty((self.bundle.n // 8, *levels.shape), np.uint8)
        for tile, part in zip(
            grid, self._map(read, zip(grid, stream.tiles, strict=True)), strict=True
        ):
            rows, columns = tile.area
            codes[:, rows, columns], levels[rows, columns] = part
        return codes, levels

    def _grid(self, stream: Stream) -> list[Tile]:
        return tile_grid(*stream.header.map_size, stream.header.tile)

    def _map(self, work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
        """``work`` on every item, in threads where there are several."""
        jobs = list(items)
        if min(self.threads, len(jobs)) == 1:
            return [work(job) for job in jobs]
        with ThreadPoolExecutor(min(self.threads, len(jobs))) as pool:
            return list(pool.map(work, jobs))

    def _picture(
        self, header: Header, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> Image.Image:
        picture = self.runner.decode(codes[None], levels[None])[0]
        return Image.fromarray(crop_to(picture, header.height_px, header.width_px))

    def _check_model(self, header: Header) -> None:
        if header.model_id != self.bundle.model_id:
            raise ModelMismatchError(
                f"the stream was made by model {header.model_id.hex()} and "
                f"{self.bundle.name!r} is {self.bundle.model_id.hex()}; "
                "pass the bundle that made it (--model)"
            )


def load(bundle: str | Path | None = None, backend: str = "auto", *, threads: int = 1) -> Codec:
    """Open a model for encoding and decoding.

    Args:
        bundle: folder written by ``cwic export``; None takes the model in the package.
        backend: one of :data:`cwic.backends.BACKENDS`.
        threads: see :class:`Codec`.

    Raises:
        BundleError: the folder is not a usable bundle.
        BackendError: the backend's library is missing.
    """
    opened = Bundle.load(bundle)
    return Codec(opened, open_runner(opened, backend), threads)


def _budget_bytes(
    quality: float | None, bpp: float | None, max_bytes: int | None, pixels: int
) -> int | None:
    given = [option is not None for option in (quality, bpp, max_bytes)]
    if sum(given) > 1:
        raise UsageError("quality, bpp and max_bytes exclude each other; give one of them")
    if bpp is not None:
        if not bpp > 0:
            raise UsageError(f"{bpp} bits per pixel are not positive; use for example 0.5")
        return int(min(bpp, 1e6) * pixels / 8)
    if max_bytes is not None and max_bytes < 1:
        raise UsageError(f"a budget of {max_bytes} bytes holds nothing; use for example 20000")
    return max_bytes


def _lanes(symbols: int) -> int:
    """More lanes decode faster and cost about four bytes each: one per 16,384 symbols, up to 64."""
    wanted = max(1, symbols // _SYMBOLS_PER_LANE)
    return min(64, 1 << (wanted.bit_length() - 1))
