"""One picture through every codec: files, restored pixels, quality, times, curves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cwic.bench import timed
from cwic.codec import Codec, Encoded
from cwic.container import DEFAULT_MAX_PIXELS, read_header
from cwic.report import classical
from cwic.report.curves import Curves, classical_curve, cwic_curve
from cwic.report.metrics import psnr_db, ssim
from cwic.report.spending import Spending, spending

__all__ = ["CWIC", "Coded", "Measured", "Rate", "measure"]

CWIC = "cwic"


@dataclass(frozen=True)
class Rate:
    """What ``Codec.encode`` is asked for; at most one of the first three."""

    quality: float | None = None
    bpp: float | None = None
    max_bytes: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True)
class Coded:
    """One file of one codec and what it restores to.

    Attributes:
        codec: its name.
        setting: of the encoder, in words.
        data: the file.
        mime: its type if browsers can show it, else empty.
        pixels: what it decodes to, uint8 [H, W, 3].
        too_large: whether it is above the bytes of cwic's file, because nothing smaller exists.
        encode_ms, decode_ms: wall time of one run; cwic's includes the search for a budget.
    """

    codec: str
    setting: str
    data: bytes
    mime: str
    pixels: NDArray[np.uint8]
    psnr_db: float
    ssim: float | None
    encode_ms: float
    decode_ms: float
    too_large: bool = False

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        height_px, width_px = self.pixels.shape[:2]
        return 8 * len(self.data) / float(width_px * height_px)


@dataclass(frozen=True)
class Measured:
    """A picture and everything that was found out about it.

    Attributes:
        name: how the report calls it.
        original: uint8 [H, W, 3].
        coded: cwic first, then the classical codecs that can hold it.
        levels: importance levels of cwic's file, uint8 [h/8, w/8], of at most ``highest_level``.
        spent: where its bits went.
        curves: rate-distortion points by codec; empty if none were asked for.
    """

    name: str
    original: NDArray[np.uint8]
    coded: tuple[Coded, ...]
    levels: NDArray[np.uint8]
    highest_level: int
    spent: Spending
    curves: Curves = field(default_factory=dict)


def measure(
    codec: Codec, name: str, original: NDArray[np.uint8], rate: Rate, curve_points: int
) -> Measured:
    """Run one picture through cwic, JPEG and WebP, one after the other on this thread.

    Args:
        codec: the model to use.
        name: how the report calls the picture.
        original: uint8 [H, W, 3].
        rate: of cwic's file; the others get its bytes.
        curve_points: rates of cwic's curve; 0 leaves the curves out.

    Raises:
        CwicError: as ``Codec.encode`` and ``Codec.decode``.
    """
    height_px, width_px = original.shape[:2]
    encodings = [classical.Encodings(c, original) for c in classical.available(width_px, height_px)]
    # The curves come first: a backend's first run is slower, and its time would be reported.
    curves: Curves = {}
    if curve_points:
        own_curve = cwic_curve(codec, original, curve_points, rate.max_pixels)
        curves = {CWIC: own_curve}
        for each in encodings:
            curves[each.codec.name] = classical_curve(each, original, own_curve[-1].bpp)

    encoded, encode_ms = timed(lambda: _encode(codec, original, rate))
    restored, decode_ms = timed(lambda: codec.decode(encoded.data, max_pixels=rate.max_pixels))
    pixels = np.asarray(restored.convert("RGB"))
    own = Coded(
        CWIC,
        f"quality {read_header(encoded.data).quality}",
        encoded.data,
        "",
        pixels,
        psnr_db(original, pixels),
        ssim(original, pixels),
        encode_ms,
        decode_ms,
    )
    return Measured(
        name,
        original,
        (own, *(_at_equal_bytes(each, original, len(encoded.data)) for each in encodings)),
        encoded.levels,
        codec.bundle.levels,
        spending(codec, encoded.data, rate.max_pixels),
        curves,
    )


def _encode(codec: Codec, original: NDArray[np.uint8], rate: Rate) -> Encoded:
    return codec.encode_detailed(
        original,
        quality=rate.quality,
        bpp=rate.bpp,
        max_bytes=rate.max_bytes,
        max_pixels=rate.max_pixels,
    )


def _at_equal_bytes(
    encodings: classical.Encodings, original: NDArray[np.uint8], size_bytes: int
) -> Coded:
    quality = encodings.largest_fitting(size_bytes)
    data, encode_ms = timed(lambda: encodings.encode_again(quality))
    pixels, decode_ms = timed(lambda: classical.decode(data))
    return Coded(
        encodings.codec.name,
        f"quality {quality}",
        data,
        encodings.codec.mime,
        pixels,
        psnr_db(original, pixels),
        ssim(original, pixels),
        encode_ms,
        decode_ms,
        too_large=len(data) > size_bytes,
    )
