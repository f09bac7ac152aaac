"""``cwic report``: parses, builds the page, writes it."""

from __future__ import annotations

from pathlib import Path

import click

from cwic import cli_options, codec
from cwic.files import replacing
from cwic.report.build import CURVE_POINTS, build_report
from cwic.report.measure import Rate

__all__ = ["report"]


@click.command()
@click.argument(
    "inputs",
    nargs=-1,
    required=True,
    metavar="PICTURE|FOLDER...",
    type=click.Path(path_type=Path),
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    help="Page to write.",
)
@cli_options.model
@cli_options.backend
@cli_options.quality
@cli_options.bpp
@cli_options.max_bytes
@click.option("--title", help="Of the page; default: the picture's name.")
@click.option(
    "--curve-points",
    default=CURVE_POINTS,
    show_default=True,
    help="Rates of the rate-distortion plot; 0: no plot, which is much faster.",
)
@cli_options.max_pixels
def report(
    inputs: tuple[Path, ...],
    output: Path,
    model: Path | None,
    backend: str,
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    title: str | None,
    curve_points: int,
    max_pixels: int,
) -> None:
    """Compare cwic with JPEG and WebP at equal bytes, as one HTML page with the pictures in it."""
    with replacing(output) as temporary:  # first of all, to learn whether it can be written
        page = build_report(
            inputs,
            codec.load(model, backend),
            Rate(quality, bpp, max_bytes, max_pixels),
            title=title,
            curve_points=curve_points,
            progress=lambda name: click.echo(f"measuring {name}"),
        )
        # Names may hold what is no text; a page is always valid UTF-8.
        size_bytes = temporary.write_bytes(page.encode("utf-8", "replace"))
    click.echo(f"{output}: {size_bytes} bytes")
