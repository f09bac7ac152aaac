"""The model of values: golden values, round trips, causality, what is cut."""

from __future__ import annotations

import runpy
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.runtime.symbols import decoded
from tests.runtime.tiny_values import (
    FIRST_LEVELS,
    GOLDEN,
    LEVELS,
    SIZES,
    N,
    Tensors,
    copied,
    golden_model,
    kept,
    masked,
    read_golden,
    some_content,
)

from cwic import rans
from cwic.entropy_model import ContextModel
from cwic.errors import StreamError
from cwic.quantiser import LARGEST, ZERO
from cwic.scan import PASSES
from cwic.value_model import ValueModel
from cwic.value_network import ESCAPE, REACH


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden()


needs_c = pytest.mark.skipif("c" not in rans._BACKENDS, reason="cwic._rans is not built")
both = pytest.mark.parametrize("impl", [pytest.param("c", marks=needs_c), "numpy"])


# ---- Golden values --------------------------------------------------------------------------


def test_golden_file_is_what_its_script_makes() -> None:
    made = runpy.run_path(str(GOLDEN / "make_values.py"))
    assert made["text"]() == (GOLDEN / "values.json").read_text(encoding="ascii")


def test_the_golden_model_reaches_every_clip_and_symbol(golden: dict[str, Any]) -> None:
    """Else a wrong limit would go unseen."""
    rows, centres, symbols = (np.array(golden[k]) for k in ("rows", "centres", "symbols"))
    assert set((rows // 8).tolist()) == set(range(64))
    assert set((rows % 8).tolist()) == set(range(8))
    assert (centres.min(), centres.max()) == (-LARGEST, LARGEST)
    assert (symbols == 63).sum() > 100
    assert len(set(symbols.tolist())) > 40
    values = np.array(golden["values"])
    assert (values.min(), values.max()) == (-LARGEST, LARGEST)
    assert set(np.array(golden["map"]).reshape(-1).tolist()) == set(range(LEVELS + 1))


def test_golden_predictions(golden: dict[str, Any], value_model: ValueModel) -> None:
    levels = np.array(golden["map"], np.uint8)
    values = np.array(golden["values"], np.int8).reshape(N, -1)
    known, rows, centres, symbols = value_model.open(*levels.shape), [], [], []
    for step in value_model.steps():
        _, own, row, centre, _ = value_model._predicted(known, step, values, levels)
        rows += row.reshape(-1).tolist()
        centres += centre.reshape(-1).tolist()
        told = value_model._intervals(own, row, centre)[0]
        near = own - centre + REACH
        symbols += np.where(told, ESCAPE, near).reshape(-1).tolist()
    assert rows == golden["rows"]
    assert centres == golden["centres"]
    assert symbols == golden["symbols"]


@both
@pytest.mark.parametrize("progressive", [False, True])
def test_golden_streams(
    golden: dict[str, Any], tensors: Tensors, progressive: bool, impl: Any
) -> None:
    """A progressive stream has its values in plain order."""
    levels = np.array(golden["map"], np.uint8)
    codes = (np.array(golden["values"]) + ZERO).astype(np.uint8)
    model = ContextModel(tensors, golden["n"], golden["levels"])
    made = model.encode(codes, levels, progressive=progressive)
    decoders = []
    for part, lanes, name in ((made.levels, 1, "levels"), (made.codes, golden["lanes"], "codes")):
        data = rans.encode(part.starts, part.freqs, part.pass_sizes, lanes, implementation=impl)
        assert data.hex() == golden[f"{name}_section"]
        decoders.append(rans.Decoder(data, lanes, implementation=impl))
    first = model.decode_levels(decoders[0], *levels.shape, progressive=progressive)
    found = model.decode_codes(decoders[1], first, progressive=progressive)
    assert np.array_equal(found.levels, levels)
    assert np.array_equal(found.reached, np.array([0, 1, 3, 3, 4])[levels])
    assert np.array_equal(found.codes, masked(codes, levels))
    for decoder in decoders:
        decoder.finish()


# ---- Round trips ----------------------------------------------------------------------------


@given(
    st.integers(1, 24),
    st.integers(1, 24),
    st.integers(0, 999),
    st.sampled_from([1, 4, 64]),
    st.sampled_from([0.0, 1.0, 8.0, 1000.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_content_round_trips(
    height: int, width: int, seed: int, lanes: int, spread: float
) -> None:
    """Of most with a spread of 1000, the values are -127 and 127, and told by the escape."""
    model = golden_model()
    codes, levels = some_content((height, width), seed, spread)
    made = model.encode(codes, levels)
    assert np.array_equal(decoded(model, made.to_bytes(lanes), lanes, levels), codes)
    assert 0 not in made.pass_sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 17), (40, 1), (2, 2), (33, 18)])
def test_maps_of_one_value_round_trip(value_model: ValueModel, size: tuple[int, int]) -> None:
    for level, byte in product(range(LEVELS + 1), (1, 127, ZERO, 129, 255)):
        levels = np.full(size, level, np.uint8)
        codes = masked(np.full((N, *size), byte, np.uint8), levels)
        made = value_model.encode(codes, levels)
        found = decoded(value_model, made.to_bytes(2), 2, levels)
        assert np.array_equal(found, codes), (level, byte)


def test_every_value_round_trips_at_every_place(value_model: ValueModel) -> None:
    levels = np.full((16, 16), LEVELS, np.uint8)
    values = np.arange(256, dtype=np.uint8).clip(1)
    for turn in range(0, 256, 37):
        codes = np.tile(np.roll(values, turn).reshape(1, 16, 16), (N, 1, 1))
        codes[::2] = codes[::2, ::-1]
        made = value_model.encode(codes, levels)
        assert np.array_equal(decoded(value_model, made.to_bytes(1), 1, levels), codes)


def test_no_value_at_all(value_model: ValueModel) -> None:
    levels = np.zeros((3, 5), np.uint8)
    made = value_model.encode(np.full((N, 3, 5), 200, np.uint8), levels)
    assert len(made.freqs) == made.bits == 0
    assert made.pass_sizes == ()
    assert (decoded(value_model, made.to_bytes(2), 2, levels) == ZERO).all()
    assert value_model.count(value_model.groups_at[levels]) == 0


def test_groups_and_counts(value_model: ValueModel) -> None:
    assert value_model.groups_at.tolist() == [0, 1, 3, 3, 4]
    having = [(g, levels.tolist()) for g, levels in value_model.steps()]
    assert having == [
        (0, [False, True, True, True, True]),
        (1, [False, False, True, True, True]),
        (2, [False, False, True, True, True]),
        (3, [False, False, False, False, True]),
    ]
    levels = some_content((9, 13))[1]
    assert value_model.count(value_model.groups_at[levels]) == kept(levels).sum()
    assert value_model.count(np.arange(5, dtype=np.uint8)) == 0 + 1 + 4 + 6 + 8
    assert (value_model.channels, value_model.none) == (N, ZERO)
    assert value_model.typical_bits.tolist() == [0, 4, 30, 40, 60]


def test_what_is_left_out_costs_nothing_and_changes_nothing(value_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    noise = np.where(kept(levels), codes, codes + 55).astype(np.uint8)
    a, b = (value_model.encode(c, levels) for c in (codes, noise))
    assert np.array_equal(a.starts, b.starts)
    assert np.array_equal(a.freqs, b.freqs)


def places(levels: NDArray[np.uint8]) -> list[list[tuple[int, int]]]:
    """(channel, flat position) of the values of every pass with any, in coding order."""
    flat, found = levels.reshape(-1), []
    for g, size in enumerate(SIZES):
        for scan in PASSES:
            part = [
                (sum(SIZES[:g]) + j, int(position))
                for position in scan.positions(*levels.shape)
                if flat[position] >= FIRST_LEVELS[g]
                for j in range(size)
            ]
            if part:
                found.append(part)
    return found


def predictions(
    model: ValueModel, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Row and c of every value in coding order, [values, 2]."""
    known, found = model.open(*levels.shape), []
    for step in model.steps():
        _, _, row, centre, _ = model._predicted(known, step, model.symbols(codes), levels)
        found.append(np.stack([row.reshape(-1), centre.reshape(-1)], 1))
    return np.concatenate(found)


def test_a_value_changes_only_what_is_coded_in_later_passes(value_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    order = places(levels)
    ends = np.cumsum([len(part) for part in order])
    flat = [place for part in order for place in part]
    before = predictions(value_model, codes, levels)
    assert len(flat) == len(before)
    changed = 0
    for place in range(0, len(flat), 29):
        other = codes.reshape(N, -1).copy()
        other[flat[place]] ^= 37
        after = predictions(value_model, other.reshape(codes.shape), levels)
        end = ends[np.searchsorted(ends, place, side="right")]  # of the value's own pass
        assert np.array_equal(after[:end], before[:end])
        changed += not np.array_equal(after[end:], before[end:])
    assert changed > 20, "nobody looks at these values"


def test_bits_of_positions_are_those_of_the_stream(value_model: ValueModel) -> None:
    codes, levels = some_content((19, 21), spread=5)
    made = value_model.encode(codes, levels)
    bits = value_model.position_bits(codes, levels)
    assert bits.shape == (levels.size,)
    assert bits.sum() == pytest.approx(made.bits, rel=1e-6)
    assert not bits[levels.reshape(-1) == 0].any()
    assert (bits[levels.reshape(-1) > 0] > 0).all()
    assert 0 <= len(made.to_bytes(4)) - made.bits / 8 <= 4 * 5 + 0.01 * made.bits / 8


def test_an_escape_costs_8_bits_more(value_model: ValueModel) -> None:
    levels = np.ones((1, 1), np.uint8)
    codes = np.full((N, 1, 1), ZERO, np.uint8)
    codes[0] = 255
    made = value_model.encode(codes, levels)
    assert made.pass_sizes == (1, 1)
    assert (made.starts[1], made.freqs[1]) == (255 * 256, 256)
    assert value_model.position_bits(codes, levels)[0] == pytest.approx(made.bits, rel=1e-6)
    assert made.bits == pytest.approx(16 - np.log2(float(made.freqs[0])) + 8)


def test_what_it_costs_to_make_a_value_one_less_or_more(value_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    codes = masked(codes.clip(2, 254), levels)  # else there is no such value
    lower, higher, total = value_model.step_bits(codes, levels)
    before = value_model.encode(codes, levels)
    assert total == pytest.approx(before.bits, rel=1e-5)
    assert not lower[~kept(levels)].any()
    assert not higher[~kept(levels)].any()
    last = places(levels)[-1]  # no other value is predicted from these
    assert len(last) > 10
    for change, more in ((-1, lower), (1, higher)):
        for channel, position in last:
            other = codes.reshape(N, -1).copy()
            other[channel, position] = int(other[channel, position]) + change
            after = value_model.encode(other.reshape(codes.shape), levels)
            expected = after.bits - before.bits
            assert more.reshape(N, -1)[channel, position] == pytest.approx(expected, abs=1e-3)


def test_what_is_sent_is_that_of_the_quantiser(value_model: ValueModel) -> None:
    rng = np.random.default_rng(1)
    levels = some_content((7, 9))[1]
    codes = rng.integers(0, 256, (2 * N, 7, 9)).astype(np.uint8)
    codes[:N] = rng.integers(120, 136, (N, 7, 9))  # -8..8
    sent = value_model.sent(codes, levels)
    whole = (codes[:N].astype(int) << 8 | codes[N:]) - 32768
    steps = np.array([1, 2, 1, 0.5, 0.25])[levels]
    expected = np.rint(whole / 1024 / steps).clip(-LARGEST, LARGEST) * kept(levels) + ZERO
    assert np.array_equal(sent, expected)  # by powers of two float32 divides exactly
    assert (value_model.sent(codes, np.zeros_like(levels)) == ZERO).all()


def test_symbols_are_values(value_model: ValueModel) -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(N, 4, 8)
    assert np.array_equal(value_model.symbols(codes).reshape(-1), np.arange(256) - ZERO)


def test_a_position_without_its_first_values_is_shown_as_without_any(
    tensors: Tensors,
) -> None:
    levels = np.array([[0, 1, 2, 4, 4, 1]], np.uint8)
    reached = np.array([[0, 1, 2, 0, 3, 0]], np.uint8)
    model = ValueModel(tensors, N, LEVELS)
    assert model.shown(levels, reached).tolist() == [[0, 1, 2, 0, 4, 0]]
    later = copied(tensors)
    later["values.first_levels"][:] = [2, 2, 2, 4]
    model = ValueModel(later, N, LEVELS)  # whose level 1 has no value, and lacks none
    assert model.shown(levels, reached).tolist() == [[0, 1, 2, 0, 4, 1]]
    assert model.shown(levels, reached).dtype == np.uint8


# ---- Cut and damaged data -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spread", "progressive", "impl", "every", "fewest"),
    [
        pytest.param(1.0, False, "c", 1, 100, marks=needs_c),
        pytest.param(20.0, True, "c", 1, 36, marks=needs_c),
        (1.0, True, "numpy", 5, 30),
        (20.0, False, "numpy", 5, 25),
    ],
)
def test_what_is_available_grows_with_the_data(
    tensors: Tensors, spread: float, progressive: bool, impl: Any, every: int, fewest: int
) -> None:
    """Of every cut: the right values, as far as it goes, never less than of a shorter one."""
    model, (codes, levels) = (
        ContextModel(tensors, N, LEVELS),
        some_content((13, 17), spread=spread),
    )
    made = model.encode(codes, levels, progressive=progressive)
    data, head = made.codes.to_bytes(4), made.levels.to_bytes(1)
    first = model.decode_levels(rans.Decoder(head, 1), *levels.shape, progressive=progressive)
    groups = model.codes.groups_at[levels]
    before, steps = np.zeros_like(levels), set()
    group = np.repeat(np.arange(len(SIZES)), SIZES)[:, None, None]
    lengths = [*range(rans.head_bytes(4), len(data), 2 * every), len(data)]
    for length in lengths:
        found = model.decode_codes(
            rans.Decoder(data[:length], 4, implementation=impl),
            first,
            progressive=progressive,
            available=True,
        )
        assert (found.reached >= before).all()
        assert (found.reached <= groups).all()
        expected = np.where(group < found.reached, codes, ZERO)
        assert np.array_equal(found.codes, expected)
        steps.add(int(found.reached.sum(dtype=int)))
        before = found.reached
    assert np.array_equal(before, groups)
    assert np.array_equal(found.levels, levels)
    # Of a pass with an escape all that follows it waits for the words behind the pass.
    assert len(steps) > fewest


def test_a_cut_after_a_pass_but_within_its_escapes_keeps_what_comes_before(
    value_model: ValueModel,
) -> None:
    codes = np.full((N, 1, 40), ZERO, np.uint8)
    codes[0, 0, [20, 23, 37]] = 255
    levels = np.ones((1, 40), np.uint8)
    made = value_model.encode(codes, levels)
    data = made.to_bytes(1)
    counts = []
    for length in range(rans.head_bytes(1), len(data) + 1, 2):
        decoder, known = rans.Decoder(data[:length], 1), value_model.open(1, 40)
        got: list[int] = []
        try:
            for step in value_model.steps():
                for positions in value_model.decode_step(known, step, decoder, levels):
                    got += positions.tolist()
        except StreamError:
            assert length < len(data)
        assert np.array_equal(known.codes()[0, 0, got], codes[0, 0, got])
        counts.append(len(got))
    assert counts[-1] == 40
    assert all(a <= b for a, b in pairwise(counts))


def test_damaged_data_gives_values_or_an_error(value_model: ValueModel) -> None:
    codes, levels = some_content((9, 11), spread=5)
    codes = np.maximum(codes, 2)  # as a byte of its own the lowest value can be 0 as well as 1
    good = value_model.encode(codes, levels).to_bytes(2)
    refused, places = 0, range(0, 8 * len(good), 13)
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        try:
            found = decoded(value_model, bytes(bad), 2, levels)
        except StreamError:
            refused += 1
        else:
            assert not np.array_equal(found, codes)
    assert refused > len(places) / 3
    for length in [*range(0, len(good), 3), len(good) - 1]:
        with pytest.raises(StreamError):
            decoded(value_model, good[:length], 2, levels)


@pytest.mark.parametrize("seed", range(10))
def test_noise_gives_values_or_an_error(tensors: Tensors, seed: int) -> None:
    """A value beyond the largest, by a symbol or as a byte 0, counts as the largest."""
    rng = np.random.default_rng(seed)
    model, levels = ContextModel(tensors, N, LEVELS), some_content((9, 11), seed)[1]
    data = bytes([0, 0, 0, 1, 0]) * 4 + rng.bytes(int(rng.integers(0, 2000)) * 2)
    found = model.decode_codes(rans.Decoder(data, 4), levels, available=True)
    assert found.codes.min() >= ZERO - LARGEST
    assert np.array_equal(found.codes, masked(found.codes, levels))
    assert (found.reached <= model.codes.groups_at[levels]).all()


def test_an_escape_below_the_lowest_value_is_the_lowest(value_model: ValueModel) -> None:
    levels = np.ones((1, 1), np.uint8)
    made = value_model.encode(np.full((N, 1, 1), 255, np.uint8), levels)
    starts = made.starts.copy()
    starts[1] = 0  # the byte 0, which would be -128
    data = rans.encode(starts, made.freqs, made.pass_sizes, 1)
    assert decoded(value_model, data, 1, levels)[0, 0, 0] == ZERO - LARGEST
