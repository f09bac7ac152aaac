"""``cwic report``: parses, builds the page, writes it."""

from __future__ import annotations

from pathlib import Path

import click

from cwic import codec, container
from cwic.backends import BACKENDS
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
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True)
@click.option("-q", "--quality", type=float, help="1..100, default 50.")
@click.option("--bpp", type=float, help="At most this many bits per pixel.")
@click.option("--max-bytes", type=int, help="At most this many bytes.")
@click.option("--title", help="Of the page; default: the picture's name.")
@click.option(
    "--curve-points",
    default=CURVE_POINTS,
    show_default=True,
    help="Rates of the rate-distortion plot; 0: no plot, which is much faster.",
)
@click.option(
    "--max-pixels",
    default=container.DEFAULT_MAX_PIXELS,
    show_default=True,
    help="Refuse larger pictures.",
)
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
