"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cwic import container, scan

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ((b"levels", b"some codes"), (b"more", b"codes"))


def test_format_example_is_the_golden_stream() -> None:
    text = (ROOT / "FORMAT.md").read_text()
    example = text.split("```")[-2].strip()
    assert example == (ROOT / "tests/runtime/golden/container.hex").read_text().strip()
    data = bytes.fromhex("".join(line.partition("#")[0] for line in example.splitlines()))
    stream = container.Stream.from_bytes(data)
    assert (stream.header.width_px, stream.header.height_px) == (300, 7)
    assert (stream.header.lanes, stream.header.tile) == (4, 32)
    left, right = (container.Sections(*part) for part in SECTIONS)
    assert stream.tiles == (left, right)
    for comment, value in re.findall(r"# (\w+) (\d+)\b", example):
        known = {"version": container.VERSION, "quality": 50, "width": 300, "height": 7}
        assert known[comment] == int(value)


def test_format_knows_what_is_not_entropy_coded() -> None:
    """The table of sizes, against streams of such sections."""
    text = (ROOT / "FORMAT.md").read_text()
    rows = re.findall(r"^\| (\d+) × (\d+) \| (\d+), (\d+) \| (\d+) \|$", text, re.M)
    assert len(rows) == 4
    for width, height, levels, codes, other in (map(int, row) for row in rows):
        header = container.Header(width, height, bytes(8), 50, 1, 128)
        section = container.Sections(bytes(levels), bytes(codes))
        size = len(container.Stream(header, (section,)).to_bytes())
        later_chunks = (codes - 1) // container.CHUNK_BYTES
        assert size - levels - codes - 4 * later_chunks == other


def test_format_has_the_passes_of_the_code() -> None:
    text = (ROOT / "FORMAT.md").read_text()
    lists = {name: re.search(rf"^{name} = (.*)$", text, re.M) for name in "DS"}
    for name, found in lists.items():
        assert found is not None
        offsets = tuple((int(y), int(x)) for y, x in re.findall(r"\((-?\d),(-?\d)\)", found[1]))
        assert offsets == scan.PASSES[7 if name == "D" else 8].offsets
        for number in range(1 if name == "D" else 2, 9, 2):
            step = scan.PASSES[number].stride // 2
            assert scan.PASSES[number].offsets == tuple((y * step, x * step) for y, x in offsets)


def test_format_names_the_version_that_is_written() -> None:
    first = (ROOT / "FORMAT.md").read_text().splitlines()[0]
    assert first.endswith(f"version {container.VERSION}")


PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "assets/*.md", "tests/fuzz/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", text)
    for link, heading in links:
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        if heading and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert heading in {_anchor(words) for words in headings}, f"{link}#{heading}"


def _anchor(heading: str) -> str:
    """What a heading is called in links."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
