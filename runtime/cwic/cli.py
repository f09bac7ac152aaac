"""The ``cwic`` command: encode, decode, info, and the commands of the heavier packages.

Each function here parses, calls the library and prints; an error of the user is one line
on stderr and exit status 1 (2 for wrong usage of the command line).
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
from PIL import Image

from cwic import __version__, codec, container
from cwic.backends import BACKENDS
from cwic.bench_cli import bench
from cwic.doctor_cli import doctor
from cwic.engines.cli import engine
from cwic.errors import BackendError, CwicError, StreamError, UsageError
from cwic.files import replacing, write_bytes
from cwic.image import open_rgb

__all__ = ["cli", "main"]

_SUFFIX = ".cwic"
_READ_LIMIT = 1 << 30


_SUMMARIES = {
    "train": "Train a model (extra 'train').",
    "export": "Export a trained model as a bundle (extra 'export').",
    "validate": "Compare a bundle with the trained model (extra 'export').",
}


class _Commands(click.Group):
    """A group that finds further commands in the entry points ``cwic.commands``.

    They live in packages that need torch; one is imported only when it is called.
    """

    @staticmethod
    def _plugins() -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group="cwic.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self._plugins():
            # A stand-in for help texts; resolve_command loads the real one.
            return click.Command(cmd_name, short_help=_SUMMARIES.get(cmd_name, "A plug-in."))
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands:
            command = self._load(name)
        return name, command, rest

    def _load(self, name: str) -> click.Command:
        try:
            command: click.Command = self._plugins()[name].load()
        except ImportError as exc:
            extra = "train" if name == "train" else "export"
            raise BackendError(
                f"cwic {name} needs packages that are not installed ({exc}); "
                f"pip install 'cwic[{extra}]'"
            ) from exc
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cwic")
def cli() -> None:
    """Content-weighted image compression: a learned codec for small devices."""


_model = click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
_backend = click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True)
_inputs = click.argument(
    "inputs", nargs=-1, required=True, metavar="IN...", type=click.Path(path_type=Path)
)
_output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File, or folder for several inputs; default: beside each input.",
)

_max_pixels = click.option(
    "--max-pixels",
    default=container.DEFAULT_MAX_PIXELS,
    show_default=True,
    help="Refuse larger pictures.",
)


@cli.command()
@_inputs
@_output
@_model
@_backend
@click.option("-q", "--quality", type=float, help="1..100, default 50.")
@click.option("--bpp", type=float, help="At most this many bits per pixel.")
@click.option("--max-bytes", type=int, help="At most this many bytes.")
@_max_pixels
def encode(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: Path | None,
    backend: str,
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    max_pixels: int,
) -> None:
    """Compress pictures to .cwic files."""
    coder = codec.load(model, backend)
    for source, target in _targets(inputs, output, _SUFFIX, _SUFFIX):
        result = coder.encode_detailed(
            open_rgb(source), quality=quality, bpp=bpp, max_bytes=max_bytes, max_pixels=max_pixels
        )
        write_bytes(target, result.data)
        click.echo(f"{target}: {len(result.data)} bytes, {result.bpp:.3f} bpp")


@cli.command()
@_inputs
@_output
@_model
@_backend
@_max_pixels
@click.option("--partial", is_flag=True, help="Take what is intact of a cut or damaged file.")
def decode(
    inputs: tuple[Path, ...],
    output: Path | None,
    model: Path | None,
    backend: str,
    max_pixels: int,
    partial: bool,
) -> None:
    """Restore pictures from .cwic files; the output's suffix chooses its format."""
    coder = codec.load(model, backend)
    # Beside photo.cwic may lie the photo.png that it was made from.
    for source, target in _targets(inputs, output, ".png", ".restored.png"):
        left_out = ""
        with _named(source):
            if partial:
                salvaged = coder.salvage(_read(source), max_pixels=max_pixels)
                picture, left_out = salvaged.image, salvaged.left_out
            else:
                picture = coder.decode(_read(source), max_pixels=max_pixels)
        with replacing(target) as temporary:
            _save(picture, temporary, target)
        click.echo(f"{target}: {picture.width}x{picture.height}{left_out and ', ' + left_out}")


@cli.command()
@_inputs
def info(inputs: tuple[Path, ...]) -> None:
    """Say what .cwic files hold; no model is needed."""
    for source in inputs:
        data = _read(source)
        with _named(source):
            stream = container.Stream.from_bytes(data, max_pixels=container.MAX_SIDE_PX**2)
        header = stream.header
        bpp = 8 * len(data) / (header.width_px * header.height_px)
        click.echo(
            f"{source}: {header.width_px}x{header.height_px}, {len(data)} bytes "
            f"({bpp:.3f} bpp), model {header.model_id.hex()}, quality {header.quality}, "
            f"levels {stream.levels_bytes} + codes {stream.codes_bytes} bytes, "
            f"tiles {len(stream.tiles)}, {header.lanes} lanes, checksums right"
        )


cli.add_command(bench)
cli.add_command(doctor)
cli.add_command(engine)


def _targets(
    inputs: Sequence[Path], output: Path | None, suffix: str, beside: str
) -> list[tuple[Path, Path]]:
    """Each input with its output file; nothing is written over an input or another output.

    Files in an output folder end in ``suffix``, those beside their inputs in ``beside``.
    """
    if output is None:
        pairs = [(source, source.with_suffix(beside)) for source in inputs]
    elif len(inputs) == 1 and not output.is_dir():
        pairs = [(inputs[0], output)]
    elif output.is_dir():
        pairs = [(source, output / source.with_suffix(suffix).name) for source in inputs]
    else:
        raise UsageError(f"{output} is not a folder and there are several inputs; make it first")
    targets = [target.resolve() for _, target in pairs]
    if len(set(targets)) < len(targets) or {s.resolve() for s in inputs} & set(targets):
        raise UsageError("two files would be written to one place; choose another --output")
    return pairs


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its stream."""
    try:
        yield
    except StreamError as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _READ_LIMIT:
            raise UsageError(f"{path} is larger than 1 GiB, which no .cwic file is; check the path")
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror}); check the path") from exc


def _save(picture: Image.Image, temporary: Path, target: Path) -> None:
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UsageError(f"{target} has no suffix of a picture format; use for example .png")
    try:
        picture.save(temporary, format=kind)
    except (OSError, ValueError) as exc:
        raise UsageError(f"cannot write {target} ({exc}); use for example .png") from exc


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: turns errors into one line and an exit status."""
    # Pictures beyond Pillow's limit are refused with an error of ours; its warning adds nothing.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        cli.main(
            args=None if arguments is None else list(arguments),
            standalone_mode=False,
            auto_envvar_prefix="CWIC",
        )
    except CwicError as exc:
        _fail(str(exc), 1)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, status: int) -> None:
    click.echo(f"cwic: {message}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
