"""Rate-distortion curves: of one picture, and their mean over several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.codec import Codec
from cwic.rate import QUALITIES
from cwic.report.classical import Encodings, decode
from cwic.report.metrics import psnr_db, ssim

__all__ = ["Curves", "Point", "classical_curve", "cwic_curve", "mean_curves"]


@dataclass(frozen=True)
class Point:
    """One file on a curve.

    Attributes:
        setting: the encoder's quality.
        bpp: bits of the whole file per pixel.
        psnr_db: may be infinite.
        ssim: None for tiny pictures.
    """

    setting: int
    bpp: float
    psnr_db: float
    ssim: float | None


Curves: TypeAlias = dict[str, list[Point]]
"""Points by codec, ascending in quality."""


def cwic_curve(
    codec: Codec, original: NDArray[np.uint8], points: int, max_pixels: int
) -> list[Point]:
    """Points at qualities that are evenly spaced from 1 to 100 (rates: evenly in log s)."""
    qualities = np.rint(np.linspace(QUALITIES[0], QUALITIES[-1], points)).astype(int)
    found = []
    for quality in sorted(set(qualities.tolist())):
        data = codec.encode(original, quality=quality, max_pixels=max_pixels)
        restored = codec.decode(data, max_pixels=max_pixels).convert("RGB")
        found.append(_point(quality, data, original, np.asarray(restored)))
    return found


def classical_curve(
    encodings: Encodings, original: NDArray[np.uint8], highest_bpp: float
) -> list[Point]:
    """Points up to the first past ``highest_bpp``: further ones would be outside the plot."""
    found: list[Point] = []
    for quality in encodings.codec.curve:
        data = encodings.encode(quality)
        found.append(_point(quality, data, original, decode(data)))
        if found[-1].bpp > highest_bpp:
            break
    return found


def mean_curves(pictures: Sequence[Curves]) -> Curves:
    """Rate and quality at each setting that all pictures have, averaged over the pictures."""
    means: Curves = {}
    for name in pictures[0] if pictures else ():
        by_setting = [{p.setting: p for p in curves.get(name, ())} for curves in pictures]
        shared = set.intersection(*(set(points) for points in by_setting))
        means[name] = [_mean([each[s] for each in by_setting]) for s in sorted(shared)]
    return means


def _mean(points: Sequence[Point]) -> Point:
    similar = [p.ssim for p in points if p.ssim is not None]
    return Point(
        points[0].setting,
        math.fsum(p.bpp for p in points) / len(points),
        math.fsum(p.psnr_db for p in points) / len(points),
        math.fsum(similar) / len(points) if len(similar) == len(points) else None,
    )


def _point(
    setting: int, data: bytes, original: NDArray[np.uint8], pixels: NDArray[np.uint8]
) -> Point:
    bpp = 8 * len(data) / (original.shape[0] * original.shape[1])
    return Point(setting, bpp, psnr_db(original, pixels), ssim(original, pixels))
