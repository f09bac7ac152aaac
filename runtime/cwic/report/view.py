"""What the page shows of one picture: numbers, data URLs and charts, without pixel arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.container import STRIDE
from cwic.report.chart import Chart, line_chart
from cwic.report.curves import Curves, Point
from cwic.report.embed import data_url, fitted, heat_url, lossless_url
from cwic.report.measure import Coded, Measured

__all__ = ["CodedView", "HeatView", "PictureView", "charts", "picture_view"]


@dataclass(frozen=True)
class CodedView:
    """One codec's file: its figures, and a data URL of what it restores to."""

    codec: str
    setting: str
    size_bytes: int
    bpp: float
    psnr_db: float
    ssim: float | None
    encode_ms: float
    decode_ms: float
    too_large: bool
    url: str


@dataclass(frozen=True)
class HeatView:
    """A translucent map over the picture.

    Attributes:
        key, label: for scripts, and for people.
        low, high: what the ends of the colours stand for.
        url: PNG, one pixel per position of 8 x 8 pixels.
        width, height: size in percent of the picture: the map of a picture whose sides are
            no multiples of 8 reaches over its border.
    """

    key: str
    label: str
    low: str
    high: str
    url: str
    width: float
    height: float


@dataclass(frozen=True)
class PictureView:
    """A picture with all that the page says about it.

    Attributes:
        shown_width_px, shown_height_px: size of the embedded pictures, smaller than the
            picture itself where that is large.
        coded: cwic first.
        sections: bytes of cwic's file by section.
    """

    name: str
    width_px: int
    height_px: int
    shown_width_px: int
    shown_height_px: int
    original_url: str
    coded: tuple[CodedView, ...]
    heats: tuple[HeatView, ...]
    sections: Mapping[str, int]
    tiles: int
    charts: tuple[Chart, ...]
    curves: Curves

    @property
    def pixels(self) -> int:
        """Pixels of the picture itself."""
        return self.width_px * self.height_px


def picture_view(measured: Measured, largest_pixels: int) -> PictureView:
    """Embed what was measured.

    Args:
        measured: the picture.
        largest_pixels: shrink what is shown to at most about this many pixels.
    """
    height_px, width_px = measured.original.shape[:2]
    scale = min(1.0, (largest_pixels / (width_px * height_px)) ** 0.5)
    shown = max(1, round(scale * width_px)), max(1, round(scale * height_px))

    def url(coded: Coded) -> str:
        # The file itself where the page can show it as it is; it is by far the smallest.
        if coded.mime and shown == (width_px, height_px):
            return data_url(coded.data, coded.mime)
        return lossless_url(fitted(coded.pixels, *shown))

    return PictureView(
        measured.name,
        width_px,
        height_px,
        *shown,
        lossless_url(fitted(measured.original, *shown)),
        tuple(_coded(coded, url(coded)) for coded in measured.coded),
        _heats(measured),
        measured.spent.sections,
        measured.spent.tiles,
        charts(
            measured.curves,
            {c.codec: Point(0, c.bpp, c.psnr_db, c.ssim) for c in measured.coded},
        ),
        measured.curves,
    )


def charts(curves: Curves, marked: Mapping[str, Point]) -> tuple[Chart, ...]:
    """PSNR and SSIM over bits per pixel; none without curves."""
    if not curves:
        return ()
    found = (
        line_chart(
            "PSNR",
            ("bits per pixel", "PSNR, dB"),
            {name: [(p.bpp, p.psnr_db) for p in points] for name, points in curves.items()},
            {name: (p.bpp, p.psnr_db) for name, p in marked.items()},
        ),
        line_chart(
            "SSIM",
            ("bits per pixel", "SSIM"),
            {
                name: [(p.bpp, p.ssim) for p in points if p.ssim is not None]
                for name, points in curves.items()
            },
            {name: (p.bpp, p.ssim) for name, p in marked.items() if p.ssim is not None},
        ),
    )
    return tuple(chart for chart in found if chart is not None)


def _coded(coded: Coded, url: str) -> CodedView:
    return CodedView(
        coded.codec,
        coded.setting,
        len(coded.data),
        coded.bpp,
        coded.psnr_db,
        coded.ssim,
        coded.encode_ms,
        coded.decode_ms,
        coded.too_large,
        url,
    )


def _heats(measured: Measured) -> tuple[HeatView, ...]:
    height_px, width_px = measured.original.shape[:2]
    rows, columns = measured.levels.shape
    size = 100 * STRIDE * columns / width_px, 100 * STRIDE * rows / height_px

    def heat(key: str, label: str, values: NDArray[np.float64], top: float, high: str) -> HeatView:
        return HeatView(key, label, "0", high, heat_url(values / max(top, 1e-9)), *size)

    bits = measured.spent.position_bits
    highest = measured.highest_level
    return (
        heat(
            "levels",
            "importance levels",
            measured.levels.astype(np.float64),
            highest,
            f"level {highest}",
        ),
        heat("bits", "bits spent", bits, float(bits.max()), f"{bits.max():.0f} bits per 8x8 px"),
    )
