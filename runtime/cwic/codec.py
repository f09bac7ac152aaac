"""The codec: pictures to ``.cwic`` bytes and back.

::

    encode: picture ─ pad ─▶ runner ─▶ codes, importance ─ rate ─▶ levels ─ context, rANS ─▶ bytes
    decode: bytes ─ container ─▶ rANS, context ─▶ levels, codes ─▶ runner ─ crop ─▶ picture
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic import rans, rate
from cwic.backends import Runner, open_runner
from cwic.bundle import Bundle
from cwic.container import DEFAULT_MAX_PIXELS, Header, Stream
from cwic.context import ContextModel, Intervals
from cwic.errors import ImageError, ModelMismatchError, UsageError
from cwic.image import as_rgb, crop_to, pad_to_multiple

if TYPE_CHECKING:
    from cwic.types import ImageLike

__all__ = ["Codec", "Encoded", "load"]

_SYMBOLS_PER_LANE = 16_384


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


class Codec:
    """Encoder and decoder of one model. Methods may be called from several threads.

    Args:
        bundle: the model.
        runner: the backend that runs its graphs.
    """

    def __init__(self, bundle: Bundle, runner: Runner) -> None:
        self.bundle, self.runner = bundle, runner
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
        coded_levels = self.context.encode_levels(levels)
        coded_codes = self.context.encode_codes(codes, levels)
        lanes = _lanes(coded_codes)
        header = Header(
            width_px, height_px, self.bundle.model_id, rate.quality_from_scale(scale), lanes
        )
        return Stream(header, _section(coded_levels, 1), _section(coded_codes, lanes)).to_bytes()

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
        codes, levels = self.read_codes(stream)
        picture = self.runner.decode(codes[None], levels[None])[0]
        return Image.fromarray(crop_to(picture, stream.header.height_px, stream.header.width_px))

    def read_codes(self, stream: Stream) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Codes uint8 [n/8, h, w] and levels uint8 [h, w] of a parsed stream."""
        header = stream.header
        if header.model_id != self.bundle.model_id:
            raise ModelMismatchError(
                f"the stream was made by model {header.model_id.hex()} and "
                f"{self.bundle.name!r} is {self.bundle.model_id.hex()}; "
                "pass the bundle that made it (--model)"
            )
        stride = self.bundle.stride
        height, width = -(-header.height_px // stride), -(-header.width_px // stride)
        decoder = rans.Decoder(stream.levels, 1)
        levels = self.context.decode_levels(decoder, height, width)
        decoder.finish()
        decoder = rans.Decoder(stream.codes, header.lanes)
        codes = self.context.decode_codes(decoder, levels)
        decoder.finish()
        return codes, levels


def load(bundle: str | Path | None = None, backend: str = "auto") -> Codec:
    """Open a model for encoding and decoding.

    Args:
        bundle: folder written by ``cwic export``; None takes the model in the package.
        backend: ``auto`` or ``cpu``.

    Raises:
        BundleError: the folder is not a usable bundle.
        BackendError: the backend's library is missing.
    """
    opened = Bundle.load(bundle)
    return Codec(opened, open_runner(opened, backend))


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


def _lanes(coded: Intervals) -> int:
    """More lanes decode faster and cost about four bytes each: one per 16,384 symbols, up to 64."""
    wanted = max(1, len(coded.freqs) // _SYMBOLS_PER_LANE)
    return min(64, 1 << (wanted.bit_length() - 1))


def _section(coded: Intervals, lanes: int) -> bytes:
    return rans.encode(coded.starts, coded.freqs, coded.pass_sizes, lanes)
