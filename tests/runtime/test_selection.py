"""Which files inputs stand for, and where results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwic.errors import UsageError
from cwic.selection import make_folders, picture_suffixes, select, targets

FILES = ("a.png", "b.JPG", "note.txt", ".hidden.png", "x/a.png", "x/y/c.png", "x[1]/d.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("in/*.png", "a.png"),
        ("in/*.[jJ]*", "b.JPG"),
        ("in/**/*.png", "a.png x/a.png x/y/c.png x[1]/d.png"),
        ("in/x/**/*.png", "a.png y/c.png"),
        ("in/*/*.png", "x/a.png x[1]/d.png"),
        ("in", "a.png b.JPG x/a.png x/y/c.png x[1]/d.png"),
        ("in/x[1]", "d.png"),  # a folder of this name
        ("in/x[1]/d.png", "d.png"),
        ("in/x[[]1]/*", "x[1]/d.png"),
        ("in/note.txt", "note.txt"),  # named, so meant
        ("in/missing.png", "missing.png"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_select(folder: Path, given: str, expected: str, absolute: bool) -> None:
    path = folder / given if absolute else Path(given)
    selection = select([path], picture_suffixes())
    assert [str(file.under) for file in selection.files] == expected.split()
    assert selection.searched is (given not in ("in/x[1]/d.png", "in/note.txt", "in/missing.png"))
    if "missing" not in given:
        assert all(file.path.is_file() for file in selection.files)
    assert all(file.path.is_absolute() is absolute for file in selection.files)


@pytest.mark.parametrize("given", ["in/*.gif", "nowhere/**/*.png", "in/x/y/*/*"])
def test_a_pattern_that_matches_nothing(folder: Path, given: str) -> None:
    with pytest.raises(UsageError, match="matches no file; check"):
        select([Path("in/a.png"), Path(given)], picture_suffixes())


def test_a_folder_without_pictures(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="empty is a folder without"):
        select([Path("empty")], picture_suffixes())
    with pytest.raises(UsageError, match="in is a folder without"):
        select([Path("in")], (".cwic",))


def test_targets_keep_their_place(folder: Path) -> None:
    selection = select([Path("in/**/*.png"), Path("in/b.JPG")], picture_suffixes())
    pairs = targets(selection, Path("out/deep"), ".cwic", ".cwic")
    assert [str(target) for _, target in pairs] == [
        f"out/deep/{name}.cwic" for name in ("a", "x/a", "x/y/c", "x[1]/d", "b")
    ]
    assert not Path("out").exists()
    make_folders(selection, pairs)
    assert all(target.parent.is_dir() for _, target in pairs)
    beside = targets(selection, None, ".cwic", ".restored.png")
    assert beside[1] == (Path("in/x/a.png"), Path("in/x/a.restored.png"))


def test_targets_of_plain_files(folder: Path) -> None:
    one = select([Path("in/a.png")], ())
    assert targets(one, Path("no/b.cwic"), ".cwic", "") == [(Path("in/a.png"), Path("no/b.cwic"))]
    make_folders(one, [(Path("in/a.png"), Path("no/b.cwic"))])
    assert not Path("no").exists()
    assert targets(one, Path("in/x"), ".cwic", "")[0][1] == Path("in/x/a.cwic")
    two = select([Path("in/a.png"), Path("in/b.JPG")], ())
    with pytest.raises(UsageError, match="none is not a folder"):
        targets(two, Path("none"), ".cwic", "")
    with pytest.raises(UsageError, match="is not a folder"):
        targets(select([Path("in")], (".png",)), Path("in/note.txt"), ".cwic", "")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["in/a.png", "in/x/a.png"], "in/x/y"),  # one name
        (["in/a.png", "in/a.png"], "in/x"),  # one file
        (["in/a.png", "in/x/../a.png"], "in/x"),
        (["in", "in/a.png"], "in/x/y"),
        (["in/a.png"], "in/x/../a.png"),  # itself
        (["in/**/*.png"], "in"),  # themselves
        (["in/x/a.png", "in/a.png"], "in"),  # the other
    ],
)
def test_collisions(folder: Path, inputs: list[str], output: str) -> None:
    selection = select(map(Path, inputs), (".png",))
    with pytest.raises(UsageError, match="one place .*; choose another --output"):
        targets(selection, Path(output), ".png", ".png")
