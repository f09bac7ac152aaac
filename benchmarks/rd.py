"""Rate and distortion of a bundle and of the classical codecs on a folder of pictures.

``python -m benchmarks.rd --images 'kodak/*.png' -o benchmarks/results/kodak.json``

Every rate counts whole files: header, levels, codes. Curves are means over the pictures
at equal settings, as is usual on Kodak.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import cwic
from benchmarks import anchors, environment
from benchmarks.metrics import ms_ssim, psnr_db
from cwic.image import open_rgb

__all__ = ["measure", "point_at"]

Coder = Callable[[NDArray[np.uint8], float], tuple[int, NDArray[np.uint8]]]

_QUALITIES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_ANCHOR_SETTINGS: dict[str, Sequence[float]] = {
    "JPEG": (5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90),
    "WebP": (0, 10, 20, 30, 40, 50, 60, 70, 80, 90),
    "JPEG 2000": (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7),
    "AVIF": (15, 25, 35, 45, 55, 65, 75, 85),
}


@dataclass(frozen=True)
class _Codec:
    name: str
    settings: Sequence[float]
    run: Coder


def measure(paths: Sequence[Path], bundle: Path | None) -> dict[str, Any]:
    """Curves of every codec over ``paths``: name -> points {setting, bpp, psnr_db, ms_ssim}."""
    codec = cwic.load(bundle)
    codecs = [_learned(codec), *(_classical(a) for a in anchors.available())]
    pictures = [open_rgb(path) for path in paths]
    curves: dict[str, list[dict[str, Any]]] = {}
    for entry in codecs:
        curves[entry.name] = [_point(entry, setting, pictures) for setting in entry.settings]
    return {
        **environment.describe(),
        "model_id": codec.bundle.model_id.hex(),
        "pictures": [p.name for p in paths],
        "curves": curves,
    }


def _point(codec: _Codec, setting: float, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    bpp, psnr, similarity = [], [], []
    for picture in pictures:
        size_bytes, restored = codec.run(picture, setting)
        bpp.append(8 * size_bytes / (picture.shape[0] * picture.shape[1]))
        psnr.append(psnr_db(picture, restored))
        similarity.append(ms_ssim(picture, restored))
    return {
        "setting": setting,
        "bpp": round(fmean(bpp), 5),
        "psnr_db": round(fmean(psnr), 4),
        "ms_ssim": round(fmean(similarity), 6),
        "bpp_each": [round(value, 5) for value in bpp],
    }


def _learned(codec: cwic.Codec) -> _Codec:
    def run(picture: NDArray[np.uint8], quality: float) -> tuple[int, NDArray[np.uint8]]:
        data = codec.encode(picture, quality=quality)
        return len(data), np.asarray(codec.decode(data))

    return _Codec(f"cwic {codec.bundle.name}", _QUALITIES, run)


def _classical(anchor: anchors.Anchor) -> _Codec:
    def run(picture: NDArray[np.uint8], setting: float) -> tuple[int, NDArray[np.uint8]]:
        data = anchor.encode(picture, setting)
        return len(data), anchors.decode(data)

    return _Codec(anchor.name, _ANCHOR_SETTINGS[anchor.name], run)


def point_at(points: Sequence[dict[str, Any]], bpp: float) -> dict[str, float] | None:
    """PSNR and MS-SSIM of a curve at a rate, by linear interpolation in log rate.

    None outside the curve: nothing is extrapolated.
    """
    ordered = sorted(points, key=lambda p: p["bpp"])
    rates = np.log([p["bpp"] for p in ordered])
    if not rates[0] <= np.log(bpp) <= rates[-1]:
        return None
    return {
        key: float(np.interp(np.log(bpp), rates, [p[key] for p in ordered]))
        for key in ("psnr_db", "ms_ssim")
    }


@click.command()
@click.option("--images", required=True, help="Glob of pictures.")
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(images: str, model: Path | None, output: Path) -> None:
    """Measure, write JSON, print a table."""
    paths = sorted(Path(p) for p in glob.glob(images))  # noqa: PTH207
    if not paths:
        raise click.UsageError(f"--images {images!r} matches no file")
    result = measure(paths, model)
    output.write_text(json.dumps(result, indent=1) + "\n")
    for name, points in result["curves"].items():
        for p in points:
            click.echo(
                f"{name:12} {p['setting']:7.2f} {p['bpp']:.3f} bpp "
                f"{p['psnr_db']:.2f} dB  MS-SSIM {p['ms_ssim']:.4f}"
            )


if __name__ == "__main__":
    main()
