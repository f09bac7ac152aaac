"""The stream's layout: golden bytes, round trip, and what a writer refuses."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.sample_streams import (
    DATA,
    HEAD,
    HEADER,
    SIZES,
    STREAM,
    dressed,
    rounds,
    with_crc,
    with_head,
)

from cwic import container
from cwic.container import CHUNK_BYTES, Header, Sections, Stream
from cwic.errors import (
    UsageError,
)
from cwic.tiles import tile_count

GOLDEN = Path(__file__).with_name("golden")


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
