"""``cwic bench``: prints what :mod:`cwic.bench` measures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cwic import cli_options, rate

if TYPE_CHECKING:
    from cwic.bench import BenchResult, PictureTimes

__all__ = ["bench"]


@click.command()
@cli_options.inputs
@cli_options.model
@cli_options.backend
@cli_options.precision
@click.option("-q", "--quality", default=float(rate.DEFAULT_QUALITY), show_default=True)
@click.option("--repeats", default=10, show_default=True, help="Times that are counted.")
@cli_options.max_pixels
@click.option("--json", "as_json", is_flag=True, help="Print the times as JSON.")
def bench(
    inputs: tuple[Path, ...],
    model: Path | None,
    backend: str,
    precision: str | None,
    quality: float,
    repeats: int,
    max_pixels: int,
    as_json: bool,
) -> None:
    """Time encoding and decoding of pictures, and each phase of it, on this machine."""
    from cwic.bench import run
    from cwic.image import open_rgb

    result = run(
        {str(path): open_rgb(path) for path in inputs},
        model,
        backend,
        precision=precision,
        quality=quality,
        repeats=repeats,
        max_pixels=max_pixels,
    )
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
        return
    for line in _lines(result):
        click.echo(line)


def _lines(result: BenchResult) -> Iterator[str]:
    machine = result.machine
    parts = (machine.jetson, machine.cpu, f"{machine.cores} cores", machine.gpu, machine.system)
    versions = (f"{name} {found}" for name, found in result.versions.items() if found)
    precision = f", {result.precision}" if result.precision else ""
    yield f"machine    {', '.join(part for part in parts if part)}"
    yield f"libraries  {', '.join(versions)}"
    yield f"backend    {result.backend}{precision}, coder {result.coder}, model {result.model}"
    yield f"measured   {result.repeats} repeats at quality {result.quality:g}, in ms"
    for picture in result.pictures:
        yield ""
        yield from _table(picture)


def _table(picture: PictureTimes) -> Iterator[str]:
    pixels = picture.width_px * picture.height_px
    yield (
        f"{picture.name}: {picture.width_px}x{picture.height_px}, "
        f"{picture.size_bytes} bytes, {picture.bpp:.3f} bpp"
    )
    yield f"{'':12} {'median':>10} {'min':>10} {'max':>10} {'first':>10} {'Mpixel/s':>10}"
    directions = (
        ("encode", picture.encode, picture.first_encode_ms),
        ("decode", picture.decode, picture.first_decode_ms),
    )
    for direction, phases, first_ms in directions:
        for phase, times in phases.items():
            total = phase == "total"
            row = f"{direction if total else '  ' + phase:12}"
            row += f" {times.median_ms:10.2f} {times.min_ms:10.2f} {times.max_ms:10.2f}"
            if total:
                row += f" {first_ms:10.2f} {pixels / (1e3 * times.median_ms):10.2f}"
            yield row
