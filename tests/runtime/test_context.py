"""The model of signs: golden values, round trips, causality, what is cut, damage."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load, save
from tests.runtime.symbols import decoded

import cwic
from cwic import rans
from cwic.context import CodeModel
from cwic.entropy_model import ContextModel
from cwic.errors import BundleError, StreamError
from cwic.level_model import LevelModel, level_context
from cwic.rate import levels_from_importance
from cwic.scan import PASSES

Tensors: TypeAlias = dict[str, NDArray[Any]]

GOLDEN = Path(__file__).with_name("golden")
DTYPES = {
    "levels.frequencies": np.uint16,
    "codes.own": np.int8,
    "codes.earlier": np.int8,
    "codes.level": np.int32,
    "codes.kind": np.int32,
    "codes.middle": np.int8,
    "codes.middle_bias": np.int32,
    "codes.last": np.int8,
    "codes.last_bias": np.int32,
    "codes.p1": np.uint16,
}
needs_c = pytest.mark.skipif("c" not in rans._BACKENDS, reason="cwic._rans is not built")
both = pytest.mark.parametrize("impl", [pytest.param("c", marks=needs_c), "numpy"])


@pytest.fixture(scope="module")
def codec(signs_codec: cwic.Codec) -> cwic.Codec:
    return signs_codec


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((GOLDEN / "context.json").read_text())
    return values


@pytest.fixture(scope="module")
def tiny(golden: dict[str, Any]) -> Tensors:
    """The golden model: n = 8, L = 4, three hidden units."""
    return {name: np.array(golden["tensors"][name], dtype) for name, dtype in DTYPES.items()}


@pytest.fixture(scope="module")
def tiny_model(tiny: Tensors) -> CodeModel:
    return CodeModel(tiny, 8, 4)


@pytest.fixture(scope="module")
def tensors(codec: cwic.Codec) -> Tensors:
    return load(codec.bundle.read("context.safetensors"))


def kept_bits(codes: NDArray[np.uint8], levels: NDArray[np.uint8], group: int) -> NDArray[np.bool_]:
    """Which bits of [n/8, h, w] the levels keep, [n, h, w]."""
    return np.arange(8 * len(codes))[:, None, None] < levels.astype(int) * group


def some_content(size: tuple[int, int], seed: int = 0) -> tuple[NDArray[np.uint8], ...]:
    """Codes and levels for the golden model."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (1, *size), np.uint8), rng.integers(0, 5, size).astype(np.uint8)


def coded(
    codec: cwic.Codec, picture: NDArray[np.uint8], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes and levels that the shipped network makes of a picture."""
    codes, importance = codec.runner.encode(picture[None])
    return codes[0], levels_from_importance(importance[0], scale, codec.bundle.levels)


# ---- Golden values --------------------------------------------------------------------------


def test_golden_file_is_what_its_script_makes() -> None:
    made = runpy.run_path(str(GOLDEN / "make_context.py"))
    assert made["text"]() == (GOLDEN / "context.json").read_text(encoding="ascii")


def test_the_golden_model_reaches_every_clip(golden: dict[str, Any]) -> None:
    """Else a wrong limit would go unseen."""
    p1 = np.array(golden["p1"])
    assert p1.min() == golden["tensors"]["codes.p1"][0]
    assert p1.max() == golden["tensors"]["codes.p1"][-1]
    assert len(np.unique(p1)) > 300
    levels = np.array(golden["map"])
    assert set(levels.reshape(-1).tolist()) == set(range(5))
    assert all(len(scan.positions(*levels.shape)) for scan in PASSES)


def test_golden_contexts_of_levels(golden: dict[str, Any]) -> None:
    levels = np.array(golden["map"], np.uint8)
    rows = []
    for scan in PASSES:
        nearest = scan.neighbours(scan.positions(*levels.shape), *levels.shape)[:, :4]
        rows += level_context(levels.reshape(-1), scan, nearest, 4).tolist()
    assert rows == golden["rows"]


def test_golden_probabilities(golden: dict[str, Any], tiny_model: CodeModel) -> None:
    """Of all ones and of all zeros: an interval's width is p1, and 65536 - p1."""
    levels = np.array(golden["map"], np.uint8)
    codes = np.packbits(np.array(golden["bits"], np.uint8), axis=0)
    coded = tiny_model.encode(codes, levels)
    ones = coded.starts + coded.freqs.astype(int) == 65536  # a 1 owns the upper end
    p1 = np.where(ones, coded.freqs, 65536 - coded.freqs.astype(int))
    assert p1.tolist() == golden["p1"]
    kept = kept_bits(codes, levels, 2)
    assert ones.sum() == (np.array(golden["bits"], bool) & kept).sum()


@both
@pytest.mark.parametrize("order", ["", "progressive_"], ids=["plain", "progressive"])
def test_golden_streams(golden: dict[str, Any], tiny: Tensors, order: str, impl: Any) -> None:
    levels = np.array(golden["map"], np.uint8)
    bits = np.array(golden["bits"], np.uint8)
    model, progressive = ContextModel(tiny, golden["n"], golden["levels"]), bool(order)
    made = model.encode(np.packbits(bits, axis=0), levels, progressive=progressive)
    decoders = []
    for part, lanes, name in ((made.levels, 1, "levels"), (made.codes, golden["lanes"], "codes")):
        data = rans.encode(part.starts, part.freqs, part.pass_sizes, lanes, implementation=impl)
        assert data.hex() == golden[f"{order}{name}_section"]
        decoders.append(rans.Decoder(data, lanes, implementation=impl))
    first = model.decode_levels(decoders[0], *levels.shape, progressive=progressive)
    found = model.decode_codes(decoders[1], first, progressive=progressive)
    assert np.array_equal(found.levels, levels)
    assert np.array_equal(found.reached, levels)
    kept = kept_bits(found.codes, levels, golden["n"] // golden["levels"])
    assert np.array_equal(np.unpackbits(found.codes, axis=0), bits * kept)
    for decoder in decoders:
        decoder.finish()


# ---- Round trips ----------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("lanes", [1, 8])
def test_codes_and_levels_round_trip(
    codec: cwic.Codec, photo: NDArray[np.uint8], scale: float, lanes: int
) -> None:
    codes, levels = coded(codec, photo[:120, :200], scale)
    model = codec.context
    decoder = rans.Decoder(model.levels.encode(levels).to_bytes(lanes), lanes)
    assert np.array_equal(model.levels.decode(decoder, *levels.shape), levels)
    decoder.finish()
    made = model.codes.encode(codes, levels)
    restored = decoded(model.codes, made.to_bytes(lanes), lanes, levels)
    kept = kept_bits(codes, levels, codec.bundle.n // codec.bundle.levels)
    assert np.array_equal(np.unpackbits(restored, axis=0), np.unpackbits(codes, axis=0) * kept)
    assert len(made.freqs) == sum(made.pass_sizes) == kept.sum()


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 999), st.sampled_from([1, 4, 64]))
@settings(max_examples=40, deadline=None)
def test_any_content_round_trips(height: int, width: int, seed: int, lanes: int) -> None:
    values = json.loads((GOLDEN / "context.json").read_text())["tensors"]
    model = CodeModel({k: np.array(values[k], d) for k, d in DTYPES.items()}, 8, 4)
    codes, levels = some_content((height, width), seed)
    restored = decoded(model, model.encode(codes, levels).to_bytes(lanes), lanes, levels)
    kept = np.packbits(kept_bits(codes, levels, 2), axis=0)
    assert np.array_equal(restored, codes & kept)


def test_no_code_at_all(tiny_model: CodeModel) -> None:
    levels = np.zeros((3, 5), np.uint8)
    made = tiny_model.encode(np.full((1, 3, 5), 255, np.uint8), levels)
    assert len(made.freqs) == 0
    assert made.bits == 0
    assert not decoded(tiny_model, made.to_bytes(2), 2, levels).any()


def test_masked_codes_cost_nothing_and_change_nothing(
    codec: cwic.Codec, photo: NDArray[np.uint8]
) -> None:
    codes, levels = coded(codec, photo[:64, :64], 0.4)
    masked = ~kept_bits(codes, levels, codec.bundle.n // codec.bundle.levels)
    noise = np.packbits(np.unpackbits(codes, axis=0) ^ masked, axis=0)
    assert not np.array_equal(noise, codes)
    a, b = (codec.context.codes.encode(c, levels) for c in (codes, noise))
    assert np.array_equal(a.starts, b.starts)
    assert np.array_equal(a.freqs, b.freqs)


def in_order(levels: NDArray[np.uint8], group: int) -> list[tuple[int, int]]:
    """(channel, flat position) of every kept bit in coding order."""
    flat, found = levels.reshape(-1), []
    for g in range(4):
        for scan in PASSES:
            for position in scan.positions(*levels.shape):
                if flat[position] > g:
                    found += [(g * group + j, int(position)) for j in range(group)]
    return found


def test_a_bit_changes_only_what_is_coded_in_later_passes(tiny_model: CodeModel) -> None:
    codes, levels = some_content((19, 21))
    order = in_order(levels, 2)
    before = tiny_model.encode(codes, levels)
    ends = np.cumsum(before.pass_sizes)
    changed = 0
    for place in range(0, len(order), 40):
        bits = np.unpackbits(codes, axis=0).reshape(8, -1)
        bits[order[place]] ^= 1
        after = tiny_model.encode(np.packbits(bits, axis=0).reshape(codes.shape), levels)
        assert after.pass_sizes == before.pass_sizes
        end = ends[np.searchsorted(ends, place, side="right")]  # of the bit's own pass
        same = (after.starts == before.starts) & (after.freqs == before.freqs)
        assert not same[place]
        assert same[:end].sum() == end - 1
        changed += not same[end:].all()
    assert changed > 10, "nobody looks at these bits"


def test_the_model_saves_bits_on_a_photograph(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    codes, levels = coded(codec, photo, 0.4)
    made = codec.context.codes.encode(codes, levels)
    assert made.bits < 0.97 * len(made.freqs)
    flat = np.log2(codec.bundle.levels + 1) * levels.size
    assert codec.context.levels.encode(levels).bits < 0.8 * flat


def test_intervals_know_their_ideal_length(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    made = codec.context.codes.encode(*coded(codec, photo, 0.4))
    assert 0 <= len(made.to_bytes(8)) - made.bits / 8 <= 8 * 5 + 0.0005 * made.bits / 8


def test_what_it_costs_to_turn_a_code(tiny_model: CodeModel) -> None:
    codes, levels = some_content((19, 21))
    more, total = tiny_model.turning_bits(codes, levels)
    before = tiny_model.encode(codes, levels)
    assert total == pytest.approx(before.bits, rel=1e-5)
    assert not more[~kept_bits(codes, levels, 2)].any()
    last = in_order(levels, 2)[-before.pass_sizes[-1] :]  # no other code is predicted from these
    assert len(last) > 10
    for channel, position in last:
        bits = np.unpackbits(codes, axis=0).reshape(8, -1)
        bits[channel, position] ^= 1
        after = tiny_model.encode(np.packbits(bits, axis=0).reshape(codes.shape), levels)
        expected = after.bits - before.bits
        assert more.reshape(8, -1)[channel, position] == pytest.approx(expected, abs=1e-3)


# ---- Cut and damaged data -------------------------------------------------------------------


@pytest.mark.parametrize("progressive", [False, True])
def test_what_is_available_grows_with_the_data(tiny: Tensors, progressive: bool) -> None:
    """Of every cut: the right bits, as far as it goes, never less than of a shorter one."""
    model, (codes, levels) = ContextModel(tiny, 8, 4), some_content((19, 21))
    made = model.encode(codes, levels, progressive=progressive)
    data, head = made.codes.to_bytes(4), made.levels.to_bytes(1)
    first = model.decode_levels(rans.Decoder(head, 1), *levels.shape, progressive=progressive)
    whole = codes & np.packbits(kept_bits(codes, levels, 2), axis=0)
    before, steps = np.zeros_like(levels), set()
    for length in range(rans.head_bytes(4), len(data) + 1, 2):
        found = model.decode_codes(
            rans.Decoder(data[:length], 4), first, progressive=progressive, available=True
        )
        assert (found.reached >= before).all()
        assert (found.reached <= levels).all()
        expected = whole & np.packbits(kept_bits(codes, found.reached, 2), axis=0)
        assert np.array_equal(found.codes, expected)
        steps.add(int(found.reached.sum()))
        before = found.reached
    assert np.array_equal(before, levels)
    assert np.array_equal(found.levels, levels)
    # 16-bit words hold some twenty bits each at these probabilities, a position has two.
    assert len(steps) > 0.7 * (len(data) - rans.head_bytes(4)) / 2


def test_damaged_data_gives_codes_or_an_error(tiny_model: CodeModel) -> None:
    codes, levels = some_content((9, 11))
    good = tiny_model.encode(codes, levels).to_bytes(2)
    refused = 0
    for place in range(0, 8 * len(good), 3):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        try:
            assert not np.array_equal(decoded(tiny_model, bytes(bad), 2, levels), codes)
        except StreamError:
            refused += 1
    assert refused > len(good)
    for length in range(len(good)):
        with pytest.raises(StreamError):
            decoded(tiny_model, good[:length], 2, levels)


# ---- Damaged models -------------------------------------------------------------------------


def of(name: str, change: Callable[[NDArray[Any]], Any]) -> Callable[[Tensors], None]:
    """Change one array in place, or put another in its place."""

    def damage(tensors: Tensors) -> None:
        changed = change(tensors[name])
        if changed is not None:
            tensors[name] = changed

    return damage


def put(place: Any, value: int) -> Callable[[NDArray[Any]], None]:
    return lambda array: array.__setitem__(place, value)


NAMES = [name for name in DTYPES if name.startswith("codes.")]
FORMS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "one less": lambda a: a[..., :-1],
    "one row less": lambda a: a[1:],
    "of another rank": lambda a: a[None],
    "a number": lambda a: a.reshape(-1)[0],
    "empty": lambda a: a[:0],
    "of floats": lambda a: a.astype(np.float32),
    "of wider numbers": lambda a: a.astype(np.int64),
    "of bytes": lambda a: a.astype(np.uint8),
}


@pytest.mark.parametrize("name", DTYPES)
def test_a_missing_array_is_named(tiny: Tensors, name: str) -> None:
    values = {k: v for k, v in tiny.items() if k != name}
    with pytest.raises(BundleError, match=f"lacks {name}; export the model again$"):
        ContextModel(values, 8, 4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_another_form_are_refused(tiny: Tensors, name: str, form: str) -> None:
    values = dict(tiny) | {name: FORMS[form](tiny[name])}
    with pytest.raises(BundleError, match="does not fit the model; export the model again$"):
        ContextModel(values, 8, 4)


def test_a_network_without_hidden_units_is_refused(tiny: Tensors) -> None:
    cut = {"own": 3, "earlier": 2, "level": 2, "kind": 2, "middle_bias": 1}
    values = dict(tiny)
    for name, axis in cut.items():
        values[f"codes.{name}"] = tiny[f"codes.{name}"].take([], axis)
    values["codes.middle"] = tiny["codes.middle"][:, :0, :0]
    values["codes.last"] = tiny["codes.last"][:, :0]
    with pytest.raises(BundleError, match="; export the model again$"):
        ContextModel(values, 8, 4)


@pytest.mark.parametrize(
    "change",
    [put(0, 0), put(400, 0), put(slice(None), 0), put(400, 1), put(-1, 2), put(0, 65535)],
)
def test_a_table_of_probabilities_that_falls_or_holds_0_is_refused(
    tiny: Tensors, change: Callable[[NDArray[Any]], None]
) -> None:
    values = {k: v.copy() for k, v in tiny.items()}
    change(values["codes.p1"])
    with pytest.raises(BundleError, match=r"codes.p1 is damaged; export the model again$"):
        ContextModel(values, 8, 4)


INEXACT = {
    "a bias of the middle": of("codes.middle_bias", put((1, 2), 1 << 24)),
    "a negative one": of("codes.middle_bias", put((1, 2), -(1 << 24))),
    "the lowest number": of("codes.middle_bias", put((0, 0), -(1 << 31))),
    "a bias of the logits": of("codes.last_bias", put((3, 1), 1 << 24)),
    "a level": of("codes.level", put((2, 4, 1), 1 << 24)),
    "a level that cannot occur": of("codes.level", put((2, 0, 1), 1 << 24)),
    "a kind of pass": of("codes.kind", put((6, 0, 0), -(1 << 24))),
}


@pytest.mark.parametrize("damage", INEXACT.values(), ids=INEXACT.keys())
def test_sums_that_float32_does_not_hold_are_refused(
    tiny: Tensors, damage: Callable[[Tensors], None]
) -> None:
    values = {k: v.copy() for k, v in tiny.items()}
    damage(values)
    with pytest.raises(BundleError, match=r"can reach \d{8,}.*train the entropy model again$"):
        ContextModel(values, 8, 4)


@pytest.mark.parametrize("largest", [0, 1])
def test_the_bound_is_2_to_the_24(tiny: Tensors, largest: int) -> None:
    """The last sum that is exact is 2^24 - 1, with 255 on every hidden unit and the rounding."""
    values = {k: v.copy() for k, v in tiny.items()}
    weights = 255 * np.abs(values["codes.middle"][2].astype(int)).sum(0).max()
    values["codes.middle_bias"][2, 0] = (1 << 24) - 1 - 32 - weights + largest
    if largest:
        with pytest.raises(BundleError, match="can reach 16777216, more than float32"):
            CodeModel(values, 8, 4)
    else:
        CodeModel(values, 8, 4)


def extreme_model(tiny: Tensors) -> Tensors:
    """Sums next to the bound, with every weight at an end of its type."""
    rng = np.random.default_rng(5)
    values = {k: v.copy() for k, v in tiny.items()}
    for name in ("own", "earlier", "middle", "last"):
        array = values[f"codes.{name}"]
        array[...] = rng.choice(np.array([-128, 127], np.int8), array.shape)
    for name in ("level", "kind", "middle_bias", "last_bias"):
        array = values[f"codes.{name}"]
        array[...] = rng.integers(-8_300_000, 8_300_000, array.shape)
    return values


def literal_index(values: Tensors, g: int, kind: int, own: Any, earlier: Any, level: int) -> Any:
    """The formulas in int64 for one position."""
    t = {k.removeprefix("codes."): v.astype(np.int64) for k, v in values.items()}
    z = t["level"][g, level] + t["kind"][kind, g] + earlier @ t["earlier"][g, : 2 * g]
    if kind < 6:
        z = z + own @ t["own"][kind, g]
    a1 = z.clip(0, 255)
    a2 = ((a1 @ t["middle"][g] + t["middle_bias"][g] + 32) >> 6).clip(0, 255)
    return ((a2 @ t["last"][g] + t["last_bias"][g] + 32) >> 6).clip(-384, 383) + 384


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("small", [True, False])
def test_float32_gives_what_whole_numbers_give(tiny: Tensors, kind: int, small: bool) -> None:
    """At the bound too, where a rounded sum would be next to the right one."""
    values = extreme_model(tiny)
    if small:  # then the logits are not all clipped
        for name in ("level", "kind", "middle_bias", "last_bias"):
            values[f"codes.{name}"] %= 4001
    model = CodeModel(values, 8, 4)
    rng = np.random.default_rng(kind)
    for g in range(4):
        own = rng.integers(-1, 2, (200, 24)) * (kind < 6)
        earlier = rng.choice([-1, 1], (200, 2 * g))
        levels = rng.integers(g + 1, 5, 200).astype(np.uint8)
        inputs = np.concatenate([own, earlier], 1).astype(np.float32)
        index = model._groups[g].logits(inputs, levels, [(kind, slice(None))])
        for row, u, v, level in zip(index, own, earlier, levels, strict=True):
            assert row.tolist() == literal_index(values, g, kind, u, v, int(level)).tolist()


@pytest.mark.parametrize("data", [b"", b"no", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_bytes_that_are_no_tables_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="; export the model again$"):
        ContextModel.from_bytes(data, 128, 16)


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("BOOL", 1), ("F16", 2)])
def test_arrays_of_foreign_types_are_refused(dtype: str, size: int) -> None:
    header = {"codes.p1": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}
    text = json.dumps(header).encode()
    with pytest.raises(BundleError, match="; export the model again$"):
        ContextModel.from_bytes(len(text).to_bytes(8, "little") + text + bytes(2 * size), 8, 4)


@pytest.mark.parametrize(("n", "levels"), [(128, 32), (128, 8), (64, 16), (256, 16)])
def test_a_model_of_another_shape_is_refused(tensors: Tensors, n: int, levels: int) -> None:
    with pytest.raises(BundleError, match="does not fit"):
        ContextModel.from_bytes(save(tensors), n, levels)


def test_reading_is_the_inverse_of_safetensors(tiny: Tensors) -> None:
    codes, levels = some_content((9, 9))
    direct, read = ContextModel(tiny, 8, 4), ContextModel.from_bytes(save(tiny), 8, 4)
    assert isinstance(read.levels, LevelModel)
    for a, b in (
        (direct.codes.encode(codes, levels), read.codes.encode(codes, levels)),
        (direct.levels.encode(levels), read.levels.encode(levels)),
    ):
        assert a.to_bytes(2) == b.to_bytes(2)
