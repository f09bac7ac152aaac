"""The context network as ONNX: every probability is that of the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import cwic
from cwic import rans
from cwic.context import LOGITS, CodeModel
from cwic.entropy_model import read_tensors
from cwic.errors import BundleError
from cwic.image import open_rgb
from cwic.rate import levels_from_importance
from cwic.scan import KINDS, NEIGHBOURS, PASSES
from cwic_export.context_onnx import to_bytes, to_model
from cwic_export.onnx import IR_VERSION, OPSET

Tensors: TypeAlias = dict[str, NDArray[Any]]
Intervals: TypeAlias = tuple[NDArray[np.uint16], NDArray[np.uint16]]

ASSETS = Path(__file__).parents[2] / "assets"
LARGEST_SUM = (1 << 24) - 1


def session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def random_tensors(
    seed: int, n: int, levels: int, hidden: int, largest: int, *, extreme: bool = False
) -> Tensors:
    """A model with weights up to ``largest``; if ``extreme``, all of exactly that size.

    Half of the biases of an extreme model bring sums to the bound.
    """
    rng = np.random.default_rng(seed)
    c = n // levels

    def weights(*shape: int) -> NDArray[np.int8]:
        if extreme:
            return (largest * rng.choice([-1, 1], shape)).astype(np.int8)
        return rng.integers(-largest, largest + 1, shape).astype(np.int8)

    def biases(largest_product: int, *shape: int) -> NDArray[np.int32]:
        small = rng.integers(-9 * largest, 9 * largest + 1, shape)
        if extreme:
            largest_bias = LARGEST_SUM - 32 - largest_product
            large = largest_bias * rng.choice([-1, 1], shape)
            small = np.where(rng.random(shape) < 0.5, large, small)
        return small.astype(np.int32)

    first, later = largest * (NEIGHBOURS * c + n), largest * 255 * hidden
    return {
        "codes.own": weights(KINDS - 1, levels, NEIGHBOURS * c, hidden),
        "codes.earlier": weights(levels, n, hidden),
        "codes.level": biases(first, levels, levels + 1, hidden) // 2,
        "codes.kind": biases(first, KINDS, levels, hidden) // 2,
        "codes.middle": weights(levels, hidden, hidden),
        "codes.middle_bias": biases(later, levels, hidden),
        "codes.last": weights(levels, hidden, c),
        "codes.last_bias": biases(later, levels, c),
        "codes.p1": np.sort(rng.integers(1, 65_536, LOGITS)).astype(np.uint16),
    }


def by_onnx(
    data: bytes, codes: NDArray[np.uint8], levels: NDArray[np.uint8], top: int
) -> Intervals:
    """Intervals of the kept bits with the graph's probabilities.

    The graph gets codes where it must not look: later groups, neighbours of the first pass.
    """
    graph = session(data)
    bits = np.unpackbits(codes.reshape(len(codes), -1), axis=0).T
    flat, n = levels.reshape(-1), bits.shape[1]
    c = n // top
    signs = 2 * bits.astype(np.int8) - 1
    kept = np.arange(n) // c < flat[:, None]
    known = np.append(signs * kept, np.zeros((1, n), np.int8), axis=0)
    starts, freqs = [], []
    for g in range(top):
        group = slice(g * c, (g + 1) * c)
        for scan in PASSES:
            positions = scan.positions(*levels.shape)
            positions = positions[flat[positions] > g]
            own = np.ones((len(positions), NEIGHBOURS * c), np.int8)
            if scan.offsets:
                around = scan.neighbours(positions, *levels.shape)
                own = known[around, group].reshape(own.shape)
            feeds = {
                "own": own,
                "earlier": signs[positions],
                "level": flat[positions],
                "group": np.array(g),
                "kind": np.array(scan.kind),
            }
            (p1,) = graph.run(None, feeds)
            assert (p1.dtype, p1.shape) == (np.uint16, (len(positions), c))
            pair = rans.bit_intervals(bits[positions, group].reshape(-1), p1.reshape(-1))
            starts.append(pair[0])
            freqs.append(pair[1])
    return np.concatenate(starts), np.concatenate(freqs)


MODELS = {
    "small": random_tensors(0, 16, 8, 32, 9),
    "middling": random_tensors(1, 128, 16, 64, 20),
    "extreme": random_tensors(2, 16, 8, 64, 127, extreme=True),
    "extreme and wide": random_tensors(3, 128, 16, 64, 127, extreme=True),
    "one group": random_tensors(4, 8, 1, 16, 127, extreme=True),
}


@pytest.mark.parametrize("size", [(1, 1), (40, 33)])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_reference_at_the_ends_of_every_range(name: str, size: tuple[int, int]) -> None:
    tensors = MODELS[name]
    groups, n, _ = tensors["codes.earlier"].shape
    rng = np.random.default_rng(5)
    codes = rng.integers(0, 256, (n // 8, *size)).astype(np.uint8)
    levels = rng.integers(0, groups + 1, size).astype(np.uint8)
    levels[0, 0] = groups
    expected = CodeModel(tensors, n, groups).encode(codes, levels)
    starts, freqs = by_onnx(to_bytes(tensors, n, groups), codes, levels, groups)
    assert np.array_equal(starts, expected.starts)
    assert np.array_equal(freqs, expected.freqs)
    assert size == (1, 1) or len(np.unique(freqs)) > 10


@pytest.fixture(scope="module")
def codec() -> cwic.Codec:
    return cwic.load("nano-signs")


@pytest.mark.parametrize(("name", "scale"), [("kodim03", 0.6), ("kodim23", 0.1)])
def test_equals_the_reference_on_photographs(codec: cwic.Codec, name: str, scale: float) -> None:
    n, groups = codec.bundle.n, codec.bundle.levels
    codes, importance = (a[0] for a in codec.runner.encode(open_rgb(ASSETS / f"{name}.png")[None]))
    levels = levels_from_importance(importance, scale, groups)
    expected = codec.context.codes.encode(codes, levels)
    data = to_bytes(read_tensors(codec.bundle.read("context.safetensors")), n, groups)
    starts, freqs = by_onnx(data, codes, levels, groups)
    assert np.array_equal(starts, expected.starts)
    assert np.array_equal(freqs, expected.freqs)


def test_form() -> None:
    data = to_bytes(MODELS["small"], 16, 8)
    assert data == to_bytes(dict(reversed(MODELS["small"].items())), 16, 8)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert not model.functions
    graph = session(data)
    ports = [(p.name, p.type, p.shape) for p in (*graph.get_inputs(), *graph.get_outputs())]
    assert ports == [
        ("own", "tensor(int8)", ["M", 24]),
        ("earlier", "tensor(int8)", ["M", 16]),
        ("level", "tensor(uint8)", ["M"]),
        ("group", "tensor(int64)", []),
        ("kind", "tensor(int64)", []),
        ("p1", "tensor(uint16)", ["M", 2]),
    ]


@pytest.mark.parametrize("name", ["level", "middle_bias", "last_bias"])
def test_sums_that_float32_does_not_hold_are_refused(name: str) -> None:
    tensors = dict(MODELS["extreme"])
    bias = tensors[f"codes.{name}"].copy()
    bias.flat[0] = LARGEST_SUM
    with pytest.raises(BundleError, match="again$"):
        to_model({**tensors, f"codes.{name}": bias}, 16, 8)
