"""The audit of a network's types: what it must let pass, and what it must not."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from cwic.engines.audit import audit, check
from cwic.engines.library import Library
from cwic.engines.network import Layer, Tensor, layers_of, parse
from cwic.errors import BackendError

from .conftest import SIGNS, VALUES, convolutions, fp16, int8, pointwise, shipped


def layer(
    name: str, kind: str, takes: str, dtype: str = "fp16", *, function: str | None = None
) -> Layer:
    """One that takes tensors by name, and gives one of its own name."""
    inputs = tuple(Tensor(t, "any") for t in takes.split())
    return Layer(name, kind, function, inputs, (Tensor(name, dtype),))


# pixels -> fp32 -> fp16 -> convolution, ReLU, convolution -> fp32 -> binarize -> bytes
GOOD = [
    layer("to_float", "CAST", "image", "fp32"),
    layer("scaled", "ELEMENTWISE", "to_float c", "fp32"),
    layer("narrow", "CAST", "scaled"),
    layer("conv1", "CONVOLUTION", "narrow w1"),
    layer("relu", "ACTIVATION", "conv1"),
    layer("shape", "SHAPE", "relu", "int64"),
    layer("size", "ELEMENTWISE", "shape shape", "int64"),
    layer("conv2", "CONVOLUTION", "relu w2"),
    layer("wide", "CAST", "conv2", "fp32"),
    layer("positive", "ELEMENTWISE", "wide zero", "bool", function="binarize"),
    layer("bits", "CAST", "positive", "fp32", function="binarize"),
    layer("packed", "REDUCE", "bits", "fp32"),
    layer("codes", "CAST", "packed", "uint8"),
]


def changed(name: str, **changes: object) -> list[Layer]:
    assert name in {part.name for part in GOOD}
    return [
        dataclasses.replace(part, **changes) if part.name == name else part  # type: ignore[arg-type]
        for part in GOOD
    ]


def typed(name: str, dtype: str) -> list[Layer]:
    return changed(name, outputs=(Tensor(name, dtype),))


def test_fp16_with_fp32_at_its_ends_passes() -> None:
    result = audit(GOOD, "fp16")
    assert result.wrong == ()
    assert result.weighted == {"fp16": 2}
    assert result.allowed == {"input": 1, "output": 1}
    check(result, "good.onnx")


@pytest.mark.parametrize("name", ["conv1", "relu", "conv2"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_layer_inside_that_comes_out_in_another_type_fails(name: str, dtype: str) -> None:
    result = audit(typed(name, dtype), "fp16")
    assert result.wrong == (name,)
    with pytest.raises(BackendError, match=rf"bad.onnx was asked .* fp16, .* in {name} ") as error:
        check(result, "bad.onnx")
    assert "\n" not in str(error.value)


def test_only_fp32_is_allowed_at_the_ends() -> None:
    assert audit(typed("scaled", "bf16"), "fp16").wrong == ("scaled",)


def test_an_operators_body_may_keep_fp32_even_between_convolutions() -> None:
    layers = [
        layer("conv1", "CONVOLUTION", "image w"),
        layer("scaled", "ELEMENTWISE", "conv1 c", "fp32", function="importance_mask"),
        layer("conv2", "CONVOLUTION", "scaled w"),
    ]
    result = audit(layers, "fp16")
    assert (result.wrong, result.allowed) == ((), {"importance_mask": 1})
    without = [dataclasses.replace(part, function=None) for part in layers]
    assert audit(without, "fp16").wrong == ("scaled",)


def test_a_convolution_is_never_excused_as_the_first_or_last() -> None:
    for name in ("conv1", "conv2"):
        assert audit(typed(name, "fp32"), "fp16").wrong == (name,)
    alone = [layer("conv", "CONVOLUTION", "image w", "fp32", function="binarize")]
    assert audit(alone, "fp16").wrong == ("conv",)


def test_constants_do_not_count() -> None:
    weights = [
        layer("raw", "CONSTANT", "", "fp32"),
        layer("doubled", "ELEMENTWISE", "raw raw", "fp32"),
        layer("conv", "CONVOLUTION", "image doubled"),
    ]
    assert audit(weights, "fp16").wrong == ()


def test_fp32_that_is_secretly_fp16_fails() -> None:
    assert audit(GOOD, "fp32").wrong == ("conv1", "relu", "conv2")


def test_int8_counts_convolutions_behind_a_dequantizer() -> None:
    layers = [layer("dq", "DEQUANTIZE", "q", "fp32"), *changed("conv1", inputs=(Tensor("dq", ""),))]
    result = audit(layers, "int8")
    assert (result.wrong, result.weighted) == ((), {"fp16": 1, "int8": 1})
    assert audit(layers, "fp16").wrong == ("conv1",)
    none = audit(GOOD, "int8")
    assert none.wrong == ("conv1", "conv2")
    with pytest.raises(BackendError, match="asked to compute in int8"):
        check(none, "x.onnx")


def test_a_graph_without_convolutions_fails() -> None:
    with pytest.raises(BackendError, match="no convolution; export"):
        check(audit([layer("x", "UNARY", "image")], "fp16"), "x.onnx")


def test_many_wrong_layers_are_counted_not_listed() -> None:
    chain = [layer("c0", "CONVOLUTION", "image", "fp32")]
    chain += [layer(f"c{i}", "CONVOLUTION", f"c{i - 1}", "fp32") for i in range(1, 9)]
    with pytest.raises(BackendError, match="c0, c1, c2 and 6 more"):
        check(audit(chain, "fp16"), "x.onnx")


def network(rtx: Library, model: onnx.ModelProto, role: str) -> list[Layer]:
    with rtx.messages_to(lambda *_: None) as logger:
        builder = rtx.module.Builder(logger)
        return layers_of(
            rtx, parse(rtx, builder, logger, model.SerializeToString(), f"{role}.onnx", role)
        )


@pytest.mark.parametrize("name", [VALUES, SIGNS])
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_the_shipped_graphs_as_a_parser_sees_them(rtx: Library, role: str, name: str) -> None:
    model = shipped(role, name)
    count, quantised = len(convolutions(model)), len(pointwise(model))
    assert 0 < quantised < count
    layers = network(rtx, model, role)
    assert audit(layers, "fp32").weighted == {"fp32": count}
    assert audit(layers, "fp32").wrong == ()
    # Every layer that is not at the ends is wrong for fp16, the convolutions among them.
    assert len(audit(layers, "fp16").wrong) > count

    half = audit(network(rtx, fp16(role, name), role), "fp16")
    assert (half.wrong, half.weighted) == ((), {"fp16": count})
    masks = {"importance_mask"} if (role, name) == ("decoder", SIGNS) else set()
    assert set(half.allowed) == {"input", "output"} | masks

    mixed = audit(network(rtx, int8(role, name), role), "int8")
    assert mixed.wrong == ()
    assert mixed.weighted == {"fp32": count - quantised, "int8": quantised}


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_one_convolution_left_in_fp32_is_found(rtx: Library, role: str) -> None:
    model = fp16(role)
    odd = convolutions(model)[len(convolutions(model)) // 2]
    nodes = []
    for node in model.graph.node:
        if node is odd or node.name == odd.name:
            for i, name in enumerate(node.input):
                nodes.append(onnx.helper.make_node("Cast", [name], [f"{name}.odd"], to=1))
                node.input[i] = f"{name}.odd"
            (output,) = node.output
            node.output[0] = f"{output}.odd"
            nodes.append(node)
            nodes.append(onnx.helper.make_node("Cast", [f"{output}.odd"], [output], to=10))
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert audit(network(rtx, model, role), "fp16").wrong == (odd.name,)
