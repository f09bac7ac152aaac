"""What must never stand in the project's files."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSOLUTE = re.compile(rb"(?<![\w./-])/(?:home|root|work|Users|tmp)/\w")


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_paths_of_a_machine() -> None:
    files = [p for p in tracked() if p.is_file()]
    assert files
    found = [
        f"{p.relative_to(ROOT)}: {match.group().decode()}"
        for p in files
        if p.suffix not in (".png",)
        for match in ABSOLUTE.finditer(p.read_bytes())
    ]
    assert not found
