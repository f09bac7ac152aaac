"""What the commands share: how pictures are named, and the file of results."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

import cwic
from benchmarks import environment
from cwic.errors import CwicError
from cwic.files import write_bytes

__all__ = ["images", "matching", "measure_shipped", "output", "write"]


def _found(context: click.Context, parameter: click.Parameter, pattern: str) -> list[Path]:
    del context, parameter
    expanded = str(Path(pattern).expanduser())
    paths = sorted(Path(p) for p in glob.glob(expanded, recursive=True))  # noqa: PTH207
    paths = [path for path in paths if path.is_file()]
    if not paths:
        raise click.BadParameter(f"{pattern!r} matches no file; quote it and check the folder")
    return paths


def matching(name: str, help_text: str) -> Callable[[Any], Any]:
    """A required option: a glob, which the command gets as the files that match, sorted."""
    return click.option(name, required=True, help=help_text, callback=_found)


images = matching("--images", "Glob of pictures.")
output = click.option("-o", "--output", type=click.Path(path_type=Path), required=True)


def write(path: Path, result: Mapping[str, Any]) -> None:
    """The result as JSON."""
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())


def measure_shipped(
    paths: list[Path],
    path: Path,
    measured: Callable[[cwic.Codec, list[Path]], dict[str, Any]],
    model: str | None = None,
) -> dict[str, Any]:
    """What ``measured`` finds of a shipped model on pictures, written to ``path``.

    Beside it stand where it was measured, the model and the names of the pictures.

    Args:
        paths: the pictures.
        path: of the file of results.
        measured: what is measured.
        model: a name of :func:`cwic.packaged.names`; None is the default.
    """
    codec = cwic.load(model)
    try:
        found = measured(codec, paths)
    except CwicError as exc:
        raise click.ClickException(str(exc)) from exc
    result = {
        **environment.describe(),
        "model_id": codec.bundle.model_id.hex(),
        "pictures": [each.name for each in paths],
        **found,
    }
    write(path, result)
    return result
