"""Time and peak memory of a very large picture through the command line.

``python -m benchmarks.large -o RESULT.json [--width 20000 --height 15000]``

The picture is made of the photographs in ``assets``, scaled and laid side by side, and
stored as JPEG. Peak memory is that of the whole process, as the kernel counts it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from PIL import Image

from benchmarks import command, environment

__all__ = ["measured", "table"]

ASSETS = Path(__file__).resolve().parents[1] / "assets"
_CELL_PX = (2304, 1536)


def measured(width_px: int, height_px: int, folder: Path) -> dict[str, Any]:
    """Encode and decode one picture of a size in processes of their own."""
    source, stream, restored = (folder / f"large.{kind}" for kind in ("jpg", "cwic", "png"))
    _make(width_px, height_px, source)
    limit = ["--max-pixels", str(width_px * height_px)]
    # Rows of a PNG are written as they come; --bpp would look for a budget.
    steps = {
        "encode": ["encode", str(source), "-o", str(stream), "-q", "50", *limit],
        "decode": ["decode", str(stream), "-o", str(restored), *limit],
    }
    found = {name: _watched(arguments) for name, arguments in steps.items()}
    return {
        "width_px": width_px,
        "height_px": height_px,
        "source_bytes": source.stat().st_size,
        "stream_bytes": stream.stat().st_size,
        **found,
    }


def _make(width_px: int, height_px: int, path: Path) -> None:
    cells = []
    for name in ("kodim03.png", "kodim23.png"):
        with Image.open(ASSETS / name) as photo:
            cells.append(photo.convert("RGB").resize(_CELL_PX, Image.Resampling.LANCZOS))
    large = Image.new("RGB", (width_px, height_px))
    for row, top in enumerate(range(0, height_px, _CELL_PX[1])):
        for column, left in enumerate(range(0, width_px, _CELL_PX[0])):
            large.paste(cells[(row + column) % 2], (left, top))
    large.save(path, quality=90)


def _watched(arguments: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    process = os.posix_spawn(
        sys.executable, [sys.executable, "-m", "cwic.cli", *arguments], os.environ
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise click.ClickException(f"cwic {' '.join(arguments)} failed")
    return {
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "time_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
    }


def table(result: dict[str, Any]) -> str:
    """One sentence."""
    encode, decode = result["encode"], result["decode"]
    return (
        f"A JPEG of {result['width_px']}x{result['height_px']} pixels becomes a stream of "
        f"{result['stream_bytes'] / 1e6:.1f} MB in {encode['time_s']:.0f} s with at most "
        f"{encode['peak_mib']:.0f} MiB of memory, and the stream a PNG in {decode['time_s']:.0f} s "
        f"with {decode['peak_mib']:.0f} MiB: the whole process, {result['machine']['cores']} cores "
        "without a GPU ([large.json](BASE/benchmarks/results/large.json))."
    )


@click.command()
@click.option("--width", default=20_000, show_default=True)
@click.option("--height", default=15_000, show_default=True)
@command.output
def main(width: int, height: int, output: Path) -> None:
    """Measure, write JSON, print it."""
    with tempfile.TemporaryDirectory() as folder:
        result = {**environment.describe(), **measured(width, height, Path(folder))}
    command.write(output, result)
    click.echo(json.dumps({name: result[name] for name in ("encode", "decode")}))


if __name__ == "__main__":
    main()
