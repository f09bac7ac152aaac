"""Streams of a hostile writer: any field at any value, under right checksums.

``tests/fuzz`` runs the same checks for hours; here they take seconds.
"""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.fuzz.corpus import EXTRAS, rans_inputs, streams
from tests.fuzz.framing import CHUNK_BYTES, Frame, number, parsed, repaired
from tests.fuzz.invariants import check
from tests.fuzz.tiny import StubRunner, coded, drawn, tiny_codecs
from tests.runtime.shown import check_shown, is_shown

import cwic
from cwic import known, level_model
from cwic.container import DEFAULT_MAX_PIXELS, MAX_SIDE_PX, Stream, read_header
from cwic.errors import CorruptError, LimitError, StreamError, TruncatedError, VersionError
from cwic.extras import Extras

Bytes = NDArray[np.uint8]
MAX_PIXELS = 1 << 16
BYTES_PER_PIXEL = {"signs": 24, "values": 60}
"""What the entropy decoders of shipped models may need for a tile, whatever a stream says.

They need 19 and 48: of values, the numbers themselves and what predicts a whole pass of a group.
"""
STATE = b"\0\0\0\1\0"
"""The lowest state of a rANS lane."""


@pytest.fixture(scope="module")
def tinies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, cwic.Codec]:
    return tiny_codecs(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(tinies: dict[str, cwic.Codec]) -> cwic.Codec:
    return tinies["signs"]


@pytest.fixture(scope="module", params=["values", "signs"])
def either_tiny(request: pytest.FixtureRequest, tinies: dict[str, cwic.Codec]) -> cwic.Codec:
    """A small codec of each kind of codes; no network runs."""
    return tinies[request.param]


@pytest.fixture(scope="module")
def real(codec: cwic.Codec, photo: NDArray[np.uint8]) -> Frame:
    """A detail of the photograph in two tiles, coded with the shipped model."""
    picture = photo[None, 180:308, 300:508]
    codes, importance = codec.runner.encode(np.ascontiguousarray(picture))
    levels = cwic.rate.levels_from_importance(importance[0], 0.8, codec.bundle.levels)
    return coded(codec, codec.context.codes.sent(codes[0], levels), levels, lanes=2)


@contextmanager
def peak_below(most_bytes: int) -> Iterator[None]:
    """Fails if more than that is allocated at any time within."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most_bytes


# ---- Fields at their extremes ---------------------------------------------------------------

PLAIN = Frame(300, 7)
LARGEST = (1 << 31) - 1


@pytest.mark.parametrize(
    "fields",
    [
        *({"quality": quality} for quality in (1, 100)),
        *({"coder": lanes | 7 << 3} for lanes in range(7)),
        *({"coder": tile << 3} for tile in range(2, 8)),  # 300 pixels are one tile of 512
        {"coder": 1 << 6 | 2 << 3},
        *({"width": width, "coder": 7 << 3} for width in (1, 127, 128, 16_383, 16_384)),
        {"width": 1, "height": 1},
        {"width": MAX_SIDE_PX, "height": 1, "coder": 7 << 3, "tiles": ((b"a", b"b"),) * 1024},
        {"width": 1, "height": MAX_SIDE_PX, "coder": 7 << 3, "tiles": ((b"a", b""),) * 1024},
        {"tiles": ((b"", b""),)},
        *({"flags": flags, "extras": EXTRAS[: (flags >> 1).bit_count()]} for flags in range(32)),
        {"flags": 4, "extras": (b"?" * 9000,)},
        *({"tiles": ((b"a", bytes(CHUNK_BYTES + extra)),)} for extra in (-1, 0, 1, CHUNK_BYTES)),
    ],
)
def test_extremes_that_are_valid(fields: dict[str, int]) -> None:
    """Read as written; a valid field is not refused with the odd ones."""
    frame = replace(PLAIN, **{"coder": 2 << 3, **fields})  # type: ignore[arg-type]
    data = frame.to_bytes()
    stream = Stream.from_bytes(data)
    assert stream == Stream.salvage(data)
    assert stream.header == read_header(frame.header)
    assert (stream.header.width_px, stream.header.height_px) == (frame.width, frame.height)
    assert stream.header.quality == frame.quality
    assert stream.header.lanes == 1 << (frame.coder & 7)
    assert stream.header.tile == 16 << (frame.coder >> 3 & 7)
    assert stream.header.progressive == bool(frame.coder & 64)
    assert tuple((tile.levels, tile.codes) for tile in stream.tiles) == frame.tiles
    assert tuple(stream.extras.values()) == frame.extras
    assert parsed(data) == frame
    assert repaired(data) == data


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        *(({"version": version}, VersionError) for version in (0, 1, 2, 3, 4, 5, 7, 0x86, 255)),
        *(({"coder": coder}, CorruptError) for coder in (7, 7 << 3 | 7, 1 << 7, 255)),
        *(({"quality": quality}, CorruptError) for quality in (0, 101, 255)),
        *(({"flags": flags}, CorruptError) for flags in (32, 64, 128, 255)),
        *(({"flags": flags}, StreamError) for flags in range(2, 32)),  # lacks its sections
        ({"flags": 2, "extras": (b"",)}, CorruptError),
        ({"flags": 8, "extras": (bytes((1 << 22) + 2),)}, CorruptError),
        ({"flags": 4, "sizes": number(LARGEST) + b"\x06\x0a"}, TruncatedError),
        ({"flags": 16, "sizes": number(LARGEST) + b"\x06\x0a"}, CorruptError),
        *(({side: 0}, CorruptError) for side in ("width", "height")),
        *(
            ({side: number(value, length)}, CorruptError)
            for side in ("width", "height")
            for value, length in (
                (1 << 24, 1),
                ((1 << 35) - 1, 1),  # the largest number of five bytes
                (1 << 35, 1),
                (0, 2),
                (7, 2),
                (7, 5),
                (7, 6),
                (300, 3),
            )
        ),
        *(
            ({"sizes": before + number(size, length) + after}, CorruptError)
            for before, after in ((b"", b"\x0a"), (b"\x06", b""))
            for size, length in ((1 << 31, 1), ((1 << 35) - 1, 1), (1 << 35, 1), (6, 2), (6, 5))
        ),
        *(({"sizes": sizes}, TruncatedError) for sizes in (b"\x06\x7f", number(LARGEST) * 2)),
        ({"sizes": b"\x06\x09"}, CorruptError),  # a byte behind the end
        ({"sizes": b"\x07\x0a"}, TruncatedError),
        ({"sizes": b""}, StreamError),
        ({"sizes": b"\x06"}, StreamError),
        ({"sizes": b"\x06\x0a\x06\x0a"}, CorruptError),  # of more tiles than there are
        ({"width": MAX_SIDE_PX, "height": MAX_SIDE_PX}, LimitError),
        ({"width": MAX_SIDE_PX, "height": 5}, LimitError),
        ({"width": DEFAULT_MAX_PIXELS // 64 + 1, "height": 64}, LimitError),
        ({"width": DEFAULT_MAX_PIXELS // 64, "height": 64}, StreamError),  # lacks its tiles
    ],
)
def test_extremes_that_are_refused(fields: dict[str, int], error: type[StreamError]) -> None:
    data = replace(PLAIN, **{"coder": 2 << 3, **fields}).to_bytes()  # type: ignore[arg-type]
    with peak_below(1 << 20), pytest.raises(error, match="; "):
        Stream.from_bytes(data)
    with peak_below(1 << 20):
        try:
            salvaged = Stream.salvage(data)
        except StreamError:
            return
    assert salvaged.levels_bytes + salvaged.codes_bytes <= len(data)


LIMIT = 1 << 22
ALPHA = 8 * 24 * 8 * 40


def zeros(count: int) -> bytes:
    """A zlib stream of that many zeros, about a thousandth as long."""
    return zlib.compress(bytes(count), 9)


@pytest.mark.parametrize(
    ("place", "section"),
    [
        *((i, b"\2profile") for i in (0, 2, 3)),  # no such method
        *((i, b"\1profile") for i in (0, 2, 3)),  # no zlib stream
        *((i, b"\0") for i in (0, 2, 3)),
        *((i, b"\1" + zeros(0)) for i in (0, 2, 3)),
        *((i, b"\1" + zeros(9)[:-1]) for i in (0, 2, 3)),
        *((i, b"\1" + zeros(9) + b"\0") for i in (0, 2, 3)),
        *((i, b"\1" + zeros(LIMIT + 1)) for i in (0, 2, 3)),
        (2, b"\1" + zeros(1 << 28)),
        (1, b"\0\0"),
        (1, b"\4" + zeros(ALPHA)),  # no such filter
        (1, b"\0" + zeros(ALPHA)[:-1]),
        (1, b"\0" + zeros(ALPHA) + b"\0"),
        (1, b"\0" + zeros(ALPHA - 1)),
        (1, b"\0" + zeros(ALPHA + 1)),
        (1, b"\0" + zeros(1 << 28)),
    ],
    ids=lambda value: value if isinstance(value, int) else value[:12].hex() + f"-{len(value)}",
)
def test_wrong_extra_sections_are_refused_in_bounded_memory(
    tiny: cwic.Codec, place: int, section: bytes
) -> None:
    """Under right checksums; a salvaged picture names the one that it lacks."""
    frame = coded(tiny, *drawn(tiny, 24, 40), tile=64)
    extras = tuple(section if i == place else good for i, good in enumerate(EXTRAS))
    data = replace(frame, flags=0x1E, extras=extras).to_bytes()
    stream = Stream.from_bytes(data)
    with peak_below(4 * LIMIT), pytest.raises(CorruptError, match="the (ICC|alpha|EXIF|XMP).*; "):
        Extras.read(stream)
    with pytest.raises(CorruptError):
        tiny.decode(data)
    with peak_below(4 * LIMIT):
        found = Extras.read(stream, salvage=True)
    name = ("ICC profile", "alpha", "EXIF", "XMP")[place]
    assert found.missing == (name,)
    salvaged = tiny.salvage(data)
    assert (salvaged.missing, salvaged.left_out) == ((name,), f"without {name}")
    assert salvaged.image.mode == "RGBA"
    assert salvaged.image.getchannel("A").getextrema() == ((255,) * 2 if place == 1 else (128,) * 2)


def test_the_largest_metadata_that_is_read(tiny: cwic.Codec) -> None:
    frame = coded(tiny, *drawn(tiny, 4, 4))
    for section in (b"\1" + zeros(LIMIT), b"\0" + bytes(LIMIT)):
        data = replace(frame, flags=2, extras=(section,)).to_bytes()
        assert tiny.decode(data).info == {"icc_profile": bytes(LIMIT)}


# ---- Claims of size -------------------------------------------------------------------------


def test_60_bytes_that_claim_60000_by_60000_pixels() -> None:
    """A header that is valid to its last byte, of 16 tiles."""
    huge = Frame(60_000, 60_000, ((b"", b""),) * 16, coder=7 << 3)
    assert len(huge.header) <= 60
    assert read_header(huge.header).width_px == 60_000
    for data in (huge.header, huge.to_bytes()):
        for read in (Stream.from_bytes, Stream.salvage):
            with peak_below(1 << 20), pytest.raises(LimitError, match="60000x60000 pixels.*; "):
                read(data)


def highest(codec: cwic.Codec, rows: int, columns: int, tile: int) -> tuple[Frame, int]:
    """A stream of the highest level everywhere and codes that are none; bytes to decode it in."""
    model = codec.context.codes
    codes = np.full((model.channels, rows, columns), model.none, np.uint8)
    levels = np.full((rows, columns), codec.bundle.levels, np.uint8)
    frame = coded(codec, codes, levels, tile=tile)
    known.geometry.cache_clear()
    level_model._nearest.cache_clear()
    return frame, BYTES_PER_PIXEL[codec.bundle.codes] * 64 * rows * columns + (1 << 19)


@pytest.mark.parametrize("salvage", [False, True], ids=["decode", "salvage"])
@pytest.mark.parametrize(
    ("rows", "columns", "tile"), [(64, 64, 64), (64, 64, 16), (1, 2048, 2048), (2048, 1, 128)]
)
def test_memory_of_a_lying_stream_is_bounded_by_its_pixels(
    either: cwic.Codec, salvage: bool, rows: int, columns: int, tile: int
) -> None:
    """Every position claims the highest level, and the codes are random to the last word."""
    blind = cwic.Codec(either.bundle, StubRunner(), threads=1)
    frame, most_bytes = highest(either, rows, columns, tile)
    bits = {"signs": 2, "values": 8}[either.bundle.codes]  # more than the noise says on a code
    positions = min(rows, tile) * min(columns, tile)
    noise = STATE + np.random.default_rng(0).bytes(positions * either.bundle.n * bits // 8)
    lying = replace(frame, tiles=tuple((levels, noise) for levels, _ in frame.tiles)).to_bytes()
    with peak_below(most_bytes + len(lying)):
        if salvage:
            blind.salvage(lying)
        else:
            with pytest.raises(CorruptError, match="does not end with its last symbol"):
                blind.read_codes(Stream.from_bytes(lying))


def test_memory_of_values_that_are_told_behind_their_passes(codec: cwic.Codec) -> None:
    """All are as far from each other as can be, so that none is predicted."""
    blind = cwic.Codec(codec.bundle, StubRunner(), threads=1)
    _, most_bytes = highest(codec, 64, 64, 64)
    shape = codec.bundle.n, 64, 64
    codes = np.where(np.random.default_rng(0).random(shape) < 0.5, 1, 255).astype(np.uint8)
    levels = np.full(shape[1:], codec.bundle.levels, np.uint8)
    data = coded(codec, codes, levels, tile=64).to_bytes()
    assert len(data) > codes.size * 1.5, "most take a byte and an escape"
    known.geometry.cache_clear()
    level_model._nearest.cache_clear()
    with peak_below(most_bytes + len(data)):
        found, _ = blind.read_codes(Stream.from_bytes(data))
    assert np.array_equal(found, codes)


# ---- Damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("extras", [(), EXTRAS], ids=["plain", "with extras"])
def test_every_flipped_bit_of_a_real_stream_is_refused(
    codec: cwic.Codec, real: Frame, extras: tuple[bytes, ...]
) -> None:
    frame = replace(real, flags=0x1F if extras else 0, extras=extras)
    data = bytearray(frame.to_bytes())
    codec.read_codes(Stream.from_bytes(bytes(data)))
    assert len(real.tiles) == 2
    for place in range(8 * len(data)):
        data[place // 8] ^= 1 << place % 8
        with pytest.raises(StreamError):
            Stream.from_bytes(bytes(data))
        data[place // 8] ^= 1 << place % 8


def test_every_truncation_of_a_real_stream(real: Frame) -> None:
    """Refused whole; salvaged, each section is there or not, and the codes are a beginning."""
    data, head = real.to_bytes(), len(real.header)
    before = 0
    for length in range(len(data)):
        with pytest.raises(TruncatedError):
            Stream.from_bytes(data[:length])
        if length < head:
            with pytest.raises(TruncatedError):
                Stream.salvage(data[:length])
            continue
        stream = Stream.salvage(data[:length])
        for found, (levels, codes) in zip(stream.tiles, real.tiles, strict=True):
            assert found.levels in (None, levels)
            assert codes.startswith(found.codes)
            assert found.complete == (found.levels == levels and found.codes == codes)
        assert before <= stream.levels_bytes + stream.codes_bytes <= length - head
        before = stream.levels_bytes + stream.codes_bytes


SHAPES = pytest.mark.parametrize(
    ("rows", "columns", "tile", "lanes"), [(48, 60, 64, 4), (17, 33, 16, 1), (33, 20, 16, 64)]
)
"""Of chunks in one tile; of several tiles; with states that are longer than the words."""


def salvaged_codes(
    codec: cwic.Codec, data: bytes, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
) -> int:
    """How many codes are salvaged; they and the levels are those that were encoded."""
    result = codec.salvage(data)
    runner, model = codec.runner, codec.context.codes
    assert isinstance(runner, StubRunner)
    check_shown(codec.context, (codes, levels), (runner.codes, runner.levels))
    assert result.image.size == (8 * levels.shape[1], 8 * levels.shape[0])
    kept = model.kept(runner.levels) if model.layered else is_shown(codec.context, runner.codes)
    assert bool(result.left_out) == (kept.sum() < model.kept(levels).sum())
    return int(kept.sum())


@SHAPES
def test_what_is_salvaged_of_a_cut_stream_is_right(
    either_tiny: cwic.Codec, rows: int, columns: int, tile: int, lanes: int
) -> None:
    """More bytes never give less, no codes come from the header, and all from the whole."""
    codes, levels = drawn(either_tiny, rows, columns)
    frame = coded(either_tiny, codes, levels, tile=tile, lanes=lanes)
    data, head = frame.to_bytes(), len(frame.header)
    lengths = [*range(head, len(data), 1 + len(data) // 40), len(data)]
    shares = [salvaged_codes(either_tiny, data[:length], codes, levels) for length in lengths]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == either_tiny.context.codes.kept(levels).sum() > 0
    assert len(set(shares)) > len(shares) / 4


@SHAPES
def test_what_is_salvaged_of_a_damaged_stream_is_right(
    either_tiny: cwic.Codec, rows: int, columns: int, tile: int, lanes: int
) -> None:
    codes, levels = drawn(either_tiny, rows, columns)
    frame = coded(either_tiny, codes, levels, tile=tile, lanes=lanes)
    data, head = frame.to_bytes(), len(frame.header)
    found = set()
    for place in range(head, len(data), 1 + len(data) // 30):
        damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        found.add(salvaged_codes(either_tiny, damaged, codes, levels))
    assert len(found) > 1


# ---- Right checksums over wrong sections ----------------------------------------------------


SEEDS = streams()


def of_kind(kind: str, most: int = 1 << 20) -> list[bytes]:
    """Seeds for the model of a kind of codes, of fewer bytes than that; golden ones for both."""
    other = {"signs": "values-", "values": "signs-"}[kind]
    return [data for name, data in SEEDS.items() if not name.startswith(other) and len(data) < most]


def test_the_seeds_reach_every_end(either_tiny: cwic.Codec) -> None:
    """So a fuzzer that starts from them begins behind the checksums."""
    seeds = of_kind(either_tiny.bundle.codes)
    ends = {check(either_tiny, data, MAX_PIXELS * 4) for data in seeds}
    assert ends == {
        "decoded",
        "coder",
        "TruncatedError",
        "CorruptError",
        "VersionError",
        "LimitError",
    }
    assert len(rans_inputs()) > 20


@given(data=st.binary(max_size=300), framed=st.booleans())
@settings(max_examples=150, deadline=None)
def test_random_bytes(either_tiny: cwic.Codec, data: bytes, framed: bool) -> None:
    if framed:
        data = Frame(40, 24).header[:6] + either_tiny.bundle.model_id + data
    check(either_tiny, repaired(data), MAX_PIXELS)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_streams_with_right_checksums(either_tiny: cwic.Codec, data: st.DataObject) -> None:
    bundle = either_tiny.bundle
    stream = bytearray(data.draw(st.sampled_from(of_kind(bundle.codes, 3000))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream)))
        length = data.draw(st.integers(0, 12))
        stream[at : at + length] = data.draw(st.binary(max_size=12))
    check(either_tiny, repaired(bytes(stream), bundle.model_id), MAX_PIXELS)


@pytest.mark.parametrize("progressive", [False, True])
def test_changed_sections_reach_the_coder(either_tiny: cwic.Codec, progressive: bool) -> None:
    """Single bytes of a small stream in turn, under right checksums: the coder decides.

    Values that are told behind their pass, as most are here, may take others and still fit.
    """
    frame = coded(either_tiny, *drawn(either_tiny, 5, 18), lanes=2, progressive=progressive)
    stride, share = {"signs": (3, 0.9), "values": (29, 0.6)}[either_tiny.bundle.codes]
    ends = []
    for tile, sections in enumerate(frame.tiles):
        for section, good in enumerate(sections):
            for place in range(0, len(good), stride):
                changed = [list(pair) for pair in frame.tiles]
                changed[tile][section] = (
                    good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]
                )
                tiles = tuple((levels, codes) for levels, codes in changed)
                ends.append(check(either_tiny, replace(frame, tiles=tiles).to_bytes(), MAX_PIXELS))
    assert set(ends) <= {"coder", "decoded"}
    assert ends.count("coder") > share * len(ends)


@pytest.mark.parametrize(
    "codes",
    [
        pytest.param(b"", id="none"),
        pytest.param(bytes(20), id="no valid state"),
        pytest.param(STATE, id="too few"),
        pytest.param(STATE + bytes(range(256)), id="too many"),
    ],
)
def test_salvage_names_the_tile_whose_codes_are_none(either_tiny: cwic.Codec, codes: bytes) -> None:
    """The other tiles are whole, and nobody takes the picture for whole."""
    tiny = either_tiny
    whole, levels = drawn(tiny, 20, 20)
    frame = coded(tiny, whole, levels)
    tiles = list(frame.tiles)
    tiles[2] = tiles[2][0], codes
    wrong = replace(frame, tiles=tuple(tiles)).to_bytes()
    with pytest.raises(StreamError):
        tiny.read_codes(Stream.from_bytes(wrong))
    result = tiny.salvage(wrong)
    assert (result.lost, result.coarse) == ((), (2,))
    assert isinstance(tiny.runner, StubRunner)
    for rows, columns in ((slice(0, 10), slice(0, 20)), (slice(10, 20), slice(10, 20))):
        assert np.array_equal(tiny.runner.levels[rows, columns], levels[rows, columns])
        assert np.array_equal(tiny.runner.codes[:, rows, columns], whole[:, rows, columns])
