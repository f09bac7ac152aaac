"""Models that differ in one thing, on the same pictures.

``python -m benchmarks.variants --images 'kodak/*.png' -o RESULT.json
--model variable=BUNDLE --model 's = 0.6'=BUNDLE@0.6``

Each model is measured at rate factors s: those behind ``@``, or seven that cover its range. The
first is what the others are compared with: by how much their files are larger at equal quality,
as the mean over their own points of the distance to its curve (log rate by PCHIP over quality).
That is defined for one point too, where a BD-rate is not: a model trained at one rate has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

import cwic
from benchmarks import command, environment
from benchmarks.bd import METRICS
from benchmarks.metrics import bits_per_pixel, mean_point
from cwic import tiled
from cwic.errors import CwicError
from cwic.image import open_rgb
from cwic.rate import levels_from_importance

__all__ = ["SCALES", "curve", "extra_rate", "table"]

SCALES = (0.12, 0.2, 0.35, 0.6, 1.0, 1.7, 2.8)


def curve(
    codec: cwic.Codec, pictures: Sequence[NDArray[np.uint8]], scales: Sequence[float]
) -> list[dict[str, Any]]:
    """A point for each rate factor: means over whole files, and how rates differ between them."""
    files: dict[float, list[bytes]] = {scale: [] for scale in scales}
    for picture in pictures:
        height_px, width_px = picture.shape[:2]

        def part(
            rows: slice, columns: slice, pixels: NDArray[np.uint8] = picture
        ) -> NDArray[np.uint8]:
            return pixels[rows, columns]

        codes, importance = tiled.encode(
            codec.runner, part, height_px, width_px, codec.bundle.stride
        )
        for scale, made in files.items():
            levels = levels_from_importance(importance, scale, codec.bundle.levels)
            kept = codec.context.codes.sent(codes, levels)
            made.append(codec.write_stream(kept, levels, width_px, height_px, scale))
    points = []
    for scale, made in files.items():
        bpp = list(map(bits_per_pixel, made, pictures))
        restored = [np.asarray(codec.decode(data)) for data in made]
        spread = {
            "bpp_lowest": round(min(bpp), 4),
            "bpp_highest": round(max(bpp), 4),
            "bpp_deviation": round(pstdev(bpp), 4),
        }
        points.append({**mean_point(scale, bpp, pictures, restored), **spread})
    return points


def extra_rate(
    reference: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]], metric: str
) -> float | None:
    """By how many percent ``points`` take more bytes than ``reference`` at equal quality.

    Points outside the reference's range of quality are left out; None if all are.
    """
    ordered = sorted(reference, key=lambda p: float(p[metric]))
    quality = [p[metric] for p in ordered]
    log_rate = PchipInterpolator(quality, np.log([p["bpp"] for p in ordered]))
    inside = [p for p in points if quality[0] <= p[metric] <= quality[-1]]
    if not inside:
        return None
    mean = fmean(float(np.log(p["bpp"]) - log_rate(p[metric])) for p in inside)
    return 100 * (float(np.exp(mean)) - 1)


def table(result: dict[str, Any]) -> str:
    """Markdown: a line per model, its points and what it costs against the first."""
    first, *others = result["curves"]
    lines = [
        f"| | points | bytes at equal PSNR, against {first} | at equal MS-SSIM |",
        "|---|---|---|---|",
    ]
    for name in (first, *others):
        points = result["curves"][name]
        low, high = points[0], points[-1]
        shown = f"{low['bpp']:.3f} bpp, {low['psnr_db']:.2f} dB, {low['ms_ssim']:.4f}"
        if len(points) > 1:
            shown += f" to {high['bpp']:.3f} bpp, {high['psnr_db']:.2f} dB, {high['ms_ssim']:.4f}"
        deltas = (result["extra_rate"][name][key] for key in METRICS) if name != first else ()
        cells = [f"{d:+.1f} %" if d is not None else "–" for d in deltas] or ["", ""]
        lines.append(f"| {name} | {shown} | {' | '.join(cells)} |")
    pictures = result["pictures"]
    lines += ["", f"Means over {len(pictures)} pictures, {pictures[0]} to {pictures[-1]}."]
    return "\n".join(lines)


def _named(text: str) -> tuple[str, Path, tuple[float, ...]]:
    name, _, place = text.rpartition("=")
    folder, _, scales = place.partition("@")
    try:
        chosen = tuple(map(float, scales.split(","))) if scales else SCALES
    except ValueError as exc:
        raise click.BadParameter(f"{text!r}: behind @ come numbers, as in a=bundle@0.6") from exc
    return name or folder, Path(folder), chosen


@click.command()
@command.images
@click.option("--model", "models", multiple=True, required=True, help="NAME=BUNDLE[@s,s,...]")
@command.output
def main(images: list[Path], models: tuple[str, ...], output: Path) -> None:
    """Measure, write JSON, print the table."""
    pictures = [open_rgb(path) for path in images]
    named = [_named(text) for text in models]
    try:
        codecs = {name: (cwic.load(folder), scales) for name, folder, scales in named}
        curves = {name: curve(c, pictures, scales) for name, (c, scales) in codecs.items()}
    except CwicError as exc:
        raise click.ClickException(str(exc)) from exc
    reference = curves[named[0][0]]
    result = {
        **environment.describe(),
        "models": {
            name: {"model_id": c.bundle.model_id.hex(), "steps": c.bundle.facts.get("steps")}
            for name, (c, _) in codecs.items()
        },
        "pictures": [path.name for path in images],
        "curves": curves,
        "extra_rate": {
            name: {key: extra_rate(reference, points, key) for key in METRICS}
            for name, points in curves.items()
        },
    }
    command.write(output, result)
    click.echo(table(result))


if __name__ == "__main__":
    main()
