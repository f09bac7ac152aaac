"""The ONNX files: form, equality with eager, and bytes."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from cwic.bundle import Bundle
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.onnx import IR_VERSION, OPSET, to_bytes
from cwic_training.checkpoint import Checkpoint
from cwic_training.grow import grown
from cwic_training.model import CodecNetwork

from .conftest import SMALL


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> onnxruntime.InferenceSession:
    return session(bundle.read("encoder.onnx"))


@pytest.fixture(scope="module")
def decoder(bundle: Bundle) -> onnxruntime.InferenceSession:
    return session(bundle.read("decoder.onnx"))


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_form(bundle: Bundle, role: str) -> None:
    model = onnx.load_from_string(bundle.read(f"{role}.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= IR_VERSION
    assert {o.domain: o.version for o in model.opset_import} == {"": OPSET, "cwic": 1}
    name = {"encoder": "binarize", "decoder": "importance_mask"}[role]
    assert [f.name for f in model.functions] == [name]
    nodes = [node for node in model.graph.node if node.domain == "cwic"]
    assert len(nodes) == {"encoder": SMALL.feedback, "decoder": 1}[role]
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert node.op_type == name
        assert attributes.pop("plugin_namespace") == b"cwic"
        assert attributes == ({} if role == "encoder" else {"levels": 8, "n": 16})
    assert all(node.name for node in model.graph.node)
    assert not any(t.external_data for t in model.graph.initializer)


def test_signatures(
    encoder: onnxruntime.InferenceSession, decoder: onnxruntime.InferenceSession
) -> None:
    def ports(values: list[onnxruntime.NodeArg]) -> list[tuple[str, str, list[int | str]]]:
        return [(v.name, v.type, v.shape) for v in values]

    u8 = "tensor(uint8)"
    assert ports(encoder.get_inputs()) == [("image", u8, ["N", "H", "W", 3])]
    assert ports(encoder.get_outputs()) == [
        ("codes", u8, ["N", 2, "H/8", "W/8"]),
        ("importance", u8, ["N", "H/8", "W/8"]),
    ]
    assert ports(decoder.get_inputs()) == [
        ("codes", u8, ["N", 2, "h", "w"]),
        ("levels", u8, ["N", "h", "w"]),
    ]
    assert ports(decoder.get_outputs()) == [("image", u8, ["N", "8*h", "8*w", 3])]


@pytest.mark.parametrize("sides", [(8, 8), (8, 64), (96, 128), (40, 16)])
def test_encoder_flips_no_code_that_is_not_on_the_edge(
    network: CodecNetwork,
    encoder: onnxruntime.InferenceSession,
    image: Tensor,
    sides: tuple[int, int],
) -> None:
    part = image[:, : sides[0], : sides[1]].contiguous()
    graph = EncoderGraph(network)
    with torch.no_grad():
        e, _ = graph.analyse(part)
        _, importance = graph(part)
    codes, own_importance = encoder.run(None, {"image": part.numpy()})
    flips = np.unpackbits(codes, axis=1) != (e.numpy() > 0)
    assert not (flips & (np.abs(e.numpy()) >= 1e-4)).any()
    np.testing.assert_allclose(own_importance, importance, atol=1)


@pytest.mark.parametrize("batch", [1, 2])
def test_decoder_gives_the_same_picture(
    network: CodecNetwork,
    decoder: onnxruntime.InferenceSession,
    codes_and_levels: tuple[Tensor, Tensor],
    batch: int,
) -> None:
    codes, levels = (t[:batch] for t in codes_and_levels)
    with torch.no_grad():
        image = DecoderGraph(network)(codes, levels).numpy()
    (own,) = decoder.run(None, {"codes": codes.numpy(), "levels": levels.numpy()})
    assert np.abs(own.astype(int) - image).max() <= 1


def test_masked_codes_have_no_influence(
    decoder: onnxruntime.InferenceSession, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    codes, levels = (t.numpy() for t in codes_and_levels)
    kept = np.arange(16)[None, :, None, None] < 2 * levels[:, None]
    flipped = codes ^ np.packbits(~kept, axis=1)
    first, second = (decoder.run(None, {"codes": c, "levels": levels})[0] for c in (codes, flipped))
    np.testing.assert_array_equal(first, second)


def test_base_exports_and_agrees(base_network: CodecNetwork, image: Tensor) -> None:
    part = image[:1, :48, :64].contiguous()
    with torch.no_grad():
        codes, importance = EncoderGraph(base_network)(part)
        e, _ = EncoderGraph(base_network).analyse(part)
    own, own_importance = session(to_bytes(EncoderGraph(base_network))).run(
        None, {"image": part.numpy()}
    )
    assert own.shape == codes.shape
    flips = np.unpackbits(own, axis=1) != np.unpackbits(codes.numpy(), axis=1)
    assert not (flips & (np.abs(e.numpy()) >= 1e-4)).any()
    np.testing.assert_allclose(own_importance, importance, atol=1)


def test_uniform_importance_is_half_everywhere(network: CodecNetwork, image: Tensor) -> None:
    config = replace(network.config, importance="uniform")
    start = Checkpoint(network.config, network.state_dict(), {})
    encoder = session(to_bytes(EncoderGraph(grown(start, config).eval())))
    for part in (image, image[:1, :48, :64]):
        codes, importance = encoder.run(None, {"image": np.ascontiguousarray(part.numpy())})
        assert importance.shape == (codes.shape[0], *codes.shape[2:])
        assert set(np.unique(importance)) == {128}


def test_same_weights_give_the_same_bytes(bundle: Bundle, network: CodecNetwork) -> None:
    assert to_bytes(DecoderGraph(network)) == bundle.read("decoder.onnx")


def test_no_trace_of_the_machine(bundle: Bundle) -> None:
    for role in ("encoder", "decoder"):
        data = bundle.read(f"{role}.onnx")
        assert not re.search(rb"site-packages|\.py\b|cwic_export", data)


def test_halves_are_stored_as_halves_and_nothing_else(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.read("encoder.onnx"))
    stored = {t.name: t for t in model.graph.initializer}
    patch = stored["trunk.1.weight.half"]
    assert patch.data_type == TensorProto.FLOAT16
    # The folded projection is no half, and the bias is too small to be worth it.
    assert stored["projection.weight"].data_type == TensorProto.FLOAT
    assert stored["trunk.1.bias"].data_type == TensorProto.FLOAT
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0].endswith(".half")]
    assert {n.input[0] for n in casts} == {name for name in stored if name.endswith(".half")}


def test_weights_that_are_no_halves_stay_exact(network: CodecNetwork) -> None:
    graph = DecoderGraph(network)
    with torch.no_grad():
        graph.get_parameter("synthesis.3.weight")[0, 0] += 1e-5
    stored = {t.name: t for t in onnx.load_from_string(to_bytes(graph)).graph.initializer}
    np.testing.assert_array_equal(
        numpy_helper.to_array(stored["synthesis.3.weight"]),
        graph.get_parameter("synthesis.3.weight"),
    )
