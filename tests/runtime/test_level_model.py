"""The model of levels: contexts by hand, tables, round trips, damage."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cwic import rans
from cwic.errors import BundleError, StreamError, UsageError
from cwic.level_model import (
    LEVEL_SPREADS,
    Intervals,
    LevelModel,
    level_context,
    level_contexts,
)
from cwic.scan import KINDS, PASSES


@lru_cache
def _tables(levels: int, seed: int) -> NDArray[np.uint16]:
    weights = np.random.default_rng(seed).gamma(0.3, size=(level_contexts(levels), levels + 1))
    share = weights / weights.sum(1, keepdims=True) * (65535 - levels)
    whole = np.floor(share).astype(np.int64) + 1
    whole[np.arange(len(whole)), share.argmax(1)] += 65536 - whole.sum(1)
    return whole.astype(np.uint16)


def tables(levels: int, seed: int = 0) -> NDArray[np.uint16]:
    """Frequencies of every size, with ones among them."""
    return _tables(levels, seed).copy()


def some_map(levels: int, size: tuple[int, int], seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, levels + 1, size).astype(np.uint8)


def round_trip(model: LevelModel, levels: NDArray[np.uint8], lanes: int) -> bytes:
    data = model.encode(levels).to_bytes(lanes)
    decoder = rans.Decoder(data, lanes)
    assert np.array_equal(model.decode(decoder, *levels.shape), levels)
    decoder.finish()
    return data


@pytest.mark.parametrize(
    ("around", "mean", "spread"),
    [
        ([5, 5, 5, 5], 10, 0),
        ([0, 0, 0, 0], 0, 0),
        ([16, 16, 16, 16], 32, 0),
        ([1, 0, 0, 0], 1, 1),  # (2 * 1 + 2) // 4
        ([0, 0, 0, 2], 1, 2),
        ([3, 0, 0, 0], 2, 2),
        ([4, 0, 0, 0], 2, 3),
        ([16, 0, 16, 0], 16, 3),
        ([7, 7, 8, 8], 15, 1),
    ],
)
@pytest.mark.parametrize("number", [5, 7, 8])
def test_contexts_by_hand(number: int, around: list[int], mean: int, spread: int) -> None:
    """In the middle of a map, where all four near neighbours are."""
    scan, size = PASSES[number], (9, 9)
    positions = scan.positions(*size)
    inner = [p for p in positions.tolist() if 2 <= p // 9 <= 6 and 2 <= p % 9 <= 6][:1]
    neighbours = scan.neighbours(np.array(inner), *size)[:, :4]
    known = np.full(81, 255, np.uint8)
    known[neighbours[0]] = around
    rows = level_context(known, scan, neighbours, 16)
    assert rows.tolist() == [(scan.kind * 33 + mean) * 4 + spread]


def test_contexts_at_a_border_count_who_is_there() -> None:
    """A map of one row: only left and right are inside, at its end only left."""
    scan = PASSES[8]
    positions = scan.positions(1, 4)
    assert positions.tolist() == [1, 3]
    neighbours = scan.neighbours(positions, 1, 4)[:, :4]
    rows = level_context(np.array([3, 9, 6, 9], np.uint8), scan, neighbours, 16)
    # (2 * 9 + 1) // 2 = 9, spread of 3; (2 * 6 + 0) // 1 = 12, no spread
    assert rows.tolist() == [(33 + 9) * 4 + 2, (33 + 12) * 4]


def test_the_first_pass_has_one_context() -> None:
    scan = PASSES[0]
    positions = scan.positions(40, 40)
    rows = level_context(np.full(1600, 255, np.uint8), scan, scan.neighbours(positions, 40, 40), 16)
    assert set(rows.tolist()) == {6 * 33 * 4}


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 33)])
@pytest.mark.parametrize("levels", [1, 16, 255])
def test_contexts_use_only_what_is_decoded(size: tuple[int, int], levels: int) -> None:
    """The same from the whole map and from one whose unknown part is something else."""
    whole = some_map(levels, size).reshape(-1)
    known = levels - whole
    for scan in PASSES:
        positions = scan.positions(*size)
        nearest = scan.neighbours(positions, *size)[:, :4]
        rows = level_context(known, scan, nearest, levels)
        assert np.array_equal(rows, level_context(whole, scan, nearest, levels))
        assert rows.min(initial=0) >= 0
        assert rows.max(initial=0) < level_contexts(levels)
        known[positions] = whole[positions]


def test_number_of_contexts() -> None:
    assert level_contexts(16) == KINDS * 33 * LEVEL_SPREADS == 924


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (19, 21), (64, 96)])
@pytest.mark.parametrize("levels", [1, 4, 16, 255])
@pytest.mark.parametrize("lanes", [1, 8])
def test_round_trip(size: tuple[int, int], levels: int, lanes: int) -> None:
    model = LevelModel(tables(levels), levels)
    round_trip(model, some_map(levels, size), lanes)


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(0, 999),
)
@settings(max_examples=30, deadline=None)
def test_any_map_round_trips(height: int, width: int, levels: int, seed: int) -> None:
    model = LevelModel(tables(levels, seed), levels)
    round_trip(model, some_map(levels, (height, width), seed), 1)


def test_the_intervals_are_those_of_the_tables() -> None:
    frequencies = tables(4)
    model = LevelModel(frequencies, 4)
    levels = some_map(4, (19, 21))
    coded = model.encode(levels)
    assert len(coded.starts) == len(coded.freqs) == sum(coded.pass_sizes) == levels.size
    flat, at = levels.reshape(-1), 0
    for scan in PASSES:
        positions = scan.positions(19, 21)
        rows = level_context(flat, scan, scan.neighbours(positions, 19, 21)[:, :4], 4)
        for row, level in zip(rows, flat[positions], strict=True):
            assert coded.starts[at] == frequencies[row, :level].sum()
            assert coded.freqs[at] == frequencies[row, level]
            at += 1


def test_intervals_know_their_ideal_length() -> None:
    levels = some_map(16, (64, 96))
    coded = LevelModel(tables(16), 16).encode(levels)
    written = len(coded.to_bytes(1))
    assert coded.bits == pytest.approx(float((16 - np.log2(coded.freqs.astype(float))).sum()))
    assert 0 <= written - coded.bits / 8 <= 5 + 0.0005 * written


def test_intervals_are_joined_pass_by_pass() -> None:
    parts = [(np.arange(k, dtype=np.uint16), np.full(k, 7, np.uint16)) for k in (0, 3, 0, 2)]
    joined = Intervals.joined(parts)
    assert joined.pass_sizes == (0, 3, 0, 2)
    assert joined.starts.tolist() == [0, 1, 2, 0, 1]
    assert joined.bits == pytest.approx(5 * (16 - np.log2(7)))


def test_levels_beyond_the_highest_are_refused() -> None:
    with pytest.raises(UsageError, match="not one of 0 to 4"):
        LevelModel(tables(4), 4).encode(np.full((3, 3), 5, np.uint8))


def test_damaged_data_gives_a_map_or_an_error() -> None:
    model = LevelModel(tables(4), 4)
    good = round_trip(model, some_map(4, (9, 11)), 1)
    refused = 0
    for place in range(8 * len(good)):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        try:
            decoder = rans.Decoder(bytes(bad), 1)
            assert model.decode(decoder, 9, 11).max() <= 4
            decoder.finish()
        except StreamError:
            refused += 1
    assert refused > 4 * len(good)
    for length in range(len(good)):
        with pytest.raises(StreamError):
            model.decode(rans.Decoder(good[:length], 1), 9, 11)


DAMAGE: dict[str, tuple[Any, str]] = {
    "a sum above": (lambda t: t.__setitem__((3, 0), t[3, 0] + 1), "is damaged"),
    "a sum below": (lambda t: t.__setitem__((-1, t[-1].argmax()), 1), "is damaged"),
    "a zero": (lambda t: t.__setitem__((0, 0), 0), "is damaged"),
    "all zero": (lambda t: t.__imul__(0), "is damaged"),
    "a row less": (lambda t: t[1:], "does not fit"),
    "a column less": (lambda t: t[:, 1:], "does not fit"),
    "another rank": (lambda t: t.reshape(-1), "does not fit"),
    "a number": (lambda t: np.array(1, np.uint16), "does not fit"),
    "another type": (lambda t: t.astype(np.int32), "does not fit"),
    "floats": (lambda t: t.astype(np.float32), "does not fit"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_tables_are_refused(damage: Any, message: str) -> None:
    frequencies = tables(16)
    LevelModel(frequencies, 16)
    changed = damage(frequencies)
    with pytest.raises(BundleError, match=f"{message}.*; export the model again$"):
        LevelModel(frequencies if changed is None else changed, 16)


def test_tables_of_another_highest_level_are_refused() -> None:
    with pytest.raises(BundleError, match="does not fit the model; export the model again$"):
        LevelModel(tables(16), 8)
