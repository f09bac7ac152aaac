"""``cwic encode`` and ``cwic decode``: one file, or as many as patterns and folders hold."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cwic import batch, cli_options
from cwic.image import allow_pixels
from cwic.packaged import Codecs
from cwic.roi import BACKGROUND, parse_region
from cwic.selection import Selection, make_folders, picture_suffixes, select, targets

if TYPE_CHECKING:
    from cwic.codec import Codec
    from cwic.types import EncodeOptions

__all__ = ["decode", "encode"]

_SUFFIX = ".cwic"
_CLEAR_LINE = "\r\x1b[2K"

_OPTIONS = (
    cli_options.inputs,
    click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help="File, or folder for several inputs; default: beside each input.",
    ),
    cli_options.model,
    cli_options.backend,
    cli_options.precision,
    click.option("--rebuild", is_flag=True, help="Build an engine that is missing or stale."),
    cli_options.max_pixels,
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Files at a time; memory grows with them.",
    ),
    click.option("--resume", is_flag=True, help="Skip files whose whole result is there already."),
    click.option("--quiet", is_flag=True, help="Say nothing but what fails."),
)


@dataclass(frozen=True)
class _Common:
    """Values of :data:`_OPTIONS`, by name."""

    inputs: tuple[Path, ...]
    output: Path | None
    model: Path | None
    backend: str
    precision: str | None
    rebuild: bool
    max_pixels: int
    jobs: int
    resume: bool
    quiet: bool

    def open_codec(self, model: Path | None = None) -> Codec:
        return batch.open_codec(
            model or self.model,
            self.backend,
            precision=self.precision,
            rebuild=self.rebuild,
            jobs=self.jobs,
        )


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take :data:`_OPTIONS`; it gets them as its first argument."""

    @wraps(command)
    def called(**values: Any) -> None:
        own = {field.name: values.pop(field.name) for field in fields(_Common)}
        command(_Common(**own), **values)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


@click.command()
@_common
@cli_options.quality
@cli_options.bpp
@cli_options.max_bytes
@click.option("--psnr", "psnr_db", type=float, metavar="DB", help="At least this PSNR.")
@click.option(
    "--roi",
    multiple=True,
    metavar="L,T,R,B|MASK",
    help="Region of interest: a box in pixels, several times if wanted, or a grey picture.",
)
@click.option(
    "--roi-background",
    default=BACKGROUND,
    show_default=True,
    help="Weight of importance outside the boxes, 0..1.",
)
@click.option(
    "--progressive", is_flag=True, help="A file that is cut anywhere gives a coarser picture."
)
@click.option(
    "--effort",
    default=0,
    show_default=True,
    help="Rounds of search for better codes; 12 take a few seconds a megapixel and core.",
)
@click.option("--strip", is_flag=True, help="Leave out EXIF and XMP.")
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help="Encode on a Ray cluster of --jobs workers; 'local' starts one here.",
)
def encode(
    common: _Common,
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr_db: float | None,
    roi: tuple[str, ...],
    roi_background: float,
    progressive: bool,
    effort: int,
    strip: bool,
    cluster: str | None,
) -> None:
    """Compress pictures to .cwic files.

    IN is a picture, a folder of pictures, or a pattern in quotes, such as 'in/**/*.png'.
    """
    options: EncodeOptions = {
        "quality": quality,
        "bpp": bpp,
        "max_bytes": max_bytes,
        "psnr_db": psnr_db,
        "roi": parse_region(roi),
        "roi_background": roi_background,
        "max_pixels": common.max_pixels,
        "progressive": progressive,
        "effort": effort,
        "metadata": ("icc",) if strip else True,  # colours need their profile
    }
    allow_pixels(common.max_pixels)
    selection = select(common.inputs, picture_suffixes())
    pairs = targets(selection, common.output, _SUFFIX, _SUFFIX)
    if cluster is None:
        work = partial(
            batch.encode_files,
            common.open_codec(),
            pairs,
            jobs=common.jobs,
            resume=common.resume,
            **options,
        )
    else:
        from cwic.cluster import encode_files

        work = partial(
            encode_files,
            cluster,
            pairs,
            model=common.model,
            backend=common.backend,
            precision=common.precision,
            workers=common.jobs,
            resume=common.resume,
            **options,
        )
    make_folders(selection, pairs)
    _report(
        work,
        selection,
        common.quiet,
        lambda done: f"{done.target}: {done.stream_bytes} bytes, {done.bpp:.3f} bpp",
        lambda all_: f"{all_.picture_bytes} to {all_.stream_bytes} bytes",
    )


@click.command()
@_common
@click.option(
    "--partial", "partially", is_flag=True, help="Take what is intact of a cut or damaged file."
)
def decode(common: _Common, partially: bool) -> None:
    """Restore pictures from .cwic files; the output's suffix chooses its format.

    IN is a .cwic file, a folder of them, or a pattern in quotes, such as 'in/**/*.cwic'.
    """
    allow_pixels(common.max_pixels)  # to look at the results of an earlier run
    selection = select(common.inputs, (_SUFFIX,))
    # Beside photo.cwic may lie the photo.png that it was made from.
    pairs = targets(selection, common.output, ".png", ".restored.png")
    codec = common.open_codec() if common.model else Codecs(common.open_codec).of
    make_folders(selection, pairs)
    _report(
        partial(
            batch.decode_files,
            codec,
            pairs,
            jobs=common.jobs,
            resume=common.resume,
            partial=partially,
            max_pixels=common.max_pixels,
        ),
        selection,
        common.quiet,
        lambda done: (
            f"{done.target}: {done.width_px}x{done.height_px}"
            f"{done.left_out and ', ' + done.left_out}"
        ),
        lambda all_: f"{all_.stream_bytes} to {all_.picture_bytes} bytes",
    )


def _report(
    work: Callable[..., batch.Summary],
    selection: Selection,
    quiet: bool,
    line: Callable[[batch.Result], str],
    sizes: Callable[[batch.Summary], str],
) -> None:
    """Run ``work`` with an ``on_result`` that prints, and leave with its exit status."""
    if len(selection.files) == 1 and not selection.searched:
        _report_one(work, quiet, line)
        return
    with contextlib.ExitStack() as stack:
        bar = None
        if sys.stderr.isatty() and not quiet:
            count = len(selection.files)
            bar = stack.enter_context(
                click.progressbar(length=count, file=sys.stderr, show_pos=True)
            )

        def on_result(result: batch.Result) -> None:
            if result.error is not None:
                click.echo(f"{_CLEAR_LINE if bar else ''}cwic: {result.message}", err=True)
            elif bar is None and not quiet and not result.skipped:
                click.echo(line(result))
            if bar is not None:
                bar.update(1)

        summary = work(on_result=on_result)
    if not quiet:
        totals = f"{sizes(summary)}, {summary.bpp:.3f} bpp, " if summary.done else ""
        click.echo(
            f"{summary.done} done, {summary.skipped} skipped, {summary.failed} failed: "
            f"{totals}{summary.time_s:.1f} s"
        )
    if summary.failed:
        sys.exit(1)


def _report_one(
    work: Callable[..., batch.Summary], quiet: bool, line: Callable[[batch.Result], str]
) -> None:
    def on_result(result: batch.Result) -> None:
        if result.error is not None:
            raise result.error
        if not quiet:
            click.echo(f"{result.target}: is there" if result.skipped else line(result))

    work(on_result=on_result)
