"""The ``cwic`` command: encode, decode, info, and the commands of the heavier packages.

Each function here parses, calls the library and prints; an error of the user is one line
on stderr and exit status 1 (2 for wrong usage of the command line).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
from PIL import Image

from cwic import __version__, cli_options, container, packaged
from cwic.batch import named, read_stream
from cwic.batch_cli import decode, encode
from cwic.bench_cli import bench
from cwic.doctor_cli import doctor
from cwic.engines.cli import engine
from cwic.errors import BackendError, CwicError

__all__ = ["cli", "main"]

_SUMMARIES = {
    "train": "Train a model (extra 'train').",
    "export": "Export a trained model as a bundle (extra 'export').",
    "validate": "Compare a bundle with the trained model (extra 'export').",
    "report": "Compare with JPEG and WebP on one HTML page (extra 'report').",
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
            extra = name if name in ("train", "report") else "export"
            raise BackendError(
                f"cwic {name} needs packages that are not installed ({exc}); "
                f"pip install 'cwic[{extra}]'"
            ) from exc
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cwic")
def cli() -> None:
    """Content-weighted image compression: a learned codec for small devices."""


@cli.command()
@cli_options.inputs
def info(inputs: tuple[Path, ...]) -> None:
    """Say what .cwic files hold; no model is needed."""
    for source in inputs:
        data = read_stream(source)
        with named(source):
            stream = container.Stream.from_bytes(data, max_pixels=container.MAX_SIDE_PX**2)
        header = stream.header
        bpp = 8 * len(data) / (header.width_px * header.height_px)
        click.echo(
            f"{source}: {header.width_px}x{header.height_px}, {len(data)} bytes "
            f"({bpp:.3f} bpp), model {header.model_id.hex()}{_name(header.model_id)}, "
            f"quality {header.quality}, "
            f"levels {stream.levels_bytes} + codes {stream.codes_bytes} bytes, "
            f"tiles {len(stream.tiles)}, {header.lanes} lanes{_kind(stream)}, checksums right"
        )


def _name(model_id: bytes) -> str:
    """Of a model that is in the package."""
    name = packaged.name_of(model_id)
    return f" ({name})" if name else ""


def _kind(stream: container.Stream) -> str:
    """How codes are ordered if not plainly, and what a picture is or has beside colours."""
    extras = [f"{container.EXTRAS[name]} {len(part)}" for name, part in stream.extras.items()]
    words = (", progressive" if stream.header.progressive else "") + (
        ", grey" if stream.header.grey else ""
    )
    return words + (f", {' + '.join(extras)} bytes" if extras else "")


cli.add_command(encode)
cli.add_command(decode)
cli.add_command(bench)
cli.add_command(doctor)
cli.add_command(engine)


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
