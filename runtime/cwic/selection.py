"""Which files a command works on, and where each result goes.

An input is a file, a pattern (``*``, ``?``, ``[...]``, ``**`` for folders at any depth; quoted,
or the shell expands it) or a folder, which stands for all files in it that end as wanted.
Hidden files are left out of patterns and folders. The results of patterns and folders keep
their place: ``in/**/*.png`` with the output ``out`` makes ``out/street/1.cwic`` of
``in/street/1.png``.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image

from cwic.errors import UsageError

__all__ = ["Selected", "Selection", "make_folders", "picture_suffixes", "select", "targets"]


@dataclass(frozen=True)
class Selected:
    """A file, and its place below the folder or the fixed part of the pattern that gave it."""

    path: Path
    under: Path


@dataclass(frozen=True)
class Selection:
    """The files of some inputs.

    Attributes:
        files: in the order of the inputs; those of one pattern or folder by name.
        searched: whether any input was a pattern or a folder.
    """

    files: tuple[Selected, ...]
    searched: bool


def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the pictures that Pillow reads here."""
    found = Image.registered_extensions().items()
    return frozenset(s for s, kind in found if kind in Image.OPEN) - {".cwic"}


def select(inputs: Iterable[Path], suffixes: Iterable[str]) -> Selection:
    """The files that ``inputs`` stand for.

    Args:
        inputs: files, patterns and folders. What is none of them is kept as a file, and
            whoever opens it says that it is missing.
        suffixes: of what is taken from folders, in lower case.

    Raises:
        UsageError: a pattern or a folder holds no such file.
    """
    files: list[Selected] = []
    searched = False
    for given in inputs:
        if given.is_dir():
            found = [
                s
                for s in _found(Path(glob.escape(str(given)), "**", "*"), given)
                if s.path.suffix.lower() in set(suffixes)
            ]
            missing = f"{given} is a folder without files to take; name another, or a file"
        elif not given.exists() and glob.has_magic(str(given)):
            found = _found(given, _fixed(given))
            missing = f"{given} matches no file; check the pattern"
        else:
            files.append(Selected(given, Path(given.name)))
            continue
        if not found:
            raise UsageError(missing)
        searched = True
        files += found
    return Selection(tuple(files), searched)


def _found(pattern: Path, root: Path) -> list[Selected]:
    paths = sorted(map(Path, glob.iglob(str(pattern), recursive=True)))  # noqa: PTH207
    return [Selected(path, path.relative_to(root)) for path in paths if path.is_file()]


def _fixed(pattern: Path) -> Path:
    """The folder before the first part of a pattern that is not plain."""
    parts: list[str] = []
    for part in pattern.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)


def targets(
    selection: Selection, output: Path | None, suffix: str, beside: str
) -> list[tuple[Path, Path]]:
    """Each file with its output; nothing is written over an input or another output.

    Args:
        selection: the inputs.
        output: a file for one input, else a folder; None: beside each input.
        suffix: of files in an output folder.
        beside: ending of files beside their inputs.

    Raises:
        UsageError: the output is of the wrong kind, or two files would meet in one place.
    """
    files = selection.files
    if output is None:
        pairs = [(file.path, file.path.with_suffix(beside)) for file in files]
    elif output.is_dir() or (selection.searched and not output.exists()):
        pairs = [(file.path, output / file.under.with_suffix(suffix)) for file in files]
    elif len(files) == 1 and not selection.searched:
        pairs = [(files[0].path, output)]
    else:
        raise UsageError(f"{output} is not a folder and there are several inputs; make it first")
    _check_apart(pairs)
    return pairs


def _check_apart(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Compare places, not what links in them point to: a result takes the place of a link."""

    @cache
    def real(folder: Path) -> Path:
        return folder.resolve()

    def place(path: Path) -> Path:
        return real(path.parent) / path.name

    taken = {place(source): source for source, _ in pairs}
    for source, target in pairs:
        other = taken.setdefault(place(target), source)
        if other is not source or place(target) == place(source):
            raise UsageError(
                f"{target}: two files would be written to one place ({source}, {other}); "
                "choose another --output"
            )


def make_folders(selection: Selection, pairs: Iterable[tuple[Path, Path]]) -> None:
    """Make the folders of the outputs of patterns and folders; others are to be there.

    Raises:
        UsageError: one cannot be made.
    """
    if not selection.searched:
        return
    for folder in {target.parent for _, target in pairs}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise UsageError(
                f"cannot make {folder} ({exc.strerror}); choose another --output"
            ) from exc
