"""What the importance map earns: with it, and with one that is equal everywhere.

``python -m benchmarks.importance --images 'kodak/*.png' -o RESULT.json``

Both codings of a picture take the same number of bytes, to 1 %. Without the map every
position keeps the same number of codes (one more in the upper rows, to use the bytes); the
decoder is the same one, trained with the map. That is no fair rival for the model trained half
for MS-SSIM: its decoder never saw the codes that the map leaves out in smooth places, and with
them it restores 18 to 20 dB at any rate. A fair one is a model trained without a map, which
there is not yet.
"""

from __future__ import annotations

from pathlib import Path
from statistics import pstdev
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import cwic
from benchmarks import command
from benchmarks.bd import METRICS, delta_rate
from benchmarks.metrics import bits_per_pixel, mean_point
from cwic.backends import Runner
from cwic.image import open_rgb

__all__ = ["FlatImportance", "measured"]

_QUALITIES = (10, 25, 40, 55, 70, 85)
Bytes = NDArray[np.uint8]


class FlatImportance(Runner):
    """A model whose importance map is the same everywhere."""

    backend = "flat"

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def encode(self, image: Bytes) -> tuple[Bytes, Bytes]:
        codes, importance = self._runner.encode(image)
        return codes, np.full_like(importance, 128)

    def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
        return self._runner.decode(codes, levels)


def measured(codec: cwic.Codec, paths: list[Path]) -> dict[str, Any]:
    """Curves with and without the map, their BD-rate, and how rates differ between pictures."""
    pictures = [open_rgb(path) for path in paths]
    flat = cwic.Codec(codec.bundle, FlatImportance(codec.runner))
    curves: dict[str, list[dict[str, Any]]] = {"importance map": [], "equal everywhere": []}
    for quality in _QUALITIES:
        files = [codec.encode(picture, quality=quality) for picture in pictures]
        others = [flat.encode(p, max_bytes=len(f)) for p, f in zip(pictures, files, strict=True)]
        for name, made in zip(curves, (files, others), strict=True):
            curves[name].append(_point(codec, quality, pictures, made))
    with_map, without = curves.values()
    rates = {key: delta_rate(without, with_map, key) for key in METRICS}
    return {"curves": curves, "bd_rate_of_the_map": rates}


def _point(
    codec: cwic.Codec, quality: int, pictures: list[Bytes], files: list[bytes]
) -> dict[str, Any]:
    restored = [np.asarray(codec.decode(data)) for data in files]
    bpp = list(map(bits_per_pixel, files, pictures))
    return {
        **mean_point(quality, bpp, pictures, restored),
        "bpp_lowest": round(min(bpp), 4),
        "bpp_highest": round(max(bpp), 4),
        "bpp_deviation": round(pstdev(bpp), 4),
    }


@click.command()
@command.images
@command.output
def main(images: list[Path], output: Path) -> None:
    """Measure, write JSON, print BD-rates."""
    result = command.measure_shipped(images, output, measured)
    click.echo(result["bd_rate_of_the_map"])


if __name__ == "__main__":
    main()
