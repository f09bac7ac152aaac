"""Flags and extra sections: round trip, places, truncation, damage, sizes."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from tests.runtime.sample_streams import (
    DATA,
    DRESSED,
    EXTRAS,
    HEAD,
    NUMBERS,
    SECTIONS,
    STREAM,
    dressed,
    flipped,
    with_crc,
    with_head,
)

from cwic import container
from cwic.container import Stream
from cwic.errors import (
    CorruptError,
    TruncatedError,
)
from cwic.header import read_layout

EVERY_CHOICE = [
    names for count in range(5) for names in itertools.combinations(container.EXTRAS, count)
]


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("names", EVERY_CHOICE, ids="-".join)
def test_extra_sections_round_trip(names: tuple[str, ...], grey: bool) -> None:
    stream = dressed(names, grey)
    data = stream.to_bytes()
    assert Stream.from_bytes(data) == Stream.salvage(data) == stream
    assert container.read_header(data) == stream.header
    assert stream.header.mode == ("L" if grey else "RGB") + "A" * ("alpha" in names)
    assert data[15] == grey | sum({"icc": 2, "alpha": 4, "exif": 8, "xmp": 16}[n] for n in names)
    assert len(data) == len(DATA) + sum(len(EXTRAS[name]) + 5 for name in names)


def test_the_profile_is_early_and_the_rest_late() -> None:
    """Behind the levels; and behind all codes. Sizes are in the order of the flags."""
    data = DRESSED.to_bytes()
    parts = [b"levels", b"more", b"\0profile", b"some codes", b"codes"]
    parts += [b"\xff", b"\0EXIF", b"\0<x/>"]
    assert data.endswith(b"".join(map(with_crc, parts)))
    assert data[15 : NUMBERS + 3] == b"\x1f" + b"\xac\x02\x07"
    assert data[NUMBERS + 3 : NUMBERS + 11] == bytes([8, 1, 5, 5, 6, 10, 4, 5])


def test_the_places_of_extra_sections() -> None:
    """A reader of files seeks to them."""
    data = DRESSED.to_bytes()
    layout = read_layout(data[: len(data) - len(SECTIONS) - 8 - 1 - 5 - 5 - 16])
    for name, (start, size) in layout.extras.items():
        assert data[start : start + size] == EXTRAS[name]
    assert layout.end == len(data)
    assert read_layout(DATA).end == len(DATA)


@pytest.mark.parametrize("length", range(len(DRESSED.to_bytes())))
def test_every_truncation_with_extra_sections(length: int) -> None:
    """What is there is salvaged; the last to come are the first to go."""
    data = DRESSED.to_bytes()
    with pytest.raises(TruncatedError):
        Stream.from_bytes(data[:length])
    try:
        found = Stream.salvage(data[:length])
    except TruncatedError:
        assert length < len(HEAD) + 4 + 4
        return
    places = read_layout(data).extras
    assert found.extras == {
        name: EXTRAS[name] for name, (start, size) in places.items() if start + size + 4 <= length
    }
    if "alpha" in found.extras:
        assert found.tiles == STREAM.tiles
    if any(tile.codes for tile in found.tiles):
        assert "icc" in found.extras


@pytest.mark.parametrize("name", EXTRAS)
def test_a_damaged_extra_section_is_lost_alone(name: str) -> None:
    data = DRESSED.to_bytes()
    start, size = read_layout(data).extras[name]
    for place in range(8 * start, 8 * (start + size + 4)):
        bad = flipped(data, place)
        with pytest.raises(CorruptError, match="does not match its checksum; fetch"):
            Stream.from_bytes(bad)
        found = Stream.salvage(bad)
        assert found.tiles == STREAM.tiles
        assert found.extras == {key: value for key, value in EXTRAS.items() if key != name}


@pytest.mark.parametrize(
    ("extras", "sizes"),
    [
        (("icc",), b"\x00"),
        (("alpha",), b"\x00"),
        (("icc",), b"\x82\x80\x80\x02"),  # 2^22 + 2
        (("exif",), b"\x82\x80\x80\x02"),
        (("xmp",), b"\xff\xff\xff\xff\x07"),
        (("alpha",), b"\x80\x80\x80\x80\x08"),  # 2^31
    ],
)
def test_extra_sections_of_a_wrong_size_are_refused(extras: tuple[str, ...], sizes: bytes) -> None:
    """By the header alone, and nothing is allocated."""
    head = dressed(extras).to_bytes()[: NUMBERS + 3] + sizes + HEAD[NUMBERS + 3 :]
    tracemalloc.start()
    for read in (Stream.from_bytes, Stream.salvage, container.read_header):
        with pytest.raises(CorruptError, match="out of range"):
            read(with_head(head))
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()


def test_the_largest_extra_sections_allocate_nothing_before_their_bytes_are_there() -> None:
    largest = b"\x81\x80\x80\x02", b"\xff\xff\xff\xff\x07", b"\x81\x80\x80\x02"
    head = dressed(("icc", "alpha", "exif")).to_bytes()[: NUMBERS + 3]
    data = with_head(head + b"".join(largest) + HEAD[NUMBERS + 3 :])
    tracemalloc.start()
    with pytest.raises(TruncatedError, match=r"bytes; fetch"):
        Stream.from_bytes(data)
    assert Stream.salvage(data).extras == {}
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()
