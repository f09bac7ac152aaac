"""Options that several commands of ``cwic`` take, each written once."""

from __future__ import annotations

from pathlib import Path

import click

from cwic.backends import BACKENDS
from cwic.container import DEFAULT_MAX_PIXELS
from cwic.engines.choice import PRECISIONS

__all__ = [
    "backend",
    "bpp",
    "inputs",
    "max_bytes",
    "max_pixels",
    "model",
    "precision",
    "quality",
]

_path = click.Path(path_type=Path)

inputs = click.argument("inputs", nargs=-1, required=True, metavar="IN...", type=_path)
model = click.option("--model", type=_path, help="Bundle folder, or a model of the package.")
backend = click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True)
precision = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the graphs or engines; default: fp32, or the most exact engine that fits.",
)
max_pixels = click.option(
    "--max-pixels", default=DEFAULT_MAX_PIXELS, show_default=True, help="Refuse larger pictures."
)
quality = click.option("-q", "--quality", type=float, help="1..100, default 50.")
bpp = click.option("--bpp", type=float, help="At most this many bits per pixel.")
max_bytes = click.option("--max-bytes", type=int, help="At most this many bytes.")
