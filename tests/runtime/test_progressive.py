"""Progressive streams: order of the layers, round trips, what a beginning is worth, damage."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.runtime.test_codec import psnr

import cwic
from cwic import pillow_plugin, rans
from cwic.cli import cli
from cwic.codec import Codec
from cwic.container import Stream
from cwic.errors import BundleError, CorruptError, StreamError
from cwic.layers import OFFSET, STAGES, layer_of, prefixes, stage_of, stage_steps, stand_ins
from cwic.level_model import LevelModel, level_contexts

ANY_L = pytest.mark.parametrize("levels", [1, 2, 3, 4, 5, 6, 7, 13, 16, 32, 64, 255])


@pytest.fixture(scope="module")
def progressive(codec: Codec, photo: NDArray[np.uint8]) -> bytes:
    """Of values: the groups in turn."""
    return codec.encode(photo, quality=80, progressive=True)


@pytest.fixture(scope="module")
def layered(signs_codec: Codec, photo: NDArray[np.uint8]) -> bytes:
    """Of signs: levels in stages, groups in layers."""
    return signs_codec.encode(photo, quality=80, progressive=True)


# ---- The order ------------------------------------------------------------------------------


@ANY_L
def test_every_group_comes_once(levels: int) -> None:
    """Of every level: its groups and no other, in their order, in the stage of their layer."""
    every = np.arange(levels + 1, dtype=np.uint8)
    for level in range(levels + 1):
        groups = []
        for stage in range(len(STAGES)):
            taken_for = stand_ins(prefixes(every, stage), stage, levels)[level]
            groups += [g for g, having in stage_steps(levels, stage) if having[taken_for]]
        assert groups == list(range(level))
        layers = layer_of(levels)[:level, level]
        assert (np.diff(layers) >= 0).all()
        assert set(stage_of(layers).tolist()) <= set(range(len(STAGES)))


@ANY_L
def test_levels_become_finer(levels: int) -> None:
    """What a stage tells never takes back what was told, and the last tells all."""
    every = np.arange(levels + 1, dtype=np.uint8)
    for stage, (shift, _, _) in enumerate(STAGES):
        known = prefixes(every, stage)
        taken_for = stand_ins(known, stage, levels)
        assert np.array_equal(prefixes(taken_for, stage), known), "a reader has only what v tells"
        assert abs(taken_for.astype(int) - every).max() <= max(0, (1 << shift) - 1)
    assert np.array_equal(taken_for, every)


def test_layers_of_the_highest_level() -> None:
    """Of 16 a group in each layer; of 4 one in each fourth."""
    table = layer_of(16)
    assert table[:, 16].tolist() == list(range(1, 17))
    assert table[:, 4].tolist()[:4] == [2, 6, 10, 14]
    assert (table[:, 0] == 17).all()


# ---- Levels ---------------------------------------------------------------------------------


@lru_cache
def level_model(levels: int, seed: int = 0) -> LevelModel:
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, max(2, 60_000 // (levels + 1)), (level_contexts(levels), levels + 1))
    rows[:, 0] += 65536 - rows.sum(1)
    return LevelModel(rows.astype(np.uint16), levels)


@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 4, 5, 16, 32]), st.integers(0, 99)
)
@example(9, 11, 255, 0)
@settings(max_examples=30, deadline=None)
def test_any_levels_round_trip_by_stages(height: int, width: int, levels: int, seed: int) -> None:
    model = level_model(levels)
    wanted = np.random.default_rng(seed).integers(0, levels + 1, (height, width)).astype(np.uint8)
    found = np.zeros_like(wanted)
    for stage in range(len(STAGES)):
        parts = model.encode_stage(wanted, stage)
        starts, freqs = (np.concatenate(part) for part in zip(*parts, strict=True))
        data = rans.encode(starts, freqs, [len(part[0]) for part in parts], 2)
        decoder = rans.Decoder(data, 2)
        found = model.decode_stage(decoder, found, stage)
        decoder.finish()
        assert np.array_equal(found, stand_ins(prefixes(wanted, stage), stage, levels))
    assert np.array_equal(found, wanted)


@ANY_L
def test_stages_take_as_many_bits_as_levels_would(levels: int) -> None:
    """From equal contexts: probabilities of the stages multiply to that of the level."""
    row = np.random.default_rng(levels).integers(1, max(2, 40_000 // (levels + 1)), levels + 1)
    row[levels // 2] += 65536 - row.sum()
    model = LevelModel(np.tile(row.astype(np.uint16), (level_contexts(levels), 1)), levels)
    map_ = np.random.default_rng(1).integers(0, levels + 1, (24, 24)).astype(np.uint8)
    freqs = [model.encode_stage(map_, stage) for stage in range(len(STAGES))]
    bits = sum(float((16 - np.log2(f)).sum()) for stage in freqs for _, f in stage)
    # A symbol keeps at least 1 of 65536, which a certain one pays.
    assert bits == pytest.approx(model.encode(map_).bits, rel=0.01, abs=1)


def test_hostile_levels_stay_in_range() -> None:
    """Any bytes give levels of 0 to L, or an error: tables have symbols that no level has."""
    for levels, turns in ((1, 20), (5, 20), (16, 20), (255, 2)):
        model, rng = level_model(levels), np.random.default_rng(levels)
        for _ in range(turns):
            state = (1 << 24) + int(rng.integers(1 << 30))
            words = rng.integers(0, 256, 4000, np.uint8).tobytes()
            decoder = rans.Decoder(state.to_bytes(5, "little") + words, 1)
            found = np.zeros((9, 11), np.uint8)
            try:
                for stage in range(len(STAGES)):
                    found = model.decode_stage(decoder, found, stage)
                    assert found.max() <= levels
            except StreamError:
                continue
    state = (1 << 24 | 65535).to_bytes(5, "little")  # the last symbol, which never is
    with pytest.raises(CorruptError, match="a level is out of range; fetch"):
        level_model(16).decode_stage(
            rans.Decoder(state + bytes(10), 1), np.zeros((1, 1), np.uint8), 0
        )


# ---- Streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["values", "signs"])
def test_it_is_the_same_picture(
    codec: Codec,
    signs_codec: Codec,
    photo: NDArray[np.uint8],
    progressive: bytes,
    layered: bytes,
    kind: str,
) -> None:
    if kind == "signs":
        codec, progressive = signs_codec, layered
    plain = codec.encode(photo, quality=80)
    assert np.array_equal(np.asarray(codec.decode(plain)), np.asarray(codec.decode(progressive)))
    assert Stream.from_bytes(progressive).header.progressive
    assert not Stream.from_bytes(plain).header.progressive
    assert len(progressive) <= 1.03 * len(plain)
    for one, other in zip(
        codec.read_codes(Stream.from_bytes(plain)),
        codec.read_codes(Stream.from_bytes(progressive)),
        strict=True,
    ):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 17), (103, 137)])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_round_trip(
    either: Codec, photo: NDArray[np.uint8], size: tuple[int, int], quality: int
) -> None:
    part = photo[100 : 100 + size[0], 200 : 200 + size[1]]
    plain, other = (either.encode(part, quality=quality, progressive=p) for p in (False, True))
    assert np.array_equal(np.asarray(either.decode(plain)), np.asarray(either.decode(other)))


def test_a_budget_holds(either: Codec, photo: NDArray[np.uint8]) -> None:
    data = either.encode(photo, max_bytes=9000, progressive=True)
    assert 0.99 * 9000 <= len(data) <= 9000


def test_every_beginning_is_a_picture(
    codec: Codec, photo: NDArray[np.uint8], progressive: bytes
) -> None:
    """It gets no worse with any tenth; four tenths have something everywhere."""
    cuts = [round(len(progressive) * k / 10) for k in range(1, 11)]
    found = [codec.salvage(progressive[:cut]) for cut in cuts]
    quality = [psnr(photo, part.image) for part in found]
    assert quality == sorted(quality)
    assert quality[3] > 26
    assert quality[-1] > quality[3] + 10
    assert [bool(part.left_out) for part in found] == [True] * 9 + [False]
    kept = [part.codes_kept for part in found]
    assert kept == sorted(kept)
    assert kept[0] > 0
    assert kept[-1] == 1


def test_every_beginning_of_signs_is_a_picture(
    signs_codec: Codec, photo: NDArray[np.uint8], layered: bytes
) -> None:
    """It gets better with every twentieth, and from a fifth on it rises smoothly."""
    cuts = [round(len(layered) * k / 20) for k in range(1, 21)]
    found = [signs_codec.salvage(layered[:cut]) for cut in cuts]
    quality = [psnr(photo, part.image) for part in found]
    assert all(after > before for before, after in pairwise(quality))
    assert quality[1] > 18
    # Before, places without a first code get theirs.
    assert all(after - before < 1.5 for before, after in pairwise(quality[3:])), "a jump"
    assert [bool(part.left_out) for part in found] == [True] * 19 + [False]
    kept = [part.codes_kept for part in found]
    # Finer levels make more codes known of than were before.
    assert all(after > before - 0.02 for before, after in pairwise(kept))
    assert kept[-1] == 1


def test_a_beginning_is_worth_more_than_of_a_plain_stream(
    signs_codec: Codec, photo: NDArray[np.uint8], layered: bytes
) -> None:
    """Of signs; values are in the same order in both."""
    plain = signs_codec.encode(photo, quality=80)
    for share in (0.1, 0.2, 0.35, 0.5, 0.65):
        cut = round(share * len(plain))
        one, other = (psnr(photo, signs_codec.salvage(d[:cut]).image) for d in (plain, layered))
        assert other > one + 0.2


@pytest.mark.parametrize(("name", "low", "high"), [(None, 0.08, 0.16), ("nano-signs", 0.4, 0.6)])
def test_tiles_become_finer_together(
    photo: NDArray[np.uint8], name: str | None, low: float, high: float
) -> None:
    """Of the first groups of values, an eighth of all, half the bytes tell."""
    codec = cwic.load(name)
    codec.coder.tile = 32
    data = codec.encode(photo, quality=80, progressive=True)
    assert len(Stream.from_bytes(data).tiles) == 6
    assert np.array_equal(
        np.asarray(codec.decode(data)),
        np.asarray(codec.decode(codec.encode(photo, quality=80))),
    )
    found = codec.coder.read_available(Stream.salvage(data[: len(data) // 2]))
    shares = [got / (wanted or 1) for got, wanted in zip(found.reached, found.wanted, strict=True)]
    assert low < min(shares) <= max(shares) < high


@pytest.mark.parametrize("kind", ["values", "signs"])
def test_cuts_in_the_first_bytes(
    codec: Codec, signs_codec: Codec, progressive: bytes, layered: bytes, kind: str
) -> None:
    """Header alone, levels alone: a picture of the right size that says what it lacks."""
    if kind == "signs":
        codec, progressive = signs_codec, layered
    stream = Stream.from_bytes(progressive)
    chunks = -(-stream.codes_bytes // 4096)
    start = len(progressive) - stream.codes_bytes - 4 * chunks
    header = start - 4 - stream.levels_bytes
    for cut in (header, header + stream.levels_bytes // 2, start, start + 3):
        found = codec.salvage(progressive[:cut])
        assert found.image.size == (768, 512)
        assert found.left_out.startswith("0 % of the known codes; ")
        assert (found.lost, found.coarse) == (((0,), ()) if cut < start else ((), (0,)))
    with pytest.raises(StreamError):
        codec.salvage(progressive[: header - 1])


@pytest.mark.parametrize("damage", ["plain", "progressive"])
def test_the_flag_decides(
    signs_codec: Codec, photo: NDArray[np.uint8], layered: bytes, damage: str
) -> None:
    """A stream whose flag is wrong, under a right checksum, is refused or is other codes."""
    data = layered if damage == "plain" else signs_codec.encode(photo, quality=80)
    stream = Stream.from_bytes(data)
    header = dataclasses.replace(stream.header, progressive=damage == "progressive")
    with pytest.raises(StreamError):
        signs_codec.decode(dataclasses.replace(stream, header=header).to_bytes())


# ---- How it is asked for --------------------------------------------------------------------


def test_the_command(tmp_path: Path, photo: NDArray[np.uint8], progressive: bytes) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    run = CliRunner()
    done = run.invoke(cli, ["encode", str(tmp_path / "a.png"), "-q", "80", "--progressive"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.cwic").read_bytes() == progressive
    said = run.invoke(cli, ["info", str(tmp_path / "a.cwic")])
    assert " lanes, progressive, checksums right" in said.output


def test_pillow_saves_one(tmp_path: Path, photo: NDArray[np.uint8], progressive: bytes) -> None:
    pillow_plugin.use()
    Image.fromarray(photo).save(tmp_path / "a.cwic", quality=80, progressive=True)
    assert (tmp_path / "a.cwic").read_bytes() == progressive


def test_a_model_of_few_levels() -> None:
    """Prefixes of a + 2 with L = 1: three stages tell nothing, at a price of nothing."""
    model = level_model(1)
    map_ = np.ones((16, 16), np.uint8)
    early = [model.encode_stage(map_, stage) for stage in range(2)]
    assert sum(float((16 - np.log2(f)).sum()) for part in early for _, f in part) < 0.1
    assert (1 + OFFSET) >> 2 == 0
    with pytest.raises(BundleError):
        LevelModel(np.zeros((1, 2), np.uint16), 1)
