"""The entropy model: passes, integer tables, damage; with the shipped tables."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load, save

import cwic
from cwic import rans
from cwic.context import ContextModel, level_context, level_contexts, level_passes
from cwic.errors import BundleError
from cwic.rate import levels_from_importance


def tensors(codec: cwic.Codec) -> dict[str, NDArray[np.generic]]:
    return load(codec.bundle.read("context.safetensors"))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (16, 16), (17, 31), (64, 96)])
def test_level_passes_visit_every_position_once(size: tuple[int, int]) -> None:
    visits = np.zeros(size, int)
    for scan in level_passes(*size):
        visits[scan.rows, scan.columns] += 1
    assert (visits == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (40, 33)])
def test_level_contexts_use_only_what_is_decoded(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 17, size).astype(np.uint8)
    known = np.full(size, 255, np.uint8)  # a context from an unknown level would be out of range
    for scan in level_passes(*size):
        context = level_context(known, scan, 16)
        assert np.array_equal(context, level_context(levels, scan, 16))
        assert context.min(initial=0) >= 0
        assert context.max(initial=0) < level_contexts(16)
        known[scan.rows, scan.columns] = levels[scan.rows, scan.columns]


def coded(
    codec: cwic.Codec, picture: NDArray[np.uint8], scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    codes, importance = codec.runner.encode(picture[None])
    return codes[0], levels_from_importance(importance[0], scale, codec.bundle.levels)


@pytest.mark.parametrize("scale", [0.0, 0.1, 0.5, 3.0, 100.0])
@pytest.mark.parametrize("lanes", [1, 8])
def test_codes_and_levels_round_trip(
    codec: cwic.Codec, photo: NDArray[np.uint8], scale: float, lanes: int
) -> None:
    codes, levels = coded(codec, photo[:120, :200], scale)
    model = codec.context
    first, second = model.encode_levels(levels), model.encode_codes(codes, levels)
    data = [rans.encode(i.starts, i.freqs, i.pass_sizes, lanes) for i in (first, second)]
    decoder = rans.Decoder(data[0], lanes)
    assert np.array_equal(model.decode_levels(decoder, *levels.shape), levels)
    decoder.finish()
    decoder = rans.Decoder(data[1], lanes)
    restored = model.decode_codes(decoder, levels)
    decoder.finish()
    group = codec.bundle.n // codec.bundle.levels
    kept = np.arange(codec.bundle.n)[:, None, None] < levels.astype(int) * group
    assert np.array_equal(np.unpackbits(restored, axis=0), np.unpackbits(codes, axis=0) * kept)
    assert len(second.freqs) == kept.sum()


def test_masked_codes_cost_nothing_and_change_nothing(
    codec: cwic.Codec, photo: NDArray[np.uint8]
) -> None:
    codes, levels = coded(codec, photo[:64, :64], 0.4)
    group = codec.bundle.n // codec.bundle.levels
    masked = np.arange(codec.bundle.n)[:, None, None] >= levels.astype(int) * group
    noise = np.packbits(np.unpackbits(codes, axis=0) ^ masked, axis=0)
    assert not np.array_equal(noise, codes)
    a, b = (codec.context.encode_codes(c, levels) for c in (codes, noise))
    assert np.array_equal(a.starts, b.starts)
    assert np.array_equal(a.freqs, b.freqs)


def test_the_tables_save_bits_on_a_photograph(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    codes, levels = coded(codec, photo, 0.4)
    kept = codec.context.encode_codes(codes, levels)
    assert kept.bits < 0.95 * len(kept.freqs)
    flat = np.log2(codec.bundle.levels + 1) * levels.size
    assert codec.context.encode_levels(levels).bits < 0.6 * flat


def test_intervals_know_their_ideal_length(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    codes, levels = coded(codec, photo, 0.4)
    kept = codec.context.encode_codes(codes, levels)
    written = len(rans.encode(kept.starts, kept.freqs, kept.pass_sizes, 8))
    assert 0 <= written - kept.bits / 8 <= 8 * 5 + 0.0005 * written


DAMAGE = {
    "no levels": lambda t: t.pop("levels.frequencies"),
    "no neighbours": lambda t: t.pop("codes.neighbours"),
    "rows that do not sum": lambda t: t["levels.frequencies"].__setitem__((0, 0), 60000),
    "zero frequency": lambda t: t["levels.frequencies"].__setitem__((0, 0), 0),
    "probability 0": lambda t: t["codes.p1"].__setitem__((3, 0), 0),
    "a later channel": lambda t: t["codes.neighbours"].__setitem__((9, 0, 0), 8),
    "its own group": lambda t: t["codes.neighbours"].__setitem__((0, 0, 0), 0),
    "a far neighbour": lambda t: t["codes.neighbours"].__setitem__((9, 0, 1), 2),
    "other type": lambda t: t.update({"codes.p1": t["codes.p1"].astype(np.int32)}),
    "other shape": lambda t: t.update({"codes.p1": t["codes.p1"][:, :-1]}),
    "other rank": lambda t: t.update({"codes.neighbours": t["codes.neighbours"][0]}),
    "too few contexts": lambda t: t.update({"levels.frequencies": t["levels.frequencies"][1:]}),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_tables_are_refused(codec: cwic.Codec, damage: object) -> None:
    values = tensors(codec)
    ContextModel(values, codec.bundle.n, codec.bundle.levels)
    damage(values)  # type: ignore[operator]
    with pytest.raises(BundleError, match="export the model again$"):
        ContextModel(values, codec.bundle.n, codec.bundle.levels)


@pytest.mark.parametrize("data", [b"", b"no", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_bytes_that_are_no_tables_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match="export the model again$"):
        ContextModel.from_bytes(data, 128, 16)


def test_tables_of_another_model_are_refused(codec: cwic.Codec) -> None:
    with pytest.raises(BundleError, match="do not fit"):
        ContextModel.from_bytes(save(tensors(codec)), codec.bundle.n, codec.bundle.levels * 2)
