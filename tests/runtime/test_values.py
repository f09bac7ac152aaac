"""A codec whose codes are values, end to end, with a model that needs no training."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save
from tests.fuzz.framing import Frame, parsed
from tests.fuzz.tiny import coded
from tests.runtime.block_values import (
    LEVELS,
    BlockRunner,
    N,
    block_codec,
    block_tensors,
    drawn_values,
)
from tests.runtime.test_codec import psnr

import cwic
from cwic import tiled
from cwic.backends.auto import probe
from cwic.bundle import Bundle, FileEntry
from cwic.codec import Codec
from cwic.container import Stream
from cwic.errors import BackendError, BundleError, RateError, StreamError
from cwic.quantiser import LARGEST, ZERO
from cwic.report.spending import spending

MAX_PIXELS = 1 << 20
SIZE = 20, 23
"""Of maps that are drawn."""


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return block_codec(tmp_path_factory.mktemp("blocks"))


@pytest.fixture(scope="module")
def in_tiles(blocks: Codec) -> Codec:
    """The same with tiles of 16 positions."""
    codec = Codec(blocks.bundle, blocks.runner)
    codec.coder.tile = 16
    return codec


def decoded(codec: Codec, data: bytes) -> NDArray[np.uint8]:
    return np.asarray(codec.decode(data))


def values(codec: Codec, data: bytes) -> NDArray[np.int_]:
    return codec.read_codes(Stream.from_bytes(data, MAX_PIXELS))[0].astype(int) - ZERO


# ---- Pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_quality_rises_with_the_bytes(
    blocks: Codec, small: NDArray[np.uint8], progressive: bool
) -> None:
    sizes, psnrs = [], []
    for quality in (10, 40, 70, 100):
        data = blocks.encode(small, quality=quality, progressive=progressive)
        sizes.append(len(data))
        psnrs.append(psnr(decoded(blocks, data), small))
    assert sizes == sorted(sizes)
    assert psnrs == sorted(psnrs)
    assert psnrs[-1] > psnrs[0] + 3
    assert psnrs[-1] > 26


def test_a_stream_holds_what_the_levels_make_of_the_values(
    blocks: Codec, small: NDArray[np.uint8]
) -> None:
    encoded = blocks.encode_detailed(small, quality=90)
    codes, levels = blocks.read_codes(Stream.from_bytes(encoded.data, MAX_PIXELS))
    assert np.array_equal(levels, encoded.levels)
    assert {2, 3, 4, 5} <= set(levels.reshape(-1).tolist())
    raw = tiled.encode(
        blocks.runner,
        lambda rows, columns: np.pad(small, ((0, 1), (0, 7), (0, 0)), "edge")[rows, columns],
        *small.shape[:2],
        8,
    )[0]
    assert raw.shape[0] == 2 * N
    assert np.array_equal(codes, blocks.context.codes.sent(raw, levels))
    assert (codes != ZERO).mean() > 0.1


def test_contrast_beyond_the_largest_value_is_cut_off(blocks: Codec) -> None:
    picture = np.zeros((16, 160, 3), np.uint8)
    picture[:, np.arange(160) % 8 >= 4] = 255
    data = blocks.encode(picture, quality=100)
    assert np.abs(values(blocks, data)).max() == LARGEST
    found = decoded(blocks, data).astype(int)
    assert found[:, 6::8].min() > 128 + 50
    assert found[:, 1::8].max() < 128 - 50


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (7, 9), (129, 8)])
def test_pictures_of_any_size(
    blocks: Codec, small: NDArray[np.uint8], size: tuple[int, int]
) -> None:
    picture = np.resize(small, (*size, 3))
    data = blocks.encode(picture, quality=50)
    assert decoded(blocks, data).shape == picture.shape


def test_a_file_without_any_value(blocks: Codec) -> None:
    data = blocks.encode(np.full((64, 64, 3), 90, np.uint8), quality=1)
    codes, levels = blocks.read_codes(Stream.from_bytes(data, MAX_PIXELS))
    assert not levels.any()
    assert (codes == ZERO).all()
    assert (decoded(blocks, data) == 128).all()


# ---- Rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1000, 2500, 5000, 9000])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_budget_is_kept_and_used(
    blocks: Codec, photo: NDArray[np.uint8], budget: int, progressive: bool
) -> None:
    picture = photo[100:356, 200:523]
    size = len(blocks.encode(picture, max_bytes=budget, progressive=progressive))
    assert 0.99 * budget <= size <= budget


def test_bpp_is_a_budget(blocks: Codec, small: NDArray[np.uint8]) -> None:
    assert 0.99 * 0.8 <= blocks.encode_detailed(small, bpp=0.8).bpp <= 0.8


def test_too_small_a_budget_names_the_smallest(blocks: Codec, small: NDArray[np.uint8]) -> None:
    with pytest.raises(RateError, match="^20 bytes are too few.*smallest possible is"):
        blocks.encode(small, max_bytes=20)


@pytest.mark.parametrize("target_db", [27.0, 28.5])
def test_psnr_is_reached_and_hardly_exceeded(
    blocks: Codec, photo: NDArray[np.uint8], target_db: float
) -> None:
    picture = photo[100:356, 200:523]
    found = psnr(decoded(blocks, blocks.encode(picture, psnr_db=target_db)), picture)
    assert target_db <= found <= target_db + 0.05 + 1e-3


def test_a_region_is_better_at_the_same_bytes(blocks: Codec, small: NDArray[np.uint8]) -> None:
    box = (40, 24, 88, 72)
    inside = slice(24, 72), slice(40, 88)
    plain, region = (
        decoded(blocks, blocks.encode(small, max_bytes=1200, roi=roi)) for roi in (None, [box])
    )
    assert psnr(region[inside], small[inside]) > psnr(plain[inside], small[inside]) + 0.5
    assert psnr(region, small) < psnr(plain, small)


# ---- Cut and damaged streams ----------------------------------------------------------------


def test_a_progressive_stream_becomes_a_better_picture(
    blocks: Codec, photo: NDArray[np.uint8]
) -> None:
    picture = photo[:200, :300]
    data = blocks.encode(picture, quality=90, progressive=True)
    stream = Stream.from_bytes(data, MAX_PIXELS)
    before = len(data) - stream.codes_bytes
    kept, psnrs = [], []
    for length in range(before, len(data) + 1, 1500):
        salvaged = blocks.salvage(data[:length])
        kept.append(salvaged.codes_kept)
        psnrs.append(psnr(np.asarray(salvaged.image), picture))
    assert kept == sorted(kept)
    assert psnrs[-1] > psnrs[0] + 5
    assert all(b > a - 0.1 for a, b in pairwise(psnrs))


@pytest.mark.parametrize("progressive", [False, True])
def test_salvage_of_a_whole_stream_is_decoding(
    in_tiles: Codec, small: NDArray[np.uint8], progressive: bool
) -> None:
    data = in_tiles.encode(small, quality=50, progressive=progressive)
    salvaged = in_tiles.salvage(data)
    assert salvaged.codes_kept == 1
    assert not salvaged.left_out
    assert np.array_equal(np.asarray(salvaged.image), decoded(in_tiles, data))


@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut_gives_values_of_the_whole_or_an_error(
    in_tiles: Codec, small: NDArray[np.uint8], progressive: bool
) -> None:
    """What is shown of a position is right: its values as far as they go, and its level."""
    data = in_tiles.encode(small[:80, :136], quality=50, progressive=progressive)
    codes, levels = in_tiles.read_codes(Stream.from_bytes(data, MAX_PIXELS))
    kept = []
    for length in range(len(data)):
        with pytest.raises(StreamError):
            in_tiles.decode(data[:length])
        try:
            stream = Stream.salvage(data[:length], MAX_PIXELS)
        except StreamError:
            assert not kept, "a longer cut is worse"
            continue
        found = in_tiles.coder.read_available(stream)
        assert ((found.codes == codes) | (found.codes == ZERO)).all()
        assert ((found.levels == levels) | (found.levels == 0)).all()
        assert (found.codes[:, found.levels == 0] == ZERO).all()
        kept.append(sum(found.reached))
    assert kept == sorted(kept)
    assert len(set(kept)) > 30


def test_a_tile_without_its_levels_is_lost_and_grey(
    in_tiles: Codec, small: NDArray[np.uint8]
) -> None:
    data = in_tiles.encode(small, quality=50)
    place = data.index(Stream.from_bytes(data, MAX_PIXELS).tiles[1].levels)
    damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    salvaged = in_tiles.salvage(damaged)
    assert salvaged.lost == (1,)
    whole, found = decoded(in_tiles, data), np.asarray(salvaged.image)
    grey = (found == 128).all(2)
    assert 0.3 < grey.mean() < 0.9
    assert np.array_equal(found[~grey], whole[~grey])


@pytest.mark.parametrize("tile", [16, 32])
@pytest.mark.parametrize("lanes", [1, 64])
@pytest.mark.parametrize("progressive", [False, True])
def test_streams_of_any_tiles_and_lanes(
    blocks: Codec, tile: int, lanes: int, progressive: bool
) -> None:
    codes, levels = drawn_values(SIZE)
    frame = coded(blocks, codes, levels, tile=tile, lanes=lanes, progressive=progressive)
    stream = Stream.from_bytes(frame.to_bytes(), MAX_PIXELS)
    found = blocks.read_codes(stream)
    assert np.array_equal(found[0], codes)
    assert np.array_equal(found[1], levels)


def test_values_of_a_progressive_stream_are_in_plain_order(blocks: Codec) -> None:
    plain, progressive = (
        coded(blocks, *drawn_values(SIZE), progressive=progressive) for progressive in (False, True)
    )
    assert plain.tiles == progressive.tiles


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("progressive", [False, True])
def test_right_checksums_over_wrong_sections(blocks: Codec, seed: int, progressive: bool) -> None:
    """A picture or a StreamError of one line, and salvage never fails."""
    rng = np.random.default_rng(seed)
    frame = coded(blocks, *drawn_values(SIZE, seed), lanes=4, progressive=progressive)
    sections = [list(tile) for tile in frame.tiles]
    for _ in range(int(rng.integers(1, 4))):
        tile, part = sections[int(rng.integers(len(sections)))], int(rng.integers(2))
        noise = bytearray(tile[part])
        start = int(rng.integers(len(noise)))
        kind = seed % 3
        if kind == 0:
            noise[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            noise = noise[:start]
        else:
            noise[start:] = rng.bytes(len(noise) - start)
        tile[part] = bytes(noise)
    data = dataclasses.replace(frame, tiles=tuple(map(tuple, sections))).to_bytes()
    assert parsed(data).tiles == tuple(map(tuple, sections))
    try:
        assert np.abs(values(blocks, data)).max() <= LARGEST
    except StreamError as error:
        assert "\n" not in str(error)
        assert "; " in str(error)
    salvaged = blocks.salvage(data)
    assert salvaged.image.size == (8 * 23, 8 * 20)


def test_a_header_of_other_sizes_is_refused_or_decodes(blocks: Codec) -> None:
    frame = coded(blocks, *drawn_values(SIZE))
    for fields in ({"width": 1}, {"height": 161}, {"coder": 3}, {"quality": 0}, {"flags": 2}):
        odd: Frame = dataclasses.replace(frame, **fields)  # type: ignore[arg-type]
        with pytest.raises(StreamError):
            blocks.decode(odd.to_bytes(), max_pixels=MAX_PIXELS)


# ---- Spending -------------------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_bits_of_positions_add_up_to_the_file(
    in_tiles: Codec, small: NDArray[np.uint8], progressive: bool
) -> None:
    data = in_tiles.encode(small, quality=90, progressive=progressive)
    found = spending(in_tiles, data, MAX_PIXELS)
    assert sum(found.sections.values()) == len(data)
    coded_bytes = found.sections["levels"] + found.sections["codes"]
    assert found.position_bits.shape == (13, 18)
    rounding = coded_bytes - found.position_bits.sum() / 8
    assert 0 <= rounding < found.tiles * 2 * 6 + 0.01 * coded_bytes
    levels = in_tiles.read_codes(Stream.from_bytes(data, MAX_PIXELS))[1]
    high, low = (found.position_bits[levels == level].mean() for level in (5, 2))
    assert high > 1.5 * low


# ---- Bundles --------------------------------------------------------------------------------


def test_the_probe_knows_the_channels(blocks: Codec) -> None:
    probe(blocks.bundle, blocks.runner)
    signs = dataclasses.replace(blocks.bundle, codes="signs", levels=6)
    with pytest.raises(BackendError, match="gives codes as uint8"):
        probe(signs, blocks.runner)


@pytest.mark.parametrize("codes", ["signs", "values"])
def test_a_manifest_of_other_codes_than_the_entropy_model(
    signs_codec: cwic.Codec, tmp_path: Path, codes: str
) -> None:
    """``codes`` is what the manifest says."""
    shape, tensors = (N, LEVELS), save(block_tensors())
    if codes == "values":
        shape = signs_codec.bundle.n, signs_codec.bundle.levels
        tensors = signs_codec.bundle.read("context.safetensors")
    context = tmp_path / "context.safetensors"
    context.write_bytes(tensors)
    files = {context.name: FileEntry.of(context, role="context", target="cwic", precision="int")}
    bundle = Bundle(tmp_path, "odd", bytes(8), *shape, 8, files, codes=codes)
    with pytest.raises(BundleError, match=f"is not one of {codes}; export the model again$"):
        Codec(bundle, BlockRunner())
