"""What a reader of streams refuses: truncation, every flipped bit, hostile headers."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.sample_streams import (
    DATA,
    DRESSED,
    HEAD,
    NUMBERS,
    STREAM,
    flipped,
    rounds,
    with_crc,
    with_head,
)

from cwic import container
from cwic.container import Header, Sections, Stream
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    StreamError,
    TruncatedError,
    VersionError,
)


@pytest.mark.parametrize("length", range(len(DATA)))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(TruncatedError, match="; fetch or encode it again$"):
        Stream.from_bytes(DATA[:length])


def test_every_flipped_bit_is_refused() -> None:
    for data in (DATA, DRESSED.to_bytes(), rounds()[1][:200]):
        for place in range(8 * len(data)):
            with pytest.raises(StreamError):
                Stream.from_bytes(flipped(data, place))


def test_a_flip_in_a_late_chunk_is_refused() -> None:
    data = rounds()[1]
    for place in range(8 * 200, 8 * len(data), 997):
        with pytest.raises(CorruptError, match="does not match its checksum; fetch"):
            Stream.from_bytes(flipped(data, place))


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(CorruptError, match="1 bytes follow the end"):
        Stream.from_bytes(DATA + b"\0")
    assert Stream.salvage(DATA + b"\0") == STREAM


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"CWC", b"GIF89a", b"\0" * 100])
@pytest.mark.parametrize("read", [Stream.from_bytes, Stream.salvage, container.read_header])
def test_other_files_are_named_as_such(data: bytes, read: object) -> None:
    assert not container.accepts(data)
    with pytest.raises(NotCwicError, match="not a .cwic stream"):
        read(data)  # type: ignore[operator]


@pytest.mark.parametrize("version", [0, 1, 2, container.VERSION + 1, 255])
@pytest.mark.parametrize("read", [Stream.from_bytes, Stream.salvage, container.read_header])
def test_another_version_is_named(version: int, read: object) -> None:
    """Whatever follows: the fields of another version are not known here."""
    for data in (with_head(HEAD[:4] + bytes([version]) + HEAD[5:]), HEAD[:4] + bytes([version])):
        message = f"version {version} and this release reads {container.VERSION}; install"
        with pytest.raises(VersionError, match=message):
            read(data)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("position", "value"),
    [
        *((5, coder) for coder in (7, 15, 0x47, 0x80, 255)),
        *((14, quality) for quality in (0, 101, 255)),
        *((15, flags) for flags in (0x20, 0x40, 0x80, 255)),
    ],
)
def test_fields_out_of_range_are_refused(position: int, value: int) -> None:
    head = HEAD[:position] + bytes([value]) + HEAD[position + 1 :]
    with pytest.raises(CorruptError, match="out of range"):
        Stream.from_bytes(with_head(head))


@pytest.mark.parametrize(
    "numbers",
    [
        b"\x00\x07\x06\x0a",  # width 0
        b"\x07\x00\x06\x0a",  # height 0
        b"\xff\xff\xff\xff\x0f\x07\x06\x0a",  # width 2^32 - 1
        b"\x80\x80\x80\x08\x07\x06\x0a",  # width 2^24
        b"\x07\x07\x80\x80\x80\x80\x08\x0a",  # levels of 2^31 bytes
        b"\x07\x07\x0a\x80\x80\x80\x80\x08",  # codes of 2^31 bytes
        b"\x07\x07\x0a\xff\xff\xff\xff\x7f",  # codes of 2^35 - 1 bytes
    ],
)
def test_numbers_out_of_range_are_refused(numbers: bytes) -> None:
    with pytest.raises(CorruptError, match="out of range"):
        Stream.from_bytes(with_head(HEAD[:NUMBERS] + numbers))


@pytest.mark.parametrize(
    "width", [b"\x87\x00", b"\x80\x00", b"\x80\x80\x80\x80\x80\x01", b"\xff" * 9]
)
@pytest.mark.parametrize("place", ["width", "size"])
def test_numbers_not_in_their_shortest_form_are_refused(width: bytes, place: str) -> None:
    before = b"" if place == "width" else b"\x07\x07\x06"
    with pytest.raises(CorruptError, match="shortest form"):
        Stream.from_bytes(with_head(HEAD[:NUMBERS] + before + width + b"\x07\x06\x0a"))


def test_sizes_of_more_tiles_than_there_are_do_not_fit_the_checksum() -> None:
    """The number of tiles follows from the picture's size; nothing else can say it."""
    with pytest.raises(CorruptError):
        Stream.from_bytes(with_head(HEAD + b"\x06\x0a"))
    with pytest.raises(StreamError):
        Stream.from_bytes(with_head(HEAD[:-2]))


HUGE = HEAD[:NUMBERS] + b"\xe0\xd4\x03\xe0\xd4\x03"  # 60,000 x 60,000


@pytest.mark.parametrize("coder", [0x00, 0x0A, 0x38], ids=["tile 16", "tile 32", "tile 2048"])
def test_a_small_file_that_claims_a_large_picture_is_refused(coder: int) -> None:
    """By its size, whatever else is wrong with it, before anything is made of that size."""
    data = with_head(HUGE[:5] + bytes([coder]) + HUGE[6:] + b"\x06\x0a")
    assert len(data) < 80
    tracemalloc.start()
    for read in (Stream.from_bytes, Stream.salvage):
        with pytest.raises(LimitError, match="60000x60000 pixels.*raise max_pixels"):
            read(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()
    with pytest.raises((TruncatedError, CorruptError)):
        Stream.from_bytes(data, max_pixels=60_000**2)


@pytest.mark.parametrize("read", [Stream.from_bytes, Stream.salvage])
def test_sizes_of_a_refused_picture_are_not_read(read: object) -> None:
    """A long file may be full of them: 2^34 tiles take any number of bytes."""
    head = HEAD[:5] + b"\0" + HEAD[6:NUMBERS] + b"\xff\xff\xff\x07" * 2
    data = head + b"\1" * (1 << 18)
    tracemalloc.start()
    with pytest.raises(LimitError):
        read(data)  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(data) // 4


def test_a_large_picture_is_read_by_who_allows_it() -> None:
    header = Header(60_000, 60_000, bytes(8), 1, 1, 2048)
    stream = Stream(header, (Sections(b"a", b"b"),) * 16)
    with pytest.raises(LimitError):
        Stream.from_bytes(stream.to_bytes())
    assert Stream.from_bytes(stream.to_bytes(), max_pixels=60_000**2) == stream


def test_sizes_beyond_the_data_allocate_nothing() -> None:
    """Two sections of 2^31 - 1 bytes under a right checksum, and no bytes for them."""
    data = with_crc(HEAD[:NUMBERS] + b"\x07\x07" + b"\xff\xff\xff\xff\x07" * 2)
    tracemalloc.start()
    with pytest.raises(TruncatedError, match="of 4297064482 bytes; fetch"):
        Stream.from_bytes(data)
    assert Stream.salvage(data).tiles == (Sections(None, b"", complete=False),)
    assert tracemalloc.get_traced_memory()[1] < 1 << 16
    tracemalloc.stop()


@given(st.binary(max_size=80), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_stream_or_a_stream_error(data: bytes, framed: bool, cut: bool) -> None:
    data = HEAD[:NUMBERS] + data if framed else data
    try:
        stream = Stream.salvage(data) if cut else Stream.from_bytes(data)
    except StreamError as error:
        assert "\n" not in str(error)
    else:
        assert cut or stream.to_bytes() == data
