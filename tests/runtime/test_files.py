"""Outputs appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwic.errors import UsageError
from cwic.files import replacing, write_bytes


def test_success_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_bytes(target, b"old")
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_unusable_places(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose another output"):
        write_bytes(tmp_path / "none" / "a", b"")
    with pytest.raises(UsageError, match="is a folder"):
        write_bytes(tmp_path, b"")
