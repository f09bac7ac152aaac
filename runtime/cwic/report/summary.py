"""Totals and means over the pictures of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cwic.report.chart import Chart
from cwic.report.curves import mean_curves
from cwic.report.view import PictureView, charts

__all__ = ["CodecSummary", "Summary", "summarise"]


@dataclass(frozen=True)
class CodecSummary:
    """One codec over all pictures that it could take.

    Attributes:
        pictures: how many.
        size_bytes, encode_ms, decode_ms: sums.
        bpp: all bits over all pixels.
        psnr_db, ssim: means over the pictures; ssim is None if one has none.
    """

    codec: str
    pictures: int
    size_bytes: int
    bpp: float
    psnr_db: float
    ssim: float | None
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Summary:
    """Over all pictures: one row per codec, the pixels, and the mean curves."""

    codecs: tuple[CodecSummary, ...]
    pixels: int
    charts: tuple[Chart, ...]


def summarise(pictures: Sequence[PictureView]) -> Summary:
    """Sums and means, codecs in the order of the first picture that has them."""
    names = dict.fromkeys(coded.codec for picture in pictures for coded in picture.coded)
    return Summary(
        tuple(_codec(name, pictures) for name in names),
        sum(picture.pixels for picture in pictures),
        charts(mean_curves([picture.curves for picture in pictures]), {}),
    )


def _codec(name: str, pictures: Sequence[PictureView]) -> CodecSummary:
    pairs = [(p.pixels, coded) for p in pictures for coded in p.coded if coded.codec == name]
    size_bytes = sum(coded.size_bytes for _, coded in pairs)
    similar = [coded.ssim for _, coded in pairs if coded.ssim is not None]
    return CodecSummary(
        name,
        len(pairs),
        size_bytes,
        8 * size_bytes / sum(pixels for pixels, _ in pairs),
        math.fsum(coded.psnr_db for _, coded in pairs) / len(pairs),
        math.fsum(similar) / len(similar) if len(similar) == len(pairs) else None,
        math.fsum(coded.encode_ms for _, coded in pairs),
        math.fsum(coded.decode_ms for _, coded in pairs),
    )
