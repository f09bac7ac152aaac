"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cwic import container

ROOT = Path(__file__).resolve().parents[2]


def test_format_example_is_the_golden_stream() -> None:
    text = (ROOT / "FORMAT.md").read_text()
    example = text.split("```")[-2].strip()
    assert example == (ROOT / "tests/runtime/golden/container.hex").read_text().strip()
    data = bytes.fromhex("".join(line.partition("#")[0] for line in example.splitlines()))
    stream = container.Stream.from_bytes(data)
    assert (stream.header.width_px, stream.header.height_px) == (300, 7)
    assert (stream.levels, stream.codes) == (b"levels", b"some codes")


def test_format_names_the_version_that_is_written() -> None:
    first = (ROOT / "FORMAT.md").read_text().splitlines()[0]
    assert first.endswith(f"version {container.VERSION}")


@pytest.mark.parametrize("page", sorted(p.name for p in ROOT.glob("*.md")))
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
