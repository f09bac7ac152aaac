"""The stream's layout: round trip, golden bytes, truncation, every flipped bit, abuse."""

from __future__ import annotations

import runpy
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic import container
from cwic.container import Header, Stream
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    StreamError,
    TruncatedError,
    UsageError,
    VersionError,
)

GOLDEN = Path(__file__).with_name("golden")
HEADER = Header(width_px=300, height_px=7, model_id=bytes(range(8)), quality=50, lanes=4)
STREAM = Stream(HEADER, b"levels", b"some codes")
DATA = STREAM.to_bytes()


def with_crc(head: bytes) -> bytes:
    """A stream with a header of our own making and right checksums."""
    sections = DATA[-(6 + 4 + 10 + 4) :]
    return head + zlib.crc32(head).to_bytes(4, "little") + sections


HEAD = DATA[: -(6 + 4 + 10 + 4) - 4]


def test_round_trip() -> None:
    assert Stream.from_bytes(DATA) == STREAM
    assert container.read_header(DATA) == HEADER
    assert container.read_header(DATA[: len(HEAD) + 4]) == HEADER
    assert with_crc(HEAD) == DATA


def test_golden_bytes() -> None:
    made = runpy.run_path(str(GOLDEN / "make_container.py"))
    text = (GOLDEN / "container.hex").read_text()
    assert made["text"]() == text
    assert bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines())) == DATA


def test_fixed_overhead_is_at_most_40_bytes() -> None:
    header = Header(20_000, 15_000, bytes(8), 100, 64)
    empty = Stream(header, b"", b"").to_bytes()
    large = Stream(header, bytes(1 << 20), b"").to_bytes()
    assert len(large) - (1 << 20) - 2 <= 40
    assert len(empty) <= 40


@pytest.mark.parametrize("length", range(len(DATA)))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(TruncatedError, match="; fetch or encode it again$"):
        Stream.from_bytes(DATA[:length])


def test_every_flipped_bit_is_refused() -> None:
    for place in range(8 * len(DATA)):
        flipped = bytearray(DATA)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(StreamError):
            Stream.from_bytes(bytes(flipped))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(CorruptError, match="1 bytes follow the end"):
        Stream.from_bytes(DATA + b"\0")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"CWC", b"GIF89a", b"\0" * 100])
def test_other_files_are_named_as_such(data: bytes) -> None:
    assert not container.accepts(data)
    with pytest.raises(NotCwicError, match="not a .cwic stream"):
        Stream.from_bytes(data)


def test_another_version_is_named() -> None:
    with pytest.raises(VersionError, match="version 2 and this release reads 1"):
        Stream.from_bytes(with_crc(HEAD[:4] + b"\2" + HEAD[5:]))


@pytest.mark.parametrize(
    ("position", "value"),
    [(5, 7), (5, 0x80), (5, 255), (14, 0), (14, 101), (14, 255)],
    ids=["lanes 2^7", "flag 7", "all flags", "quality 0", "quality 101", "quality 255"],
)
def test_fields_out_of_range_are_refused(position: int, value: int) -> None:
    head = HEAD[:position] + bytes([value]) + HEAD[position + 1 :]
    with pytest.raises(CorruptError, match="out of range"):
        Stream.from_bytes(with_crc(head))


@pytest.mark.parametrize(
    "numbers",
    [
        b"\x00\x07\x06\x0a",  # width 0
        b"\x07\x00\x06\x0a",  # height 0
        b"\xff\xff\xff\xff\x0f\x07\x06\x0a",  # width 2^32 - 1
        b"\x80\x80\x80\x08\x07\x06\x0a",  # width 2^24
        b"\x07\x07\x80\x80\x80\x80\x08\x0a",  # section of 2^31 bytes
    ],
)
def test_numbers_out_of_range_are_refused(numbers: bytes) -> None:
    with pytest.raises(CorruptError, match="out of range"):
        Stream.from_bytes(with_crc(HEAD[:15] + numbers))


@pytest.mark.parametrize(
    "width", [b"\x87\x00", b"\x80\x00", b"\x80\x80\x80\x80\x80\x01", b"\xff" * 9]
)
def test_numbers_not_in_their_shortest_form_are_refused(width: bytes) -> None:
    with pytest.raises(CorruptError, match="shortest form"):
        Stream.from_bytes(with_crc(HEAD[:15] + width + b"\x07\x06\x0a"))


def test_a_small_file_that_claims_a_large_picture_is_refused_before_allocation() -> None:
    head = HEAD[:15] + b"\xe0\xd4\x03\xe0\xd4\x03\x06\x0a"  # 60,000 x 60,000
    assert len(with_crc(head)) < 60
    with pytest.raises(LimitError, match="60000x60000 pixels.*raise max_pixels"):
        Stream.from_bytes(with_crc(head))
    assert Stream.from_bytes(with_crc(head), max_pixels=60_000**2).header.width_px == 60_000


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (1 << 24, 1), (1, 1 << 24)])
def test_a_writer_refuses_sides_that_do_not_fit(width: int, height: int) -> None:
    with pytest.raises(UsageError, match="do not fit the format"):
        Stream(Header(width, height, bytes(8), 50, 1), b"", b"").to_bytes()


@given(
    width=st.integers(1, container.MAX_SIDE_PX),
    height=st.integers(1, container.MAX_SIDE_PX),
    quality=st.integers(1, 100),
    log2_lanes=st.integers(0, 6),
    levels=st.binary(max_size=200),
    codes=st.binary(max_size=200),
)
@settings(max_examples=100, deadline=None)
def test_any_content_round_trips(
    width: int, height: int, quality: int, log2_lanes: int, levels: bytes, codes: bytes
) -> None:
    stream = Stream(Header(width, height, b"modelid!", quality, 1 << log2_lanes), levels, codes)
    assert Stream.from_bytes(stream.to_bytes(), max_pixels=1 << 60) == stream


@given(st.binary(max_size=80), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_stream_or_a_stream_error(data: bytes, framed: bool) -> None:
    data = HEAD[:15] + data if framed else data
    try:
        stream = Stream.from_bytes(data)
    except StreamError as error:
        assert "\n" not in str(error)
    else:
        assert stream.to_bytes() == data
