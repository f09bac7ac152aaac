"""The pictures that a report is asked for: files, and those in folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cwic.errors import UsageError

__all__ = ["SUFFIXES", "display_names", "find_pictures"]

SUFFIXES = frozenset(
    (".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What counts as a picture in a folder; a file that is named by itself may have any suffix."""


def find_pictures(inputs: Sequence[Path]) -> list[Path]:
    """Files as they are, and of each folder its pictures by name; not of folders inside.

    Raises:
        UsageError: a folder has no picture or cannot be read.
    """
    found: list[Path] = []
    for path in inputs:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(p for p in path.iterdir() if _is_picture(p))
        except OSError as exc:
            raise UsageError(f"{path} cannot be read ({exc.strerror}); check the path") from exc
        if not inside:
            raise UsageError(
                f"{path} has no picture ({', '.join(sorted(SUFFIXES))}); name another folder"
            )
        found += inside
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def display_names(paths: Sequence[Path]) -> list[str]:
    """The file's name, with its folder where two have the same; always valid UTF-8."""
    often = Counter(path.name for path in paths)
    chosen = (path.name if often[path.name] == 1 else str(path) for path in paths)
    return [os.fsencode(name).decode("utf-8", "replace") for name in chosen]
