"""What the beginning of a file is worth: cut files against files of that size.

``python -m benchmarks.progressive --images 'kodak/*.png' -o RESULT.json``

Each picture is encoded once at a high quality; the file is cut at a share of its bytes and
decoded as far as it goes. Beside it stands a file that was encoded for those bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

import cwic
from benchmarks import command
from benchmarks.bd import METRICS, delta_rate
from benchmarks.metrics import bits_per_pixel, mean_point
from cwic.image import open_rgb

__all__ = ["SHARES", "measured"]

SHARES = (0.15, 0.25, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)
QUALITY = 80


def measured(codec: cwic.Codec, paths: list[Path], quality: int = QUALITY) -> dict[str, Any]:
    """Curves of cut files and of files of their sizes, and the BD-rate between them."""
    pictures = [open_rgb(path) for path in paths]
    files = [codec.encode(picture, quality=quality) for picture in pictures]
    curves: dict[str, list[dict[str, Any]]] = {"cut": [], "encoded for the size": []}
    for share in SHARES:
        cut = [data[: round(share * len(data))] for data in files]
        seen = [np.asarray(codec.salvage(data).image) for data in cut]
        made = [
            np.asarray(codec.decode(codec.encode(p, max_bytes=len(data))))
            for p, data in zip(pictures, cut, strict=True)
        ]
        bpp = list(map(bits_per_pixel, cut, pictures))
        for name, shown in zip(curves, (seen, made), strict=True):
            curves[name].append(mean_point(share, bpp, pictures, shown))
    cut_curve, own = curves.values()
    return {
        "quality": quality,
        "curves": curves,
        "bd_rate_of_cutting": {key: delta_rate(own, cut_curve, key) for key in METRICS},
    }


@click.command()
@command.images
@command.output
def main(images: list[Path], output: Path) -> None:
    """Measure, write JSON, print the curves."""
    result = command.measure_shipped(images, output, measured)
    click.echo(json.dumps(result["curves"], indent=1))
    click.echo(result["bd_rate_of_cutting"])


if __name__ == "__main__":
    main()
