"""``cwic export`` and ``cwic validate``: parse options, call the library, print the result."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Column, Table

from cwic_export.bundle_writer import export_bundle
from cwic_export.formats import DEFAULT_FORMATS, FORMATS, Options
from cwic_export.validation import SCALES, validate_bundle
from cwic_export.validation.outputs import Outputs, parse_scales
from cwic_export.validation.terminal import show
from cwic_training.data import find_pictures

__all__ = ["export", "validate"]

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", metavar="CKPT", type=_PATH)
@click.option("-o", "--out", type=_PATH, required=True, help="Bundle folder to write.")
@click.option(
    "--formats",
    default=",".join(DEFAULT_FORMATS),
    show_default=True,
    help=f"Separated by commas, out of {', '.join(FORMATS)}.",
)
@click.option("--name", help="Name of the model; default: that of the folder.")
@click.option("--calibration", metavar="GLOB", help="Pictures for onnx-int8; quote it.")
@click.option(
    "--int8-loss",
    type=float,
    default=Options.int8_loss_db,
    show_default=True,
    metavar="DB",
    help="PSNR that onnx-int8 may lose in each graph.",
)
@click.option("--sm", metavar="NN", help="Compute capability for engines, such as 86 (RTX only).")
def export(
    checkpoint: Path,
    out: Path,
    formats: str,
    name: str | None,
    calibration: str | None,
    int8_loss: float,
    sm: str | None,
) -> None:
    """Export the checkpoint CKPT as a bundle: graphs, entropy tables, manifest."""
    bundle = export_bundle(
        checkpoint,
        out,
        [part.strip() for part in formats.split(",") if part.strip()],
        name,
        calibration=find_pictures(calibration, "--calibration") if calibration else (),
        int8_loss_db=int8_loss,
        sm=sm,
    )
    table = Table(Column("file", overflow="fold"), "role", "for", "precision", "bytes")
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
@click.option(
    "--scales",
    metavar="S,...",
    default=",".join(f"{scale:g}" for scale in SCALES),
    show_default=True,
    help="Rate factors, separated by commas; quality 45, 66 and 88 by default.",
)
@click.option("--crop", metavar="PX", type=int, help="Take the centre of larger pictures.")
@click.option("--json", "json_file", metavar="FILE", help="Write the report there; -: print it.")
@click.option("--markdown", "markdown_file", metavar="FILE", help="Likewise, as Markdown.")
@click.option("--html", "html_file", metavar="FILE", help="Likewise, as one page with pictures.")
def validate(
    bundle: Path,
    reference: Path,
    images: str,
    scales: str,
    crop: int | None,
    json_file: str | None,
    markdown_file: str | None,
    html_file: str | None,
) -> None:
    """Compare every artefact of BUNDLE with the eager model; status 1 past tolerance."""
    outputs = Outputs(json_file, markdown_file, html_file)
    pictures = find_pictures(images, "--images")
    report = validate_bundle(bundle, reference, pictures, parse_scales(scales), crop)
    printed = outputs.write(report)
    if printed is None:
        show(report)
    else:
        click.echo(printed, nl=False)
    if not report.passed:
        sys.exit(1)
