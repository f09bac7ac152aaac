"""What the beginning of a file is worth: cut files against files of that size.

``python -m benchmarks.progressive --images 'kodak/*.png' -o RESULT.json [--model nano-signs]``

Each picture is encoded once at a high quality, as a progressive file and as a plain one; both are
cut at shares of the plain file's bytes and decoded as far as they go. Beside them stands a file
that was encoded for those bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

import cwic
from benchmarks import command
from benchmarks.bd import METRICS, delta_rate
from benchmarks.metrics import bits_per_pixel, mean_point
from cwic.image import open_rgb

__all__ = ["SHARES", "measured", "table"]

SHARES = (0.06, 0.1, 0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
QUALITY = 80
_CUT, _PLAIN, _OWN = "progressive, cut", "plain, cut", "encoded for the size"
_FROM = 0.25
"""BD-rates are given over all shares, and over those from this one on."""


def measured(codec: cwic.Codec, paths: list[Path], quality: int = QUALITY) -> dict[str, Any]:
    """Curves of cut files and of files of their sizes, and the BD-rate between them."""
    pictures = [open_rgb(path) for path in paths]
    plain, layered = (
        [codec.encode(picture, quality=quality, progressive=p) for picture in pictures]
        for p in (False, True)
    )
    curves: dict[str, list[dict[str, Any]]] = {_CUT: [], _PLAIN: [], _OWN: []}
    for share in SHARES:
        sizes = [round(share * len(data)) for data in plain]
        shown = {
            name: [
                np.asarray(codec.salvage(data[:size]).image)
                for data, size in zip(files, sizes, strict=True)
            ]
            for name, files in ((_CUT, layered), (_PLAIN, plain))
        }
        shown[_OWN] = [
            np.asarray(codec.decode(codec.encode(picture, max_bytes=size)))
            for picture, size in zip(pictures, sizes, strict=True)
        ]
        bpp = [
            bits_per_pixel(bytes(size), picture)
            for size, picture in zip(sizes, pictures, strict=True)
        ]
        for name, curve in curves.items():
            curve.append(mean_point(share, bpp, pictures, shown[name]))
    late = {name: [p for p in c if p["setting"] >= _FROM] for name, c in curves.items()}
    return {
        "quality": quality,
        "whole_file_ratio": sum(map(len, layered)) / sum(map(len, plain)),
        "curves": curves,
        "bd_rate_of_cutting": {
            name: {
                which: {key: delta_rate(some[_OWN], some[name], key) for key in METRICS}
                for which, some in (("all", curves), (f"from {_FROM:g}", late))
            }
            for name in (_CUT, _PLAIN)
        },
    }


def table(result: dict[str, Any], file: str = "progressive.json") -> str:
    """Markdown: PSNR and MS-SSIM at every share, and what cutting costs, as ``file`` has it."""
    curves, deltas = result["curves"], result["bd_rate_of_cutting"]
    lines = ["| share of the file | bpp | " + " | ".join(curves) + " |", "|---" * 5 + "|"]
    for points in zip(*curves.values(), strict=True):
        cells = [f"{p['psnr_db']:.2f} dB / {p['ms_ssim']:.4f}" for p in points]
        first = points[0]
        lines.append(f"| {first['setting']:.0%} | {first['bpp']:.3f} | {' | '.join(cells)} |")
    late = f"from {_FROM:g}"
    said = []
    for name, delta in deltas.items():
        whole, part = delta["all"], delta[late]
        said.append(
            f"{name}: {whole['psnr_db']:+.1f} % of bytes by PSNR ({part['psnr_db']:+.1f} % over "
            f"the cuts from {_FROM:.0%} on), {whole['ms_ssim']:+.1f} % by MS-SSIM "
            f"({part['ms_ssim']:+.1f} %)"
        )
    lines += [
        "",
        f"Means over {len(result['pictures'])} pictures at quality {result['quality']}. What a cut "
        "costs against encoding for the size, as BD-rate: " + "; ".join(said) + ". A whole "
        f"progressive file takes {result['whole_file_ratio']:.4f} times the bytes of a plain one "
        f"([{file}](BASE/benchmarks/results/{file})).",
    ]
    return "\n".join(lines)


@click.command()
@command.images
@command.output
@click.option("--model", help="A model in the package; default: the default one.")
def main(images: list[Path], output: Path, model: str | None) -> None:
    """Measure, write JSON, print the table."""
    click.echo(table(command.measure_shipped(images, output, measured, model), output.name))


if __name__ == "__main__":
    main()
