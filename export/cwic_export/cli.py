"""``cwic export`` and ``cwic validate``: parse options, call the library, print the result."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from cwic.files import write_bytes
from cwic_export.bundle_writer import FORMATS, export_bundle
from cwic_export.parity import validate_bundle
from cwic_export.report import HEADER, Report
from cwic_training.data import find_pictures

__all__ = ["export", "validate"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=_PATH)
@click.option("-o", "--out", type=_PATH, required=True, help="Bundle folder to write.")
@click.option(
    "--formats", default=",".join(FORMATS), show_default=True, help="Separated by commas."
)
@click.option("--name", help="Name of the model; default: that of the folder.")
def export(checkpoint: Path, out: Path, formats: str, name: str | None) -> None:
    """Export the checkpoint CKPT as a bundle: graphs, entropy tables, manifest."""
    chosen = [part.strip() for part in formats.split(",") if part.strip()]
    bundle = export_bundle(checkpoint, out, chosen, name)
    table = Table("file", "role", "for", "precision", "bytes")
    for file, entry in bundle.files.items():
        size = f"{entry.bytes:,}"
        table.add_row(file, entry.role, entry.target, entry.precision, size)
    console = Console()
    console.print(table)
    console.print(f"{bundle.path}: model {bundle.name}, id {bundle.model_id.hex()}", soft_wrap=True)


@click.command()
@click.argument("bundle", type=_PATH)
@click.option("--reference", metavar="CKPT", type=_PATH, required=True, help="Its checkpoint.")
@click.option("--images", metavar="GLOB", required=True, help="Pictures to compare on; quote it.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report there; -: print it.")
def validate(bundle: Path, reference: Path, images: str, json_file: str | None) -> None:
    """Compare every artefact of BUNDLE with the eager model; status 1 past tolerance."""
    report = validate_bundle(bundle, reference, find_pictures(images, "--images"))
    if json_file == "-":
        click.echo(report.to_json(), nl=False)
    else:
        if json_file is not None:
            write_bytes(json_file, report.to_json().encode())
        _show(report)
    if not report.passed:
        sys.exit(1)


def _show(report: Report) -> None:
    # A column for each artefact: the measures would not fit side by side.
    first, *others = zip(HEADER, *report.rows(), strict=True)
    table = Table(*first, title=f"{report.name}, pictures: {report.pictures}")
    for row in others:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for problem in report.problems():
        console.print(problem, soft_wrap=True, markup=False, highlight=False)
