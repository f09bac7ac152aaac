"""The model of values: golden values, round trips, causality, what is cut, damage."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save

from cwic import rans
from cwic.entropy_model import ContextModel
from cwic.errors import BundleError, StreamError
from cwic.quantiser import LARGEST, ZERO
from cwic.scan import PASSES
from cwic.value_model import ValueModel
from cwic.value_network import ESCAPE, REACH

Tensors: TypeAlias = dict[str, NDArray[Any]]
Content: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]

GOLDEN = Path(__file__).with_name("golden")
SIZES, FIRST_LEVELS = (1, 3, 2, 2), (1, 2, 2, 4)
N, LEVELS, HIDDEN = 8, 4, 6
SHARED = {
    "values.sizes": np.uint16,
    "values.first_levels": np.uint8,
    "values.steps": np.float32,
    "values.bits": np.float32,
    "values.features": np.uint8,
    "values.cumulative": np.uint16,
}
OF_A_GROUP = {
    "own": np.int8,
    "earlier": np.int8,
    "level": np.int32,
    "kind": np.int32,
    "middle": np.int8,
    "middle_bias": np.int32,
    "last": np.int8,
    "last_bias": np.int32,
    "line": np.int8,
}
DTYPES: dict[str, Any] = SHARED | {
    f"values.{g}.{name}": dtype for g in range(len(SIZES)) for name, dtype in OF_A_GROUP.items()
}
needs_c = pytest.mark.skipif("c" not in rans._BACKENDS, reason="cwic._rans is not built")
both = pytest.mark.parametrize("impl", [pytest.param("c", marks=needs_c), "numpy"])


@lru_cache
def read_golden() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((GOLDEN / "values.json").read_text())
    return values


def arrays(golden: dict[str, Any]) -> Tensors:
    tensors = {name: np.array(golden["tensors"][name], dtype) for name, dtype in DTYPES.items()}
    tensors["values.0.earlier"] = tensors["values.0.earlier"].reshape(0, HIDDEN)
    tensors["levels.frequencies"] = np.array(golden["tensors"]["levels.frequencies"], np.uint16)
    return tensors


@lru_cache
def golden_model() -> ValueModel:
    return ValueModel(arrays(read_golden()), N, LEVELS)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return read_golden()


@pytest.fixture(scope="module")
def tiny(golden: dict[str, Any]) -> Tensors:
    """The golden model: n = 8 in four groups, L = 4, six hidden units."""
    return arrays(golden)


@pytest.fixture(scope="module")
def tiny_model() -> ValueModel:
    return golden_model()


def copied(tensors: Tensors) -> Tensors:
    return {name: array.copy() for name, array in tensors.items()}


def kept(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which values the levels have, [n, h, w]."""
    return np.repeat(FIRST_LEVELS, SIZES)[:, None, None] <= levels


def masked(codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(kept(levels), codes, ZERO).astype(np.uint8)


def some_content(size: tuple[int, int], seed: int = 0, spread: float = 2.0) -> Content:
    """Values around 0, some of them far away, and levels."""
    rng = np.random.default_rng(seed)
    values = np.rint(rng.standard_t(1.5, (N, *size)) * spread).clip(-LARGEST, LARGEST)
    levels = rng.integers(0, LEVELS + 1, size).astype(np.uint8)
    return masked((values + ZERO).astype(np.uint8), levels), levels


def decoded(
    model: ValueModel, data: bytes, lanes: int, levels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    decoder, known = rans.Decoder(data, lanes), model.open(*levels.shape)
    for step in model.steps():
        for _ in model.decode_step(known, step, decoder, levels):
            pass
    decoder.finish()
    return known.codes()


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


def test_golden_predictions(golden: dict[str, Any], tiny_model: ValueModel) -> None:
    levels = np.array(golden["map"], np.uint8)
    values = np.array(golden["values"], np.int8).reshape(N, -1)
    known, rows, centres, symbols = tiny_model.open(*levels.shape), [], [], []
    for step in tiny_model.steps():
        _, own, row, centre, _ = tiny_model._predicted(known, step, values, levels)
        rows += row.reshape(-1).tolist()
        centres += centre.reshape(-1).tolist()
        told = tiny_model._intervals(own, row, centre)[0]
        near = own - centre + REACH
        symbols += np.where(told, ESCAPE, near).reshape(-1).tolist()
    assert rows == golden["rows"]
    assert centres == golden["centres"]
    assert symbols == golden["symbols"]


@both
@pytest.mark.parametrize("progressive", [False, True])
def test_golden_streams(
    golden: dict[str, Any], tiny: Tensors, progressive: bool, impl: Any
) -> None:
    """A progressive stream has its values in plain order."""
    levels = np.array(golden["map"], np.uint8)
    codes = (np.array(golden["values"]) + ZERO).astype(np.uint8)
    model = ContextModel(tiny, golden["n"], golden["levels"])
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
def test_maps_of_one_value_round_trip(tiny_model: ValueModel, size: tuple[int, int]) -> None:
    for level, byte in product(range(LEVELS + 1), (1, 127, ZERO, 129, 255)):
        levels = np.full(size, level, np.uint8)
        codes = masked(np.full((N, *size), byte, np.uint8), levels)
        made = tiny_model.encode(codes, levels)
        found = decoded(tiny_model, made.to_bytes(2), 2, levels)
        assert np.array_equal(found, codes), (level, byte)


def test_every_value_round_trips_at_every_place(tiny_model: ValueModel) -> None:
    levels = np.full((16, 16), LEVELS, np.uint8)
    values = np.arange(256, dtype=np.uint8).clip(1)
    for turn in range(0, 256, 37):
        codes = np.tile(np.roll(values, turn).reshape(1, 16, 16), (N, 1, 1))
        codes[::2] = codes[::2, ::-1]
        made = tiny_model.encode(codes, levels)
        assert np.array_equal(decoded(tiny_model, made.to_bytes(1), 1, levels), codes)


def test_no_value_at_all(tiny_model: ValueModel) -> None:
    levels = np.zeros((3, 5), np.uint8)
    made = tiny_model.encode(np.full((N, 3, 5), 200, np.uint8), levels)
    assert len(made.freqs) == made.bits == 0
    assert made.pass_sizes == ()
    assert (decoded(tiny_model, made.to_bytes(2), 2, levels) == ZERO).all()
    assert tiny_model.count(tiny_model.groups_at[levels]) == 0


def test_groups_and_counts(tiny_model: ValueModel) -> None:
    assert tiny_model.groups_at.tolist() == [0, 1, 3, 3, 4]
    having = [(g, levels.tolist()) for g, levels in tiny_model.steps()]
    assert having == [
        (0, [False, True, True, True, True]),
        (1, [False, False, True, True, True]),
        (2, [False, False, True, True, True]),
        (3, [False, False, False, False, True]),
    ]
    levels = some_content((9, 13))[1]
    assert tiny_model.count(tiny_model.groups_at[levels]) == kept(levels).sum()
    assert tiny_model.count(np.arange(5, dtype=np.uint8)) == 0 + 1 + 4 + 6 + 8
    assert (tiny_model.channels, tiny_model.none) == (N, ZERO)
    assert tiny_model.typical_bits.tolist() == [0, 4, 30, 40, 60]


def test_what_is_left_out_costs_nothing_and_changes_nothing(tiny_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    noise = np.where(kept(levels), codes, codes + 55).astype(np.uint8)
    a, b = (tiny_model.encode(c, levels) for c in (codes, noise))
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


def test_a_value_changes_only_what_is_coded_in_later_passes(tiny_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    order = places(levels)
    ends = np.cumsum([len(part) for part in order])
    flat = [place for part in order for place in part]
    before = predictions(tiny_model, codes, levels)
    assert len(flat) == len(before)
    changed = 0
    for place in range(0, len(flat), 29):
        other = codes.reshape(N, -1).copy()
        other[flat[place]] ^= 37
        after = predictions(tiny_model, other.reshape(codes.shape), levels)
        end = ends[np.searchsorted(ends, place, side="right")]  # of the value's own pass
        assert np.array_equal(after[:end], before[:end])
        changed += not np.array_equal(after[end:], before[end:])
    assert changed > 20, "nobody looks at these values"


def test_bits_of_positions_are_those_of_the_stream(tiny_model: ValueModel) -> None:
    codes, levels = some_content((19, 21), spread=5)
    made = tiny_model.encode(codes, levels)
    bits = tiny_model.position_bits(codes, levels)
    assert bits.shape == (levels.size,)
    assert bits.sum() == pytest.approx(made.bits, rel=1e-6)
    assert not bits[levels.reshape(-1) == 0].any()
    assert (bits[levels.reshape(-1) > 0] > 0).all()
    assert 0 <= len(made.to_bytes(4)) - made.bits / 8 <= 4 * 5 + 0.01 * made.bits / 8


def test_an_escape_costs_8_bits_more(tiny_model: ValueModel) -> None:
    levels = np.ones((1, 1), np.uint8)
    codes = np.full((N, 1, 1), ZERO, np.uint8)
    codes[0] = 255
    made = tiny_model.encode(codes, levels)
    assert made.pass_sizes == (1, 1)
    assert (made.starts[1], made.freqs[1]) == (255 * 256, 256)
    assert tiny_model.position_bits(codes, levels)[0] == pytest.approx(made.bits, rel=1e-6)
    assert made.bits == pytest.approx(16 - np.log2(float(made.freqs[0])) + 8)


def test_what_it_costs_to_make_a_value_one_less_or_more(tiny_model: ValueModel) -> None:
    codes, levels = some_content((19, 21))
    codes = masked(codes.clip(2, 254), levels)  # else there is no such value
    lower, higher, total = tiny_model.step_bits(codes, levels)
    before = tiny_model.encode(codes, levels)
    assert total == pytest.approx(before.bits, rel=1e-5)
    assert not lower[~kept(levels)].any()
    assert not higher[~kept(levels)].any()
    last = places(levels)[-1]  # no other value is predicted from these
    assert len(last) > 10
    for change, more in ((-1, lower), (1, higher)):
        for channel, position in last:
            other = codes.reshape(N, -1).copy()
            other[channel, position] = int(other[channel, position]) + change
            after = tiny_model.encode(other.reshape(codes.shape), levels)
            expected = after.bits - before.bits
            assert more.reshape(N, -1)[channel, position] == pytest.approx(expected, abs=1e-3)


def test_what_is_sent_is_that_of_the_quantiser(tiny_model: ValueModel) -> None:
    rng = np.random.default_rng(1)
    levels = some_content((7, 9))[1]
    codes = rng.integers(0, 256, (2 * N, 7, 9)).astype(np.uint8)
    codes[:N] = rng.integers(120, 136, (N, 7, 9))  # -8..8
    sent = tiny_model.sent(codes, levels)
    whole = (codes[:N].astype(int) << 8 | codes[N:]) - 32768
    steps = np.array([1, 2, 1, 0.5, 0.25])[levels]
    expected = np.rint(whole / 1024 / steps).clip(-LARGEST, LARGEST) * kept(levels) + ZERO
    assert np.array_equal(sent, expected)  # by powers of two float32 divides exactly
    assert (tiny_model.sent(codes, np.zeros_like(levels)) == ZERO).all()


def test_symbols_are_values(tiny_model: ValueModel) -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(N, 4, 8)
    assert np.array_equal(tiny_model.symbols(codes).reshape(-1), np.arange(256) - ZERO)


def test_a_position_without_its_first_values_is_shown_as_without_any(tiny: Tensors) -> None:
    levels = np.array([[0, 1, 2, 4, 4, 1]], np.uint8)
    reached = np.array([[0, 1, 2, 0, 3, 0]], np.uint8)
    model = ValueModel(tiny, N, LEVELS)
    assert model.shown(levels, reached).tolist() == [[0, 1, 2, 0, 4, 0]]
    later = copied(tiny)
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
    tiny: Tensors, spread: float, progressive: bool, impl: Any, every: int, fewest: int
) -> None:
    """Of every cut: the right values, as far as it goes, never less than of a shorter one."""
    model, (codes, levels) = ContextModel(tiny, N, LEVELS), some_content((13, 17), spread=spread)
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
    tiny_model: ValueModel,
) -> None:
    codes = np.full((N, 1, 40), ZERO, np.uint8)
    codes[0, 0, [20, 23, 37]] = 255
    levels = np.ones((1, 40), np.uint8)
    made = tiny_model.encode(codes, levels)
    data = made.to_bytes(1)
    counts = []
    for length in range(rans.head_bytes(1), len(data) + 1, 2):
        decoder, known = rans.Decoder(data[:length], 1), tiny_model.open(1, 40)
        got: list[int] = []
        try:
            for step in tiny_model.steps():
                for positions in tiny_model.decode_step(known, step, decoder, levels):
                    got += positions.tolist()
        except StreamError:
            assert length < len(data)
        assert np.array_equal(known.codes()[0, 0, got], codes[0, 0, got])
        counts.append(len(got))
    assert counts[-1] == 40
    assert all(a <= b for a, b in pairwise(counts))


def test_damaged_data_gives_values_or_an_error(tiny_model: ValueModel) -> None:
    codes, levels = some_content((9, 11), spread=5)
    codes = np.maximum(codes, 2)  # as a byte of its own the lowest value can be 0 as well as 1
    good = tiny_model.encode(codes, levels).to_bytes(2)
    refused, places = 0, range(0, 8 * len(good), 13)
    for place in places:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        try:
            found = decoded(tiny_model, bytes(bad), 2, levels)
        except StreamError:
            refused += 1
        else:
            assert not np.array_equal(found, codes)
    assert refused > len(places) / 3
    for length in [*range(0, len(good), 3), len(good) - 1]:
        with pytest.raises(StreamError):
            decoded(tiny_model, good[:length], 2, levels)


@pytest.mark.parametrize("seed", range(10))
def test_noise_gives_values_or_an_error(tiny: Tensors, seed: int) -> None:
    """A value beyond the largest, by a symbol or as a byte 0, counts as the largest."""
    rng = np.random.default_rng(seed)
    model, levels = ContextModel(tiny, N, LEVELS), some_content((9, 11), seed)[1]
    data = bytes([0, 0, 0, 1, 0]) * 4 + rng.bytes(int(rng.integers(0, 2000)) * 2)
    found = model.decode_codes(rans.Decoder(data, 4), levels, available=True)
    assert found.codes.min() >= ZERO - LARGEST
    assert np.array_equal(found.codes, masked(found.codes, levels))
    assert (found.reached <= model.codes.groups_at[levels]).all()


def test_an_escape_below_the_lowest_value_is_the_lowest(tiny_model: ValueModel) -> None:
    levels = np.ones((1, 1), np.uint8)
    made = tiny_model.encode(np.full((N, 1, 1), 255, np.uint8), levels)
    starts = made.starts.copy()
    starts[1] = 0  # the byte 0, which would be -128
    data = rans.encode(starts, made.freqs, made.pass_sizes, 1)
    assert decoded(tiny_model, data, 1, levels)[0, 0, 0] == ZERO - LARGEST


# ---- Damaged models -------------------------------------------------------------------------


def of(name: str, place: Any, value: float) -> Callable[[Tensors], None]:
    def damage(tensors: Tensors) -> None:
        tensors[f"values.{name}"][place] = value

    return damage


FORMS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "one less": lambda a: a[..., :-1],
    "one row more": lambda a: np.concatenate([a, np.zeros((1, *a.shape[1:]), a.dtype)]),
    "of another rank": lambda a: a[None],
    "a number": lambda a: a.reshape(-1)[:1].sum(dtype=a.dtype).reshape(()),
    "of doubles": lambda a: a.astype(np.float64),
    "of wider numbers": lambda a: a.astype(np.int64),
}


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "values.sizes"])
def test_a_missing_array_is_named(tiny: Tensors, name: str) -> None:
    values = {k: v for k, v in tiny.items() if k != name}
    with pytest.raises(BundleError, match=f"lacks {name}; export the model again$"):
        ContextModel(values, N, LEVELS)


def test_without_its_sizes_it_is_no_model_of_values(tiny: Tensors) -> None:
    values = {k: v for k, v in tiny.items() if k != "values.sizes"}
    with pytest.raises(BundleError, match="; export the model again$"):
        ContextModel(values, N, LEVELS)
    with pytest.raises(BundleError, match=r"lacks values\.sizes; export the model again$"):
        ValueModel(values, N, LEVELS)


@pytest.mark.parametrize("name", DTYPES)
def test_arrays_of_another_form_are_refused(tiny: Tensors, name: str) -> None:
    for form in FORMS.values():
        values = tiny | {name: form(tiny[name])}
        with pytest.raises(BundleError, match="; export the model again$") as error:
            ContextModel(values, N, LEVELS)
        assert "\n" not in str(error.value)


DAMAGE: dict[str, tuple[str, Callable[[Tensors], None]]] = {
    "sizes that are too few": ("sizes", of("sizes", 1, 2)),
    "sizes that are too many": ("sizes", of("sizes", 1, 4)),
    "a group of none": ("sizes", of("sizes", slice(None), [0, 4, 2, 2])),
    "first levels that fall": ("first_levels", of("first_levels", slice(None), [1, 3, 2, 4])),
    "a first level 0": ("first_levels", of("first_levels", 0, 0)),
    "a first level above L": ("first_levels", of("first_levels", 3, 5)),
    "a step 0": ("steps", of("steps", 2, 0)),
    "a negative step": ("steps", of("steps", 2, -1)),
    "a step that is no number": ("steps", of("steps", 4, np.nan)),
    "an infinite step": ("steps", of("steps", 1, np.inf)),
    "a step that float32 cannot invert": ("steps", of("steps", 4, 1e-42)),
    "a step below fixed point": ("steps", of("steps", 4, 0.9 / 1024)),
    "a step beyond every value": ("steps", of("steps", 1, 65)),
    "a step of level 0": ("steps", of("steps", 0, 1)),
    "bits that fall": ("bits", of("bits", 2, 41)),
    "bits that are no number": ("bits", of("bits", 2, np.nan)),
    "infinite bits": ("bits", of("bits", 4, np.inf)),
    "bits of level 0": ("bits", of("bits", 0, 1)),
    "no bits": ("bits", of("bits", slice(None), 0)),
    "a feature of 0": ("features", of("features", 0, 1)),
    "features that fall": ("features", of("features", 7, 0)),
    "a feature that is no int8": ("features", of("features", slice(100, None), 128)),
    "a table that does not begin at 0": ("cumulative", of("cumulative", (5, 0), 1)),
    "a table that falls": ("cumulative", of("cumulative", (5, 40), 0)),
    "a table that leaves the others nothing": ("cumulative", of("cumulative", (511, 63), 0)),
    "a table that is all for the others": ("cumulative", of("cumulative", 100, 0)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_arrays_are_refused(tiny: Tensors, case: str) -> None:
    values = copied(tiny)
    name, damage = DAMAGE[case]
    damage(values)
    with pytest.raises(BundleError, match=rf"values\.{name} is damaged; export the model again$"):
        ContextModel(values, N, LEVELS)


def test_no_group_is_refused(tiny: Tensors) -> None:
    values = tiny | {
        "values.sizes": np.zeros(0, np.uint16),
        "values.first_levels": np.zeros(0, np.uint8),
    }
    with pytest.raises(BundleError, match=r"values\.sizes is damaged; export the model again$"):
        ContextModel(values, N, LEVELS)


def test_more_groups_than_a_byte_counts_are_refused(tiny: Tensors) -> None:
    values = tiny | {
        "values.sizes": np.ones(256, np.uint16),
        "values.first_levels": np.ones(256, np.uint8),
    }
    with pytest.raises(BundleError, match=r"values\.sizes is damaged; export the model again$"):
        ContextModel(values, 256, LEVELS)


def test_a_network_without_hidden_units_is_refused(tiny: Tensors) -> None:
    values = tiny | {"values.0.middle": np.zeros((0, 0), np.int8)}
    with pytest.raises(BundleError, match=r"middle does not fit the model; export the model"):
        ContextModel(values, N, LEVELS)


@pytest.mark.parametrize(("n", "levels"), [(16, 4), (7, 4), (8, 5), (8, 3)])
def test_a_model_of_another_shape_is_refused(tiny: Tensors, n: int, levels: int) -> None:
    tensors = {k: v for k, v in tiny.items() if k != "levels.frequencies"}
    with pytest.raises(BundleError, match="; export the model again$"):
        ValueModel(tensors, n, levels)


def test_tables_at_their_limits_are_taken(tiny: Tensors) -> None:
    """All that is possible for the others, or next to nothing; steps at both ends."""
    values = copied(tiny)
    values["values.cumulative"][:256, 1:] = 1
    values["values.cumulative"][256:] = 0
    values["values.cumulative"][256:, 32:] = 65535
    values["values.steps"][1:] = [64, 1, 0.5, 1 / 1024]
    model, (codes, levels) = ValueModel(values, N, LEVELS), some_content((9, 11))
    data = model.encode(codes, levels).to_bytes(1)
    assert np.array_equal(decoded(model, data, 1, levels), codes)


def test_reading_is_the_inverse_of_safetensors(tiny: Tensors) -> None:
    codes, levels = some_content((9, 9))
    direct, read = ContextModel(tiny, N, LEVELS), ContextModel.from_bytes(save(tiny), N, LEVELS)
    assert isinstance(read.codes, ValueModel)
    a, b = (model.encode(codes, levels) for model in (direct, read))
    assert a.codes.to_bytes(2) == b.codes.to_bytes(2)
    assert a.levels.to_bytes(2) == b.levels.to_bytes(2)


# ---- Sums that float32 holds ----------------------------------------------------------------


INEXACT = {
    "a bias of the middle": of("1.middle_bias", 2, 1 << 24),
    "a negative one": of("0.middle_bias", 2, -(1 << 24)),
    "the lowest number": of("0.middle_bias", 0, -(1 << 31)),
    "a bias of the means": of("3.last_bias", 1, 1 << 24),
    "a bias of the places": of("3.last_bias", 3, -(1 << 24)),
    "a level": of("2.level", (4, 1), 1 << 20),
    "a level that cannot occur": of("2.level", (0, 1), 1 << 20),
    "a kind of pass": of("2.kind", (6, 0), -(1 << 20)),
}


@pytest.mark.parametrize("damage", INEXACT.values(), ids=INEXACT.keys())
def test_sums_that_float32_does_not_hold_are_refused(
    tiny: Tensors, damage: Callable[[Tensors], None]
) -> None:
    values = copied(tiny)
    damage(values)
    with pytest.raises(BundleError, match=r"can reach \d{8,}.*train the entropy model again$"):
        ContextModel(values, N, LEVELS)


@pytest.mark.parametrize("largest", [0, 1])
def test_the_bound_is_2_to_the_24(tiny: Tensors, largest: int) -> None:
    """The last sum that is exact is 2^24 - 1, with 255 on every hidden unit and the rounding."""
    values = copied(tiny)
    weights = 255 * np.abs(values["values.2.middle"].astype(int)).sum(0).max()
    values["values.2.middle_bias"][0] = (1 << 24) - 1 - 32 - weights + largest
    if largest:
        with pytest.raises(BundleError, match="can reach 16777216, more than float32"):
            ValueModel(values, N, LEVELS)
    else:
        ValueModel(values, N, LEVELS)


@pytest.mark.parametrize("above", [0, 1])
def test_sums_of_features_count_as_large_as_they_are(tiny: Tensors, above: int) -> None:
    """Three features for twelve neighbours, two for the eight positions around, in quarters."""
    values, g = copied(tiny), 2
    own, earlier, kind = (
        np.abs(values[f"values.{g}.{name}"].astype(int)) for name in ("own", "earlier", "kind")
    )
    inner, third = 12 * SIZES[g], len(earlier) // 3
    most = (own[:, :inner].sum(1) + 3 * own[:, inner:].sum(1)).max()
    most += (earlier[: 2 * third].sum(0) + 2 * earlier[2 * third :].sum(0)).max()
    most = int(values["values.features"].max()) * most + 16 * (kind.max() + 1)
    largest = ((1 << 24) - 1 - most) // 16
    values[f"values.{g}.level"][1, 0] = largest + above
    if above:
        with pytest.raises(BundleError, match="more than float32"):
            ValueModel(values, N, LEVELS)
    else:
        ValueModel(values, N, LEVELS)


def extreme_model(tiny: Tensors, sums: bool) -> Tensors:
    """Every weight at an end of its type; with ``sums`` next to the bound."""
    rng = np.random.default_rng(5)
    values = copied(tiny)
    values["values.features"][:] = np.minimum(np.arange(128), 127)
    most = {"level": 260_000, "kind": 260_000, "middle_bias": 16_500_000, "last_bias": 16_500_000}
    for g in range(len(SIZES)):
        for name in ("own", "earlier", "middle", "last", "line"):
            array = values[f"values.{g}.{name}"]
            array[...] = rng.choice(np.array([-128, 127], np.int8), array.shape)
        for name, end in most.items():
            array = values[f"values.{g}.{name}"]
            # Sums of the first layer are large: else nothing of what is added to them is seen.
            limit = end if sums else 20_000
            array[...] = rng.integers(-limit, limit, array.shape)
    return values


def literal(
    values: Tensors, g: int, kind: int, own: Any, earlier: Any, around: Any, level: int
) -> tuple[list[int], list[int]]:
    """The formulas in int64 for one position: rows and c."""
    prefix = f"values.{g}."
    t = {k.removeprefix(prefix): v.astype(np.int64) for k, v in values.items() if prefix in k}
    table = values["values.features"].astype(np.int64)

    def features(q: Any) -> Any:
        return table[np.abs(q)] * np.sign(q)

    def sums(q: Any) -> Any:
        return (table[np.abs(q)].sum(0) + 2) // 4

    size, last = SIZES[g], t["last_bias"]
    v = np.concatenate([features(earlier), table[np.abs(earlier)], sums(around)])
    z = 16 * (t["level"][level] + t["kind"][kind]) + 8 + v @ t["earlier"]
    line = np.zeros(size, np.int64)
    if kind < 6:
        u = np.concatenate([features(own.reshape(-1)), sums(own)])
        z = z + u @ t["own"][kind]
        line = (own * t["line"][kind]).sum(0)
    a1 = (z >> 4).clip(0, 255)
    a2 = ((a1 @ t["middle"] + t["middle_bias"] + 32) >> 6).clip(0, 255)
    z = (a2 @ t["last"] + last + 32) >> 6
    m = (2 * z[:size] + line + 4) >> 3
    rows = 8 * (((z[size:] + 2) >> 2) + 32).clip(0, 63) + m % 8
    return rows.tolist(), (m // 8).clip(-LARGEST, LARGEST).tolist()


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("model_of", ["noise", "extreme weights", "extreme sums"])
def test_float32_gives_what_whole_numbers_give(tiny: Tensors, kind: int, model_of: str) -> None:
    """At the bound too, where a rounded sum would be next to the right one."""
    values = tiny if model_of == "noise" else extreme_model(tiny, model_of == "extreme sums")
    model = ValueModel(values, N, LEVELS)
    rng = np.random.default_rng(kind)
    different = set()
    for g, size in enumerate(SIZES):
        first = sum(SIZES[:g])
        wide = rng.integers(0, 2, (200, 1, 1)) * 125 + 2  # rows of small values, and of any
        own = rng.integers(-wide, wide + 1, (200, 12, size)) * (kind < 6)
        own[:9] = np.sign(own[:9]) * LARGEST
        earlier = rng.integers(-wide[:, 0], wide[:, 0] + 1, (200, first))
        around = rng.integers(-wide, wide + 1, (200, 8, first))
        levels = rng.integers(FIRST_LEVELS[g], LEVELS + 1, 200).astype(np.uint8)
        parts = [model._features[part.astype(np.int8).view(np.uint8)] for part in (own, earlier)]
        sizes = np.abs(model._features[around.astype(np.int8).view(np.uint8)]).astype(int)
        far = ((sizes.sum(1) + 2) // 4).astype(np.uint8)
        group = model._groups[g]
        rows, centres = group.predicted(
            parts[0].reshape(-1, size),
            own.astype(np.int8).reshape(-1, size),
            np.arange(200 * 12).reshape(200, 12),
            group.of_earlier(parts[1], far),
            levels,
            [(kind, slice(None))],
        )
        for i in range(200):
            expected = literal(values, g, kind, own[i], earlier[i], around[i], int(levels[i]))
            assert (rows[i].tolist(), centres[i].tolist()) == expected
            different.add(str(expected))
    assert len(different) > (50 if kind < 6 else 3)  # the first pass has no neighbours


def test_features_of_every_value(tiny: Tensors, tiny_model: ValueModel) -> None:
    table = tiny["values.features"].astype(int)
    values = np.arange(-LARGEST, LARGEST + 1)
    found = tiny_model._features[values.astype(np.int8).view(np.uint8)]
    assert np.array_equal(found, np.sign(values) * table[np.abs(values)])
