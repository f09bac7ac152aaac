"""The stream's layout: golden bytes, round trip, truncation, every flipped bit, abuse, salvage."""

from __future__ import annotations

import dataclasses
import itertools
import random
import runpy
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic import container
from cwic.container import CHUNK_BYTES, Header, Sections, Stream
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    StreamError,
    TruncatedError,
    UsageError,
    VersionError,
)
from cwic.header import read_layout
from cwic.tiles import tile_count

GOLDEN = Path(__file__).with_name("golden")
HEADER = Header(width_px=300, height_px=7, model_id=bytes(range(8)), quality=50, lanes=4, tile=32)
STREAM = Stream(HEADER, (Sections(b"levels", b"some codes"), Sections(b"more", b"codes")))
DATA = STREAM.to_bytes()
SECTIONS = DATA[-(6 + 4 + 10 + 5 + 4 * 4) :]
HEAD = DATA[: -len(SECTIONS) - 4]
NUMBERS = 16
"""Where the header's numbers begin."""
EXTRAS = {"icc": b"\0profile", "alpha": b"\xff", "exif": b"\0EXIF", "xmp": b"\0<x/>"}


def dressed(names: tuple[str, ...], grey: bool = False) -> Stream:
    """The same picture with some extra sections."""
    header = dataclasses.replace(HEADER, grey=grey, extras=names)
    return Stream(header, STREAM.tiles, {name: EXTRAS[name] for name in names})


DRESSED = dressed(tuple(EXTRAS), grey=True)


def with_crc(part: bytes) -> bytes:
    return part + zlib.crc32(part).to_bytes(4, "little")


def with_head(head: bytes) -> bytes:
    """A stream with a header of our own making and right checksums."""
    return with_crc(head) + SECTIONS


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# ---- Layout ---------------------------------------------------------------------------------


def test_round_trip() -> None:
    assert Stream.from_bytes(DATA) == Stream.salvage(DATA) == STREAM
    assert container.read_header(DATA) == HEADER
    assert container.read_header(DATA[: len(HEAD) + 4]) == HEADER
    assert with_head(HEAD) == DATA
    assert (STREAM.levels_bytes, STREAM.codes_bytes) == (10, 15)
    assert HEADER.map_size == (1, 38)


def test_golden_bytes() -> None:
    made = runpy.run_path(str(GOLDEN / "make_container.py"))
    text = (GOLDEN / "container.hex").read_text()
    assert made["text"]() == text
    data = bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))
    stream = dressed(("icc", "alpha"))
    header = dataclasses.replace(stream.header, progressive=True)
    assert data == dataclasses.replace(stream, header=header).to_bytes()


SIZES = (9000, 0, 4096, 4097, 1, 8192)
"""Of the codes sections of six tiles: rounds of 5, 3 and 1 chunks."""


def rounds() -> tuple[Stream, bytes]:
    """Six tiles with several chunks, and their bytes put together by hand."""
    header = Header(40 * 8, 24 * 8 + 1, b"modelid!", 7, 64, 16)
    levels = [bytes([i]) * (i + 1) for i in range(6)]
    codes = [random.Random(i).randbytes(size) for i, size in enumerate(SIZES)]  # noqa: S311
    tiles = tuple(Sections(lv, cd) for lv, cd in zip(levels, codes, strict=True))
    head = b"\x89CWC\x06\x06modelid!\x07\0" + b"\xc0\x02" + b"\xc1\x01"
    for lv, size in zip(levels, SIZES, strict=True):
        head += bytes([len(lv)])
        head += bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    data = with_crc(head) + b"".join(with_crc(part) for part in levels)
    chunks = [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (0, 1), (3, 1), (5, 1), (0, 2)]
    for tile, number in chunks:
        data += with_crc(codes[tile][4096 * number : 4096 * (number + 1)])
    return Stream(header, tiles), data


def test_codes_go_round_the_tiles_in_chunks() -> None:
    """A tile of 25 x 40 positions is cut into 2 x 3 of at most 16."""
    stream, data = rounds()
    assert tile_count(25, 40, 16) == 6
    assert CHUNK_BYTES == 4096
    assert stream.to_bytes() == data
    assert Stream.from_bytes(data) == Stream.salvage(data) == stream


def test_tiles_of_a_progressive_stream_share_every_round() -> None:
    """9000 bytes at most: 16 rounds of at least 512 bytes of the largest tile."""
    plain, _ = rounds()
    header = dataclasses.replace(plain.header, progressive=True)
    stream = dataclasses.replace(plain, header=header)
    data = stream.to_bytes()
    assert Stream.from_bytes(data) == Stream.salvage(data) == stream
    first = data.index(plain.tiles[0].codes[:562])
    at = first
    for tile in (0, 2, 3, 5):  # 1/16 of each; tile 1 has none and tile 4 one byte, in the last
        part = plain.tiles[tile].codes[: SIZES[tile] // 16]
        assert data[at : at + len(part) + 4] == with_crc(part)
        at += len(part) + 4
    assert len(data) - len(plain.to_bytes()) == 4 * (4 * 16 + 1 - 9)
    half = Stream.salvage(data[: first + (len(data) - first) // 2])
    shares = [len(t.codes) / size for t, size in zip(half.tiles, SIZES, strict=True) if size > 1]
    assert max(shares) - min(shares) <= 1 / 16 + 0.001


def test_a_tile_alone_has_chunks_of_4096_bytes() -> None:
    header = Header(9, 9, bytes(8), 1, 1, 16, progressive=True)
    sizes = [
        len(
            Stream(
                dataclasses.replace(header, progressive=p), (Sections(b"", bytes(9000)),)
            ).to_bytes()
        )
        for p in (False, True)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("log2_lanes", range(7))
@pytest.mark.parametrize("log2_tile", range(8))
@pytest.mark.parametrize("progressive", [False, True])
def test_the_coder_byte(log2_lanes: int, log2_tile: int, progressive: bool) -> None:
    lanes, tile = 1 << log2_lanes, 16 << log2_tile
    header = Header(9, 9, bytes(8), 1, lanes, tile, progressive=progressive)
    data = Stream(header, (Sections(b"", b""),)).to_bytes()
    assert data[5] == log2_lanes + 8 * log2_tile + 64 * progressive
    assert container.read_header(data) == header


@pytest.mark.parametrize(
    ("side_px", "codes", "extra"),
    [(1, 5, 32), (127, 100, 32), (768, 20_000, 37), (1024, 1 << 18, 37)],
)
def test_fixed_overhead_is_at_most_40_bytes(side_px: int, codes: int, extra: int) -> None:
    """A picture of one tile. Each chunk beyond the first costs 4 bytes more."""
    header = Header(side_px, side_px, bytes(8), 100, 64, 128)
    levels = min(codes, 8000)
    size = len(Stream(header, (Sections(bytes(levels), bytes(codes)),)).to_bytes())
    more_chunks = (codes - 1) // CHUNK_BYTES
    assert size - levels - codes - 4 * more_chunks == extra <= 40


@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    quality=st.integers(1, 100),
    log2_lanes=st.integers(0, 6),
    log2_tile=st.integers(0, 7),
    flags=st.integers(0, 31),
    data=st.data(),
)
@settings(max_examples=80, deadline=None)
def test_any_content_round_trips(
    width: int,
    height: int,
    quality: int,
    log2_lanes: int,
    log2_tile: int,
    flags: int,
    data: st.DataObject,
) -> None:
    names = tuple(name for i, name in enumerate(container.EXTRAS) if flags & 2 << i)
    header = Header(
        width,
        height,
        b"modelid!",
        quality,
        1 << log2_lanes,
        16 << log2_tile,
        grey=bool(flags & 1),
        extras=names,
    )
    extras = {name: data.draw(st.binary(min_size=1, max_size=300)) for name in names}
    section = st.tuples(st.binary(max_size=40), st.integers(0, 9000).map(bytes))
    tiles = tile_count(*header.map_size, header.tile)
    parts = data.draw(st.lists(section, min_size=tiles, max_size=tiles))
    stream = Stream(header, tuple(Sections(*part) for part in parts), extras)
    written = stream.to_bytes()
    assert Stream.from_bytes(written) == Stream.salvage(written) == stream
    assert written[15] == flags
    assert container.read_header(written) == header


@pytest.mark.parametrize("sides", [(container.MAX_SIDE_PX, 1), (1, container.MAX_SIDE_PX)])
def test_the_longest_side(sides: tuple[int, int]) -> None:
    header = Header(*sides, bytes(8), 1, 1, 2048)
    stream = Stream(header, (Sections(b"a", b"b"),) * 1024)
    assert Stream.from_bytes(stream.to_bytes()) == stream


# ---- Flags and extra sections ---------------------------------------------------------------

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


# ---- What a writer refuses ------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (1 << 24, 1), (1, 1 << 24)])
def test_a_writer_refuses_sides_that_do_not_fit(width: int, height: int) -> None:
    with pytest.raises(UsageError, match="do not fit the format; cut the picture"):
        Stream(Header(width, height, bytes(8), 50, 1, 128), (Sections(b"", b""),)).to_bytes()


@pytest.mark.parametrize(
    "change",
    [{"lanes": v} for v in (0, 3, 128, -1)] + [{"tile": v} for v in (0, 8, 17, 4096, -16)],
)
def test_a_writer_refuses_what_is_no_power_of_two(change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is not a power of two from .*; choose one$"):
        Stream(dataclasses.replace(HEADER, **change), STREAM.tiles).to_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"quality": quality}, "outside 1..100; use") for quality in (0, 101, -1, 256)),
        *(({"model_id": bytes(n)}, f"8 bytes, not {n}; take") for n in (0, 7, 9)),
        *(
            ({"extras": names}, "not extra sections in their order; choose from icc, alpha, exif")
            for names in (("alpha", "icc"), ("icc", "icc"), ("thumbnail",))
        ),
    ],
)
def test_a_writer_refuses_fields_out_of_range(change: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Stream(dataclasses.replace(HEADER, **change), STREAM.tiles).to_bytes()


@pytest.mark.parametrize(
    ("names", "extras", "message"),
    [
        (("icc",), {}, "lacks a section"),
        ((), {"icc": b"x"}, "lacks a section"),
        (("icc",), {"xmp": b"x"}, "lacks a section"),
        (("alpha",), {"alpha": b""}, "0 bytes of alpha do not fit; leave it out"),
        (("exif",), {"exif": bytes((1 << 22) + 2)}, "4194306 bytes of EXIF do not fit"),
    ],
)
def test_a_writer_refuses_extra_sections_that_do_not_fit(
    names: tuple[str, ...], extras: dict[str, bytes], message: str
) -> None:
    header = dataclasses.replace(HEADER, extras=names)
    with pytest.raises(UsageError, match=message):
        Stream(header, STREAM.tiles, extras).to_bytes()


@pytest.mark.parametrize(
    "tiles",
    [
        (),
        STREAM.tiles[:1],
        STREAM.tiles * 2,
        (STREAM.tiles[0], Sections(None, b"codes")),
        (STREAM.tiles[0], Sections(b"more", b"code", complete=False)),
    ],
    ids=["none", "too few", "too many", "without levels", "cut"],
)
def test_a_writer_refuses_what_is_not_whole(tiles: tuple[Sections, ...]) -> None:
    with pytest.raises(UsageError, match="lacks a section; encode the picture again$"):
        Stream(HEADER, tiles).to_bytes()


# ---- What a reader refuses ------------------------------------------------------------------


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


# ---- What is salvaged -----------------------------------------------------------------------


@pytest.mark.parametrize("length", range(len(HEAD) + 4))
def test_without_its_header_nothing_is_salvaged(length: int) -> None:
    with pytest.raises(TruncatedError):
        Stream.salvage(DATA[:length])


def test_a_damaged_header_is_not_salvaged() -> None:
    for place in range(8 * (len(HEAD) + 4)):
        with pytest.raises(StreamError):
            Stream.salvage(flipped(DATA, place))


def test_every_cut_keeps_the_bytes_before_it() -> None:
    stream, data = rounds()
    sections = len(data) - stream.levels_bytes - stream.codes_bytes - 4 * (6 + 9)
    ends, at = [], sections  # (start, end, tile, bytes of its codes before and then); levels: -1
    for tile, part in enumerate(stream.tiles):
        at += len(part.levels or b"") + 4
        ends.append((at, at, tile, -1, -1))
    for start in (0, 4096, 8192):
        for tile, size in enumerate(SIZES):
            if start < size:
                size_then = min(size, start + 4096)
                ends.append((at, at + size_then - start + 4, tile, start, size_then))
                at = ends[-1][1]
    assert at == len(data)
    cuts = {min(len(data), max(sections, e[1] + d)) for e in ends for d in (-9, -4, -1, 0, 1, 9)}
    for cut in sorted(cuts):
        found = Stream.salvage(data[:cut])
        assert found.header == stream.header
        for tile, whole in enumerate(stream.tiles):
            own = [
                (start, end, before, then)
                for start, end, owner, before, then in ends
                if owner == tile
            ]
            levels = whole.levels if own[0][1] <= cut else None
            # Of the chunk that the cut is in, what there is of it.
            reached = [
                min(then, before + cut - start)
                for start, _, before, then in own[1:]
                if start <= cut
            ]
            codes = whole.codes[: max([0, *reached])]
            complete = levels is not None and codes == whole.codes
            without_checksum = [
                min(then - before, cut - start)
                for start, end, before, then in own[1:]
                if start <= cut < end
            ]
            unchecked = sum(without_checksum)  # of one chunk at most
            assert found.tiles[tile] == Sections(levels, codes, complete, unchecked)
        if cut < len(data):
            with pytest.raises(TruncatedError):
                Stream.from_bytes(data[:cut])


def test_a_flipped_bit_costs_one_tile_what_follows_it() -> None:
    stream, data = rounds()
    first = data.index(stream.tiles[0].codes[:4096])
    for number, (place, tile, kept) in enumerate(
        [
            (first, 0, 0),
            (first + 4095, 0, 0),
            (first + 4096, 0, 0),  # the checksum itself
            (data.index(stream.tiles[0].codes[4096:8192]), 0, 4096),
            (data.index(stream.tiles[0].codes[8192:]), 0, 8192),
            (data.index(stream.tiles[5].codes[4096:]), 5, 4096),
            (first + 3 * 4100, 4, 0),
        ]
    ):
        found = Stream.salvage(flipped(data, 8 * place + number))
        for i, (mine, whole) in enumerate(zip(found.tiles, stream.tiles, strict=True)):
            cut = Sections(whole.levels, whole.codes[:kept], complete=False)
            assert mine == (cut if i == tile else whole)


def test_flipped_levels_cost_their_tile_alone() -> None:
    stream, data = rounds()
    start = data.index(b"\x02\x02\x02")
    found = Stream.salvage(flipped(data, 8 * start + 3))
    for i, (mine, whole) in enumerate(zip(found.tiles, stream.tiles, strict=True)):
        assert mine == (Sections(None, whole.codes, complete=False) if i == 2 else whole)
