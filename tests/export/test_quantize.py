"""int8: where Q and DQ lie, what the ranges are, what is measured, and which layers stay fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from PIL import Image

from cwic.bundle import CONTEXT_FILE, Bundle
from cwic.entropy_model import ContextModel
from cwic.errors import ExportError, TrainingError
from cwic.rate import QualityScale
from cwic_export.bundle_writer import export_bundle
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.onnx import serialise, to_model
from cwic_export.quantize import search as searching
from cwic_export.quantize.calibration import Ranges, measure
from cwic_export.quantize.qdq import (
    ONNXRUNTIME,
    TENSORRT,
    Layer,
    Scheme,
    layers_of,
    quantise,
    tensors_of,
)
from cwic_export.quantize.scoring import QUALITIES, Scorer, open_pictures
from cwic_export.quantize.search import search
from cwic_export.quantize.session import Session
from cwic_training.checkpoint import load_checkpoint
from cwic_training.model import CodecNetwork

from .conftest import crop

NANO = Path(__file__).parents[2] / "models" / "nano.safetensors"


@pytest.fixture(scope="module")
def nano() -> CodecNetwork:
    """The trained model: sensitivity means little on random weights."""
    return load_checkpoint(NANO).network()


@pytest.fixture(scope="module")
def encoder(nano: CodecNetwork) -> onnx.ModelProto:
    return to_model(EncoderGraph(nano))


@pytest.fixture(scope="module")
def decoder(nano: CodecNetwork) -> onnx.ModelProto:
    return to_model(DecoderGraph(nano))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("calibration")
    Image.fromarray(crop("kodim03", (250, 100, 410, 228))).save(folder / "a.png")
    Image.fromarray(crop("kodim23", (100, 150, 229, 251))).save(folder / "b.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def scorer(encoder: onnx.ModelProto, decoder: onnx.ModelProto, pictures: list[Path]) -> Scorer:
    sessions = (Session(serialise(model)) for model in (encoder, decoder))
    return scorer_of(Bundle.load(), *sessions, pictures)


@pytest.fixture(scope="module")
def ranges(decoder: onnx.ModelProto, scorer: Scorer) -> Ranges:
    names = {name for layer in layers_of(decoder) for name in tensors_of(layer)}
    return measure(decoder, names, scorer.feeds("decoder"))[0]


def scorer_of(bundle: Bundle, encoder: Session, decoder: Session, pictures: list[Path]) -> Scorer:
    entropy = ContextModel.from_bytes(bundle.read(CONTEXT_FILE), bundle.n, bundle.levels)
    qualities = QualityScale(bundle.quality_scales)
    return Scorer(encoder, decoder, entropy, qualities, open_pictures(pictures))


def by_name(model: onnx.ModelProto) -> dict[str, Layer]:
    return {layer.name: layer for layer in layers_of(model)}


def test_layers(decoder: onnx.ModelProto) -> None:
    layers = by_name(decoder)
    blocks = [f"synthesis.{i}.{part}" for i in range(2, 7) for part in ("depthwise", "up", "down")]
    assert list(layers) == ["synthesis.1", *blocks, "synthesis.7"]
    assert layers["synthesis.2.up"].relu is not None
    assert layers["synthesis.2.down"].relu is None
    assert [layers[f"synthesis.2.{k}"].weights for k in ("depthwise", "up", "down")] == [
        9,
        256,
        768,
    ]


def test_ranges_leave_out_the_outermost_values(decoder: onnx.ModelProto, scorer: Scorer) -> None:
    layer = by_name(decoder)["synthesis.3.up"]
    name = tensors_of(layer)[1]
    found, sizes = measure(decoder, [name], scorer.feeds("decoder"))
    whole, _ = measure(decoder, [name], list(scorer.feeds("decoder"))[:1])
    assert found[name][0] == 0.0  # after a ReLU
    assert whole[name][1] <= found[name][1]
    # 768 channels of the second picture's 12 x 16 positions
    assert sizes[name] == 768 * 12 * 16


@pytest.mark.parametrize("scheme", [ONNXRUNTIME, TENSORRT])
def test_only_the_chosen_layer_is_quantised(
    decoder: onnx.ModelProto, ranges: Ranges, scheme: Scheme
) -> None:
    layer = by_name(decoder)["synthesis.3.up"]
    data = serialise(quantise(decoder, [layer], ranges, scheme))
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert [f.name for f in model.functions] == [f.name for f in decoder.functions]
    stored = {t.name: t for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    conv = next(node for node in model.graph.node if node.name == layer.node)
    source = producers[conv.input[1]]
    weights, scales, zeros = (numpy_helper.to_array(stored[name]) for name in source.input)
    assert source.op_type == "DequantizeLinear"
    assert (weights.dtype, scales.shape) == (np.int8, (768,))
    assert not zeros.any()
    assert producers[conv.input[0]].op_type == "DequantizeLinear"
    kinds = [node.op_type for node in model.graph.node]
    activations = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert len(activations) == (2 if scheme.outputs else 1)
    kind = TensorProto.INT8 if scheme.symmetric else TensorProto.UINT8
    assert {stored[node.input[2]].data_type for node in activations} == {kind}
    if scheme.symmetric:
        assert not any(numpy_helper.to_array(stored[n.input[2]]).any() for n in activations)
        assert (conv.input[2] in stored, kinds.count("DequantizeLinear")) == (True, 2)
    else:  # the ReLU is the output's zero point, the bias is int32
        assert (
            kinds.count("Relu") == [node.op_type for node in decoder.graph.node].count("Relu") - 1
        )
        assert producers[conv.input[2]].op_type == "DequantizeLinear"


def test_inputs_and_outputs_stay_those_of_fp32(
    decoder: onnx.ModelProto, ranges: Ranges, scorer: Scorer
) -> None:
    model = quantise(decoder, layers_of(decoder), ranges, ONNXRUNTIME)
    assert list(model.graph.input) == list(decoder.graph.input)
    assert list(model.graph.output) == list(decoder.graph.output)
    part = next(scorer.feeds("decoder"))
    feeds = {name: np.concatenate([array, array[:, ..., ::-1]]) for name, array in part.items()}
    (own,), (fp32,) = (Session(serialise(m)).run(feeds) for m in (model, decoder))
    assert own.shape == fp32.shape == (2, 128, 160, 3)
    assert 0 < np.abs(own.astype(int) - fp32).mean() < 5


def test_no_layer_is_no_change(decoder: onnx.ModelProto, ranges: Ranges) -> None:
    assert serialise(quantise(decoder, [], ranges, TENSORRT)) == serialise(decoder)


def test_fp32_scores_nothing(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, scorer: Scorer
) -> None:
    for role, model in (("encoder", encoder), ("decoder", decoder)):
        score = scorer.score(role, Session(serialise(model)))  # type: ignore[arg-type]
        assert score.delta_psnr_db == score.delta_bits == (0.0,) * len(QUALITIES)
        assert (score.flip_share, score.loss_db, score.mean_loss_db) == (0.0, 0.0, 0.0)


def biased(graph: bytes, name: str, by: float) -> Session:
    """A graph one of whose biases is larger everywhere."""
    model = onnx.load_from_string(graph)
    bias = next(t for t in model.graph.initializer if t.name.removesuffix(".half") == name)
    array = numpy_helper.to_array(bias)
    bias.CopyFrom(numpy_helper.from_array(array + array.dtype.type(by), bias.name))
    return Session(model.SerializeToString())


def test_bits_that_buy_little_are_a_loss(pictures: list[Path]) -> None:
    """Of an encoder that keeps more codes, and most where they tell little."""
    shipped = Bundle.load("nano-signs")
    encoder, decoder = (shipped.read(f"{role}.onnx") for role in ("encoder", "decoder"))
    scorer = scorer_of(shipped, Session(encoder), Session(decoder), pictures)
    score = scorer.score("encoder", biased(encoder, "importance.conv3.bias", 1))
    assert score.flip_share == 0
    assert min(score.delta_psnr_db) > 0
    assert min(score.delta_bits) > 0.1
    assert score.loss_db > 0.1


def test_noise_in_values_costs_bits(encoder: onnx.ModelProto, scorer: Scorer) -> None:
    """Of what is added to all values nothing is nothing any more; the loss counts the bits."""
    score = scorer.score("encoder", biased(serialise(encoder), "projection.bias", 0.1))
    assert max(score.delta_bits) > 0.02
    assert score.loss_db > -min(score.delta_psnr_db)


def test_all_layers_where_the_limit_allows_it(decoder: onnx.ModelProto, scorer: Scorer) -> None:
    found = search("decoder", decoder, scorer, TENSORRT, largest_loss_db=5.0)
    assert found.fp32_layers == ()
    assert found.int8_macs_share == 1
    assert found.alone == {}
    assert found.score.loss_db > 0


def test_the_most_sensitive_layers_stay_fp32(decoder: onnx.ModelProto, scorer: Scorer) -> None:
    limit = 0.1
    found = search("decoder", decoder, scorer, ONNXRUNTIME, largest_loss_db=limit)
    assert found.score.loss_db <= limit
    assert 0 < len(found.fp32_layers) < len(layers_of(decoder))
    assert 0.45 < found.int8_macs_share < 1
    facts = found.facts()
    assert facts["fp32_layers"] == list(found.fp32_layers)
    assert set(facts["alone"]) == set(by_name(decoder))
    assert set(facts["delta_psnr_db"]) == {str(quality) for quality in QUALITIES}
    # What stays is what loses most for its work; depthwise layers do little work.
    assert found.fp32_layers[0].endswith("depthwise")
    kept = {n.name for n in layers_of(decoder) if n.name in found.fp32_layers}
    types = {t.name: t.data_type for t in found.model.graph.initializer}
    assert {types[f"{name}.weight"] for name in kept} == {TensorProto.FLOAT}


def test_a_limit_that_nothing_meets(
    decoder: onnx.ModelProto, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "layers_of", lambda model: layers_of(model)[:2])
    with pytest.raises(ExportError, match="no layer of the decoder .* --int8-loss"):
        search("decoder", decoder, scorer, ONNXRUNTIME, largest_loss_db=-9.0)


def test_export(checkpoint: Path, pictures: list[Path], tmp_path: Path) -> None:
    names = ["onnx", "onnx-int8", "onnx-int8-tensorrt"]
    bundle = export_bundle(
        checkpoint, tmp_path / "model", names, calibration=pictures, int8_loss_db=3.0
    )
    entries = {(e.role, e.target, e.precision) for e in bundle.files.values()}
    for role in ("encoder", "decoder"):
        assert {(role, "onnx", "int8"), (role, "onnx-tensorrt", "int8")} < entries
    facts = bundle.facts["onnx-int8"]
    assert (facts["calibration_pictures"], facts["loss_limit_db"]) == (2, 3.0)
    assert facts["encoder"]["flip_share"] > 0
    assert "onnx-int8-tensorrt" in bundle.facts
    assert Bundle.load(bundle.path) == bundle


def test_tensorrt_reads_its_int8(decoder: onnx.ModelProto, ranges: Ranges) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    parsed = {}
    for scheme in (TENSORRT, ONNXRUNTIME):
        builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
        network = builder.create_network(0)
        data = serialise(quantise(decoder, layers_of(decoder), ranges, scheme))
        parsed[scheme] = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR)).parse(data)
    assert parsed == {TENSORRT: True, ONNXRUNTIME: False}


def test_calibration_pictures_that_cannot_be_read(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(TrainingError, match="leave it out of the glob"):
        export_bundle(
            checkpoint, tmp_path / "model", ["onnx-int8"], calibration=[tmp_path / "text.png"]
        )
    assert not (tmp_path / "model").exists()
