"""The codec: pictures to ``.cwic`` bytes and back.

::

    encode: picture ─ pad ─▶ runner ─▶ codes, importance ─ rate ─▶ levels
            per tile: levels, codes ─ context, rANS ─▶ sections ─ container ─▶ bytes
    decode: bytes ─ container ─▶ per tile: rANS, context ─▶ levels, codes
            ─▶ runner ─ crop ─▶ picture
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic import rans, rate
from cwic.backends import Runner, open_runner
from cwic.bundle import Bundle
from cwic.container import DEFAULT_MAX_PIXELS, STRIDE, Header, Sections, Stream
from cwic.context import ContextModel, Intervals
from cwic.errors import BundleError, ImageError, ModelMismatchError, StreamError, UsageError
from cwic.extras import Extras
from cwic.image import as_image, as_picture, crop_to, pad_to_multiple
from cwic.roi import BACKGROUND, position_weights
from cwic.targets import Measured, refined, scale_for_budget, scale_for_psnr
from cwic.tiles import Tile, tile_grid

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cwic.types import EncodeOptions, ImageLike, RegionLike

__all__ = ["Codec", "Encoded", "Salvaged", "load"]

TILE = 128
"""Longest side of a tile in positions: 1024 pixels."""
_SYMBOLS_PER_LANE = 16_384

_Modelled: TypeAlias = tuple[Intervals, Intervals]
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
        image: the picture, of the size and mode that the header says.
        codes_kept: share of the stream's codes that were read, 0..1 of those whose number is
            known (a tile without its levels counts as none).
        tiles: number of tiles.
        lost: tiles of which nothing could be read, by number; grey in the picture.
        coarse: tiles that lack codes and are coarser than they were encoded.
        missing: alpha and metadata that could not be read; the picture is then opaque.
    """

    image: Image.Image
    codes_kept: float
    tiles: int
    lost: tuple[int, ...]
    coarse: tuple[int, ...]
    missing: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """What is missing, in words; empty for a whole stream."""
        words = []
        if self.lost or self.coarse:
            words.append(f"{100 * self.codes_kept:.0f} % of the known codes")
        for name, numbers in (("coarse", self.coarse), ("lost", self.lost)):
            if numbers:
                few = ", ".join(str(number + 1) for number in numbers[:8])
                more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
                words.append(f"{name} tiles: {few}{more} of {self.tiles}")
        if self.missing:
            words.append(f"without {', '.join(self.missing)}")
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
        self.qualities = rate.QualityScale(bundle.quality_scales)
        data = bundle.read("context.safetensors")
        self.context = ContextModel.from_bytes(data, bundle.n, bundle.levels)

    def encode(self, image: ImageLike, **options: Unpack[EncodeOptions]) -> bytes:
        """Compress a picture; :meth:`encode_detailed` without the details."""
        return self.encode_detailed(image, **options).data

    def encode_detailed(
        self,
        image: ImageLike,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        max_bytes: int | None = None,
        psnr_db: float | None = None,
        roi: RegionLike | None = None,
        roi_background: float = BACKGROUND,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        metadata: bool | Collection[str] = True,
    ) -> Encoded:
        """Compress a picture at a quality, bit rate, byte budget or PSNR (at most one of them).

        The encoder network runs once; what remains is a choice of levels, see
        :mod:`cwic.targets`. A PSNR takes about six runs of the decoder network besides.

        Args:
            image: Pillow image, uint8 [H, W, 3], or what else :mod:`cwic.image` takes.
            quality: 1..100; 50 if nothing is given.
            bpp: the file takes at most this many bits per pixel.
            max_bytes: the file takes at most this many bytes, and at least 99 % of them where
                more codes improve the picture.
            psnr_db: the picture has at least this PSNR (RGB), and at most 0.05 dB more.
            roi: region of interest: a grey mask, or boxes; see
                :func:`cwic.roi.position_weights`.
            roi_background: weight 0..1 of what lies outside boxes.
            max_pixels: refuse larger pictures, as a decoder does by default: pictures are
                coded whole, in memory that grows with them.
            metadata: whether to carry ICC profile, EXIF and XMP, or which: some of the names
                icc, exif, xmp.

        Raises:
            ImageError: the picture cannot be coded, or is larger than ``max_pixels``.
            RateError: the rate cannot be met; the message names the smallest file or best PSNR.
            UsageError: an option out of range, or more than one.
        """
        source = as_picture(image)
        picture, extras = source.pixels, source.extras.sections(metadata)
        height_px, width_px = picture.shape[:2]
        if height_px * width_px > max_pixels:
            raise ImageError(
                f"the picture is {width_px}x{height_px} pixels, more than the limit of "
                f"{max_pixels}; shrink it, or raise max_pixels (--max-pixels) here and in decode"
            )
        budget = _budget_bytes(quality, bpp, max_bytes, psnr_db, width_px * height_px)
        weights = (
            None
            if roi is None
            else position_weights(roi, height_px, width_px, self.bundle.stride, roi_background)
        )
        padded = pad_to_multiple(picture, self.bundle.stride)
        codes, importance = (array[0] for array in self.runner.encode(padded[None]))
        plain = weights is None and budget is None and psnr_db is None
        p = importance if plain else refined(importance)
        most = self.qualities.highest
        if weights is not None:
            p = p * weights
            most /= weights[weights > 0].min()  # so that a large budget reaches the background
        highest, group_size = self.bundle.levels, self.bundle.n // self.bundle.levels

        def levels_at(scale: float) -> NDArray[np.uint8]:
            return rate.levels_from_importance(p, scale, highest)

        def at(scale: float) -> tuple[Encoded, list[_Modelled]]:
            levels = levels_at(scale)
            modelled = self._model(codes, levels)
            data = self._pack(modelled, width_px, height_px, scale, source.grey, extras)
            return Encoded(data, levels, width_px, height_px), modelled

        if psnr_db is not None:
            return at(
                scale_for_psnr(lambda s: self._psnr_db(picture, codes, levels_at(s)), psnr_db, most)
            )[0]
        if budget is None:
            quality = rate.DEFAULT_QUALITY if quality is None else quality
            return at(self.qualities.scale(quality))[0]
        made: dict[float, Encoded] = {}

        def measure(scale: float) -> Measured:
            made[scale], modelled = at(scale)
            bits = np.sum([coded.pass_bits for _, coded in modelled], axis=0)
            return Measured(len(made[scale].data), bits.reshape(highest, -1).sum(axis=1))

        return made[scale_for_budget(measure, budget, p, highest, group_size, most)]

    def write_stream(
        self,
        codes: NDArray[np.uint8],
        levels: NDArray[np.uint8],
        width_px: int,
        height_px: int,
        scale: float,
    ) -> bytes:
        """Entropy-code codes uint8 [n/8, h, w] and levels uint8 [h, w] into a stream."""
        return self._pack(self._model(codes, levels), width_px, height_px, scale)

    def _model(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> list[_Modelled]:
        """Intervals of the levels and codes of every tile."""

        def model(tile: Tile) -> _Modelled:
            rows, columns = tile.area
            part = levels[rows, columns]
            coded = self.context.codes.encode(codes[:, rows, columns], part)
            return self.context.levels.encode(part), coded

        return self._map(model, tile_grid(levels.shape[0], levels.shape[1], TILE))

    def _psnr_db(
        self, picture: NDArray[np.uint8], codes: NDArray[np.uint8], levels: NDArray[np.uint8]
    ) -> float:
        restored = crop_to(self.runner.decode(codes[None], levels[None])[0], *picture.shape[:2])
        error = np.square(restored.astype(np.float32) - picture).mean(dtype=np.float64)
        return float(10 * np.log10(255**2 / max(error, 1e-10)))

    def _pack(
        self,
        modelled: list[_Modelled],
        width_px: int,
        height_px: int,
        scale: float,
        grey: bool = False,
        extras: Mapping[str, bytes] | None = None,
    ) -> bytes:
        extras = extras or {}
        lanes = _lanes(max(len(coded.freqs) for _, coded in modelled))
        tiles = self._map(lambda m: Sections(m[0].to_bytes(1), m[1].to_bytes(lanes)), modelled)
        quality = self.qualities.quality(scale)
        header = Header(
            width_px, height_px, self.bundle.model_id, quality, lanes, TILE, grey, tuple(extras)
        )
        return Stream(header, tuple(tiles), extras).to_bytes()

    def decode(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """Restore a picture, mode L, LA, RGB or RGBA.

        Its ``info`` has what is carried of ``icc_profile``, ``exif`` and ``xmp``, by Pillow's
        names; :func:`cwic.metadata.save_options` keeps them in a file.

        Args:
            data: a whole ``.cwic`` stream.
            max_pixels: refuse larger pictures before anything is allocated for them.

        Raises:
            StreamError: of the kind that says what is wrong with the stream.
            BackendError: the decoder graph fails.
        """
        stream = Stream.from_bytes(bytes(data), max_pixels)
        return self._picture(stream.header, *self.read_codes(stream), Extras.read(stream))

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

        extras = Extras.read(stream, salvage=True)
        image = self._picture(stream.header, *self._assembled(stream, read), extras)
        grid = self._grid(stream)
        lost = [i for i, tile in enumerate(grid) if tile not in wanted]
        coarse = [i for i, t in enumerate(grid) if t in wanted and reached[t] < wanted[t]]
        share = sum(reached.values()) / max(1, sum(wanted.values()))
        return Salvaged(image, share, len(grid), tuple(lost), tuple(coarse), extras.missing)

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
        self, header: Header, codes: NDArray[np.uint8], levels: NDArray[np.uint8], extras: Extras
    ) -> Image.Image:
        picture = self.runner.decode(codes[None], levels[None])[0]
        return as_image(crop_to(picture, header.height_px, header.width_px), header.grey, extras)

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
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr_db: float | None,
    pixels: int,
) -> int | None:
    given = [option is not None for option in (quality, bpp, max_bytes, psnr_db)]
    if sum(given) > 1:
        raise UsageError("quality, bpp, max_bytes and psnr_db exclude each other; give one of them")
    if psnr_db is not None and not 0 < psnr_db < 100:
        raise UsageError(f"a PSNR of {psnr_db} dB is outside 0..100; use for example 32")
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
