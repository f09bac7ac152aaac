"""Encode and decode of photographs with the shipped model."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.runtime.shown import check_shown, is_shown

import cwic
from cwic import rans
from cwic.backends import Runner
from cwic.codec import Codec
from cwic.coding import TILE, _lanes
from cwic.container import Header, Sections, Stream
from cwic.errors import (
    ImageError,
    LimitError,
    ModelMismatchError,
    RateError,
    StreamError,
    UsageError,
)
from cwic.image import pad_to_multiple
from cwic.rate import levels_from_importance
from cwic.tiles import tile_grid


class Watched(Runner):
    """Remembers what it is asked to decode and paints it grey: tests of streams need no more."""

    backend = "watched"

    def __init__(self) -> None:
        self.codes = self.levels = np.zeros(0, np.uint8)

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        raise NotImplementedError

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.codes, self.levels = codes[0], levels[0]
        return np.full((1, 8 * levels.shape[1], 8 * levels.shape[2], 3), 128, np.uint8)


@pytest.fixture
def watched(either: Codec) -> Codec:
    return Codec(either.bundle, Watched(), threads=2)


@pytest.fixture(scope="session")
def either_stream(either: Codec, small: NDArray[np.uint8]) -> bytes:
    return either.encode(small, quality=50)


@dataclasses.dataclass(frozen=True)
class Tiled:
    """A photograph as a stream of 2 x 2 tiles of 35 x 50 positions, two chunks each."""

    codec: Codec
    picture: NDArray[np.uint8]
    data: bytes
    codes: NDArray[np.uint8]
    levels: NDArray[np.uint8]

    @property
    def stream(self) -> Stream:
        return Stream.from_bytes(self.data)

    @property
    def ends(self) -> list[int]:
        """Where the header ends, and every section and chunk after it."""
        tiles, chunk = self.stream.tiles, 4096
        sizes = [len(tile.levels or b"") for tile in tiles]
        for start in range(0, max(len(tile.codes) for tile in tiles), chunk):
            sizes += [min(chunk, len(t.codes) - start) for t in tiles if len(t.codes) > start]
        first = len(self.data) - sum(sizes) - 4 * len(sizes)
        return [first, *(first + np.cumsum([size + 4 for size in sizes])).tolist()]

    def check_shown(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> None:
        check_shown(self.codec.context, (self.codes, self.levels), (codes, levels))

    def is_shown(self, codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return is_shown(self.codec.context, codes)


TILED_QUALITY = {"signs": 90, "values": 94}
"""By kind of codes, at which each of the four tiles has two chunks of codes."""


@pytest.fixture(scope="session")
def tiled(either: Codec, photo: NDArray[np.uint8]) -> Tiled:
    """With many different levels in every tile, 0 among them."""
    picture = np.asarray(Image.fromarray(photo).resize((797, 560), Image.Resampling.LANCZOS))
    columns = 255 * np.sqrt(np.tile(np.linspace(-0.05, 1, 400).clip(0), 2)[:797])
    mask = np.broadcast_to(columns, picture.shape[:2]).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(either.coder, "tile", 64)
        data = either.encode(picture, quality=TILED_QUALITY[either.bundle.codes], roi=mask)
    codes, levels = either.read_codes(Stream.from_bytes(data))
    for tile in tile_grid(*levels.shape, 64):
        assert {0, either.bundle.levels // 2} <= set(levels[tile.area].reshape(-1).tolist())
    sizes = [len(tile.codes) for tile in Stream.from_bytes(data).tiles]
    assert 4096 + 200 < min(sizes) <= max(sizes) <= 8192
    return Tiled(either, picture, data, codes, levels)


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def psnr(a: object, b: object) -> float:
    error = np.asarray(a, float) - np.asarray(b, float)
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def test_a_photograph_comes_back(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    data = codec.encode(photo, bpp=0.5)
    restored = codec.decode(data)
    assert restored.mode == "RGB"
    assert restored.size == (768, 512)
    assert 8 * len(data) / photo[..., 0].size <= 0.5
    assert psnr(photo, restored) > 35


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 8), (8, 8), (9, 17), (64, 1), (130, 129)])
def test_any_size(codec: cwic.Codec, photo: NDArray[np.uint8], size: tuple[int, int]) -> None:
    picture = photo[200 : 200 + size[0], 200 : 200 + size[1]]
    restored = np.asarray(codec.decode(codec.encode(picture, quality=90)))
    assert restored.shape == picture.shape
    # The networks see nothing around it: a picture of one position comes back coarser.
    assert psnr(picture, restored) > (35 if min(size) >= 64 else 25)


def test_quality_trades_bytes_for_psnr(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    streams = [codec.encode(photo, quality=q) for q in (1, 30, 60, 100)]
    sizes = [len(s) for s in streams]
    quality = [psnr(photo, codec.decode(s)) for s in streams]
    assert sizes == sorted(sizes)
    assert quality == sorted(quality)
    assert sizes[-1] > 3 * sizes[0]


@pytest.mark.parametrize("bpp", [0.15, 0.3, 0.5, 4])
def test_bpp_is_never_exceeded_and_nearly_used(
    codec: cwic.Codec, photo: NDArray[np.uint8], bpp: float
) -> None:
    result = codec.encode_detailed(photo, bpp=bpp)
    most = codec.encode_detailed(photo, quality=100).bpp
    assert 0.98 * min(bpp, most) < result.bpp <= bpp
    assert result.levels.shape == (64, 96)


def test_a_byte_budget(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    assert 9_000 < len(codec.encode(photo, max_bytes=10_000)) <= 10_000
    with pytest.raises(RateError, match=r"smallest possible is \d+ bytes"):
        codec.encode(photo, max_bytes=10)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50, "bpp": 1},
        {"bpp": 1, "max_bytes": 10},
        {"quality": 0},
        {"bpp": 0},
        {"bpp": -1},
        {"bpp": float("nan")},
        {"max_bytes": 0},
    ],
)
def test_unusable_rates(
    codec: cwic.Codec, small: NDArray[np.uint8], options: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="; (use|give)"):
        codec.encode(small, **options)


def test_pillow_images_and_arrays_give_the_same_bytes(
    codec: cwic.Codec, small: NDArray[np.uint8], stream: bytes
) -> None:
    assert codec.encode(Image.fromarray(small), quality=50) == stream
    assert codec.encode(small) == stream


@pytest.mark.parametrize(("coder", "threads"), [("c", 1), ("c", 7), ("numpy", 2)])
def test_coder_and_threads_do_not_change_a_byte(
    either: Codec, tiled: Tiled, monkeypatch: pytest.MonkeyPatch, coder: str, threads: int
) -> None:
    if coder not in rans._BACKENDS:
        pytest.skip("cwic._rans is not built")
    monkeypatch.setattr(rans, "_DEFAULT", coder)
    mine = Codec(either.bundle, either.runner, threads)
    mine.coder.tile = 64
    size = tiled.picture.shape[1::-1]
    scale = either.qualities.scale(TILED_QUALITY[either.bundle.codes])
    assert mine.write_stream(tiled.codes, tiled.levels, *size, scale) == tiled.data
    codes, levels = mine.read_codes(tiled.stream)
    assert np.array_equal(codes, tiled.codes)
    assert np.array_equal(levels, tiled.levels)


def test_encoding_is_deterministic_and_thread_safe(
    codec: cwic.Codec, photo: NDArray[np.uint8]
) -> None:
    pieces = [photo[y : y + 96, x : x + 96] for y in (0, 200) for x in (0, 300)]
    alone = [codec.encode(p, quality=40) for p in pieces]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: codec.encode(p, quality=40), pieces)) == alone
        restored = list(pool.map(codec.decode, alone))
    for data, picture in zip(alone, restored, strict=True):
        assert np.array_equal(np.asarray(codec.decode(data)), np.asarray(picture))


def test_every_flipped_bit_and_truncation_is_refused(codec: cwic.Codec, stream: bytes) -> None:
    for place in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(StreamError):
            codec.decode(bytes(flipped))
    for length in range(len(stream)):
        with pytest.raises(StreamError):
            codec.decode(stream[:length])


def test_right_checksums_over_wrong_sections_are_refused(
    either: Codec, either_stream: bytes
) -> None:
    good = Stream.from_bytes(either_stream)
    levels, codes = good.tiles[0].levels or b"", good.tiles[0].codes
    for wrong in [
        (levels[:-2], codes),
        (levels, codes[:-2]),
        (levels + b"\0\0", codes),
        (levels, codes + b"\0\0"),
        (b"", codes),
        (levels, b""),
        (codes, levels),
    ]:
        data = Stream(good.header, (Sections(*wrong),)).to_bytes()
        with pytest.raises(StreamError):
            either.decode(data)


def test_random_sections_never_crash(either: Codec, either_stream: bytes) -> None:
    """Damage that the checksums do not see still ends in a picture or a StreamError."""
    good = Stream.from_bytes(either_stream)
    levels, codes = good.tiles[0].levels, good.tiles[0].codes
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        place, value = int(rng.integers(len(codes))), int(rng.integers(1, 256))
        bad = codes[:place] + bytes([codes[place] ^ value]) + codes[place + 1 :]
        data = Stream(good.header, (Sections(levels, bad),)).to_bytes()
        try:
            either.decode(data)
        except StreamError:
            refused += 1
        assert either.salvage(data).image.size == (137, 103)
    assert refused > 50


def test_another_model_is_refused_by_name(codec: cwic.Codec, stream: bytes) -> None:
    good = Stream.from_bytes(stream)
    data = Stream(dataclasses.replace(good.header, model_id=b"otherone"), good.tiles).to_bytes()
    for read in (codec.decode, codec.salvage):
        with pytest.raises(ModelMismatchError, match=f"{b'otherone'.hex()}.*nano.*--model"):
            read(data)


def test_the_pixel_limit(codec: cwic.Codec, stream: bytes, small: NDArray[np.uint8]) -> None:
    pixels = small[..., 0].size
    assert codec.decode(stream, max_pixels=pixels).size == (small.shape[1], small.shape[0])
    for read in (codec.decode, codec.salvage):
        with pytest.raises(LimitError, match=f"limit of {pixels - 1}"):
            read(stream, max_pixels=pixels - 1)


def test_pictures_that_cannot_be_coded(codec: cwic.Codec) -> None:
    with pytest.raises(ImageError):
        codec.encode(np.zeros((4, 4, 5), np.uint8))
    with pytest.raises(ImageError):
        codec.encode(Image.new("F", (4, 4)))


def test_encode_refuses_what_decode_would(codec: cwic.Codec, small: NDArray[np.uint8]) -> None:
    pixels = small[..., 0].size
    assert codec.encode(small, max_pixels=pixels)
    with pytest.raises(ImageError, match=f"limit of {pixels - 1}; shrink it, or raise max_pixels"):
        codec.encode(small, max_pixels=pixels - 1)


def test_load_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(cwic.BundleError, match="holds no model.json; pass"):
        cwic.load(tmp_path)
    with pytest.raises(UsageError, match="unknown backend 'warp'; use one of auto, cpu"):
        cwic.load(backend="warp")


# ---- Tiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "lanes"),
    [(0, 1), (16_384, 1), (32_767.9, 1), (32_768, 2), (2e5, 8), (1 << 20, 64), (1 << 30, 64)],
)
def test_lanes_grow_with_what_there_is_to_code(bits: float, lanes: int) -> None:
    assert _lanes(bits) == lanes


@pytest.mark.parametrize("quality", [5, 40, 95])
def test_lanes_cost_little(either: Codec, photo: NDArray[np.uint8], quality: int) -> None:
    """States take 5 bytes a lane: a quarter of a percent, or one lane."""
    stream = Stream.from_bytes(either.encode(photo, quality=quality))
    codes = len(stream.tiles[0].codes)
    assert 5 <= rans.head_bytes(stream.header.lanes) <= max(5, codes / 400)


def test_a_large_picture_has_tiles(codec: Codec, photo: NDArray[np.uint8]) -> None:
    """1500 x 1100 pixels are 188 x 138 positions: 2 x 2 tiles, which the picture does not show."""
    picture = np.asarray(Image.fromarray(photo).resize((1500, 1100)))
    data = codec.encode(picture, quality=30)
    stream = Stream.from_bytes(data)
    assert stream.header.tile == TILE == 128
    assert len(stream.tiles) == 4
    restored = np.asarray(codec.decode(data), float)
    assert psnr(picture, restored) > 30
    # The middle, where the tiles meet, is as good as the rest: rows 552 and columns 752.
    error = np.square(restored - picture).mean(-1)
    for border in (error[548:556], error[:, 748:756]):
        assert border.mean() < 2 * error.mean()


def test_the_default_is_one_tile_below_1024_pixels(codec: Codec, stream: bytes) -> None:
    assert len(Stream.from_bytes(stream).tiles) == 1
    assert tile_grid(128, 128, TILE) == [*tile_grid(128, 128, 2048)]


@pytest.mark.parametrize("lanes", [1, 64])
@pytest.mark.parametrize("tile", [16, 32, 2048])
def test_a_reader_takes_any_tile_and_lanes(
    codec: Codec, photo: NDArray[np.uint8], tile: int, lanes: int
) -> None:
    """A stream put together by hand; its picture is that of the writer's own stream."""
    picture = photo[:300, :270]
    codes, importance = (a[0] for a in codec.runner.encode(pad_to_multiple(picture, 8)[None]))
    several = np.multiply(importance, np.resize([0, 0.4, 1], importance.shape))
    levels = levels_from_importance(several.astype(np.uint8), 0.8, codec.bundle.levels)
    sent = codec.context.codes.sent(codes, levels)
    parts = []
    for part in tile_grid(38, 34, tile):
        area = (slice(part.top, part.top + part.height), slice(part.left, part.left + part.width))
        coded = codec.context.codes.encode(sent[(slice(None), *area)], levels[area])
        parts.append(
            Sections(codec.context.levels.encode(levels[area]).to_bytes(1), coded.to_bytes(lanes))
        )
    assert len(parts) == {16: 9, 32: 4, 2048: 1}[tile]
    header = Header(270, 300, codec.bundle.model_id, 50, lanes, tile)
    mine = codec.decode(Stream(header, tuple(parts)).to_bytes())
    theirs = codec.decode(codec.write_stream(sent, levels, 270, 300, 0.5))
    assert np.array_equal(np.asarray(mine), np.asarray(theirs))


def test_each_tile_is_coded_by_itself(either: Codec, tiled: Tiled) -> None:
    """Two tiles of equal content have equal sections."""
    codes, levels = (np.concatenate([a[..., :50]] * 2, -1) for a in (tiled.codes, tiled.levels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(either.coder, "tile", 64)
        stream = Stream.from_bytes(either.write_stream(codes, levels, 800, 560, 1.5))
    assert stream.tiles[0] == stream.tiles[1] == tiled.stream.tiles[0]
    assert stream.tiles[2] == stream.tiles[3] != stream.tiles[0]


def test_sections_of_another_tile_are_refused(either: Codec, tiled: Tiled) -> None:
    stream = tiled.stream
    a, b, *rest = stream.tiles
    swapped = (Sections(a.levels, b.codes), Sections(b.levels, a.codes), *rest)
    with pytest.raises(StreamError):
        either.read_codes(Stream(stream.header, swapped))


# ---- Salvage --------------------------------------------------------------------------------


def test_salvage_of_a_whole_stream_is_decode(either: Codec, either_stream: bytes) -> None:
    salvaged = either.salvage(either_stream)
    assert np.array_equal(np.asarray(salvaged.image), np.asarray(either.decode(either_stream)))
    assert salvaged.codes_kept == 1
    assert (salvaged.tiles, salvaged.lost, salvaged.coarse) == (1, (), ())
    assert salvaged.left_out == ""


def test_every_cut_behind_the_header_gives_a_picture(watched: Codec, tiled: Tiled) -> None:
    """More bytes never give less; what is given is right; only whole chunks count."""
    runner = watched.runner
    assert isinstance(runner, Watched)
    share, before, shown = 0.0, np.zeros_like(tiled.levels), np.zeros(1, bool)
    ends = tiled.ends
    assert len(ends) == 1 + 4 + 8, "every tile has two chunks"
    assert ends[-1] == len(tiled.data)
    between = [(start + end) // 2 for start, end in pairwise(ends)]
    shares = []
    for cut in (*between, len(tiled.data)):
        salvaged = watched.salvage(tiled.data[:cut])
        assert salvaged.image.size == (797, 560)
        tiled.check_shown(runner.codes, runner.levels)
        assert (runner.levels >= before).all()
        assert not (shown & ~tiled.is_shown(runner.codes)).any()
        assert salvaged.codes_kept >= share
        assert bool(salvaged.left_out) == (cut < len(tiled.data))
        share, before = salvaged.codes_kept, runner.levels
        shown = tiled.is_shown(runner.codes)
        shares.append(share)
    assert shares[-1] == 1
    assert len(set(shares)) > 8
    assert np.array_equal(before, tiled.levels)
    assert np.array_equal(runner.codes, tiled.codes)


def test_no_cut_of_the_header_gives_a_picture(watched: Codec, tiled: Tiled) -> None:
    for cut in range(tiled.ends[0]):
        with pytest.raises(StreamError, match="; fetch or encode it again$"):
            watched.salvage(tiled.data[:cut])


def test_a_cut_stream_is_coarser_not_worse(either: Codec, tiled: Tiled) -> None:
    """With levels alone a picture is grey; every round of chunks makes it better."""
    first, ends = tiled.ends[0], tiled.ends
    rounds = [first, ends[4], ends[6], ends[8], ends[12]]
    quality = [psnr(tiled.picture, either.salvage(tiled.data[:cut]).image) for cut in rounds]
    assert quality[0] < 20
    assert all(b >= a - 0.01 for a, b in pairwise(quality))
    assert quality[-2] > quality[0] + 5
    assert quality[-1] == pytest.approx(psnr(tiled.picture, either.decode(tiled.data)))


@pytest.mark.parametrize(("tile", "chunk"), [(0, 0), (1, 1), (2, 0), (3, 1)])
def test_a_damaged_chunk_harms_its_tile_alone(
    watched: Codec, tiled: Tiled, tile: int, chunk: int
) -> None:
    end = tiled.ends[4 + 4 * chunk + tile]
    data = flipped(tiled.data, end + 50)
    with pytest.raises(StreamError, match="a codes section does not match its checksum"):
        watched.decode(data)
    salvaged = watched.salvage(data)
    assert (salvaged.lost, salvaged.coarse) == ((), (tile,))
    assert 0.5 < salvaged.codes_kept < 1
    assert salvaged.left_out.endswith(f" % of the known codes; coarse tiles: {tile + 1} of 4")
    runner = watched.runner
    assert isinstance(runner, Watched)
    for i, part in enumerate(tile_grid(70, 100, 64)):
        area = slice(None), *part.area
        codes, whole = runner.codes[area], tiled.codes[area]
        if i != tile:
            assert np.array_equal(runner.levels[part.area], tiled.levels[part.area])
            assert np.array_equal(codes, whole)
        else:
            assert bool(runner.levels[part.area].any()) == (chunk > 0)
            assert bool(tiled.is_shown(codes).any()) == (chunk > 0)
            assert not np.array_equal(codes, whole)
    tiled.check_shown(runner.codes, runner.levels)


@pytest.mark.parametrize("tile", [0, 3])
def test_a_tile_without_levels_is_lost_and_named(watched: Codec, tiled: Tiled, tile: int) -> None:
    data = flipped(tiled.data, tiled.ends[tile] + 9)
    with pytest.raises(StreamError, match="a levels section does not match its checksum"):
        watched.decode(data)
    salvaged = watched.salvage(data)
    assert (salvaged.lost, salvaged.coarse) == ((tile,), ())
    assert salvaged.codes_kept == 1, "of the codes whose number is known"
    assert salvaged.left_out == f"100 % of the known codes; lost tiles: {tile + 1} of 4"
    runner = watched.runner
    assert isinstance(runner, Watched)
    for i, part in enumerate(tile_grid(70, 100, 64)):
        whole = tiled.levels[part.area]
        assert np.array_equal(runner.levels[part.area], whole if i != tile else 0 * whole)


def test_everything_lost_is_still_a_picture(watched: Codec, tiled: Tiled) -> None:
    salvaged = watched.salvage(tiled.data[: tiled.ends[0]])
    assert salvaged.lost == (0, 1, 2, 3)
    assert salvaged.codes_kept == 0
    assert salvaged.left_out == "0 % of the known codes; lost tiles: 1, 2, 3, 4 of 4"


def test_many_lost_tiles_are_counted(watched: Codec, tiled: Tiled) -> None:
    """Eight are named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched.coder, "tile", 32)
        data = watched.write_stream(tiled.codes, tiled.levels, 797, 560, 1.5)
    assert len(Stream.from_bytes(data).tiles) == 12
    head = len(data) - sum(
        len(t.levels or b"") + len(t.codes) + 4 + 4 * -(-len(t.codes) // 4096)
        for t in Stream.from_bytes(data).tiles
    )
    left_out = watched.salvage(data[:head]).left_out
    assert left_out.endswith("lost tiles: 1, 2, 3, 4, 5, 6, 7, 8 and 4 more of 12")


def test_any_damage_gives_a_picture_or_an_error(watched: Codec, either_stream: bytes) -> None:
    rng = np.random.default_rng(3)
    pictures = 0
    for _ in range(150):
        bad = bytearray(either_stream)
        for _ in range(int(rng.integers(1, 4))):
            bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
        try:
            salvaged = watched.salvage(bytes(bad[: int(rng.integers(len(bad) // 2, len(bad)))]))
        except StreamError as error:
            assert "\n" not in str(error)
        else:
            assert salvaged.image.size == (137, 103)
            assert salvaged.left_out
            pictures += 1
    assert pictures > 100


def test_damage_without_a_checksum_costs_what_has_none(tiled: Tiled) -> None:
    """The last chunk is all there but for its checksum: what comes before it is kept."""
    cut = tiled.data[:-2]
    place = tiled.ends[-2] + 5
    good, bad = (tiled.codec.salvage(part) for part in (cut, flipped(cut, place)))
    assert not good.left_out
    assert bad.lost == ()
    assert bad.left_out
    stream = Stream.salvage(flipped(cut, place))
    found = tiled.codec.coder.read_available(stream)
    assert found.reached[:-1] == found.wanted[:-1]
    assert 0 < found.reached[-1] < (found.wanted[-1] or 0)
    tiled.check_shown(found.codes, found.levels)


def test_levels_that_do_not_decode_are_lost(watched: Codec, tiled: Tiled) -> None:
    """Although their checksum is right: the tile is grey, and that must be said."""
    stream = tiled.stream
    wrong = Sections(b"\0" * 7, stream.tiles[1].codes)
    tiles = (stream.tiles[0], wrong, *stream.tiles[2:])
    salvaged = watched.salvage(Stream(stream.header, tiles).to_bytes())
    assert salvaged.lost == (1,)


def test_a_tile_that_needs_no_codes_is_not_lost_with_them(watched: Codec) -> None:
    """Levels of 0 everywhere: the codes section is empty states, and nothing is missing."""
    levels = np.zeros((8, 8), np.uint8)
    codes = np.full((watched.bundle.decoder_channels, 8, 8), watched.context.codes.none, np.uint8)
    data = watched.write_stream(codes, levels, 64, 64, 0.1)
    salvaged = watched.salvage(data[:-1])
    assert (salvaged.lost, salvaged.coarse) == ((), ())
