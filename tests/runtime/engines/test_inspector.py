"""The engine inspector's JSON of TensorRT 10 and 11, and what it must reveal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cwic.engines.inspector import Fused, fused_layers, inspect, widened
from cwic.engines.library import Library
from cwic.engines.network import Layer, Tensor

RELEASES = ["10", "11"]


def tensor(name: str, kind: str, release: str) -> dict[str, object]:
    """As the documentation of each release shows it."""
    texts = {"fp16": "Row major linear FP16 format", "fp32": "Row major linear FP32 format"}
    words = {"fp16": "Half", "fp32": "Float", "int8": "Int8", "int64": "Int64", "bf16": "BFloat16"}
    if release == "11":
        return {"Name": name, "Datatype": words[kind], "Format": texts.get(kind, "linear")}
    return {"Name": name, "Format/Datatype": texts.get(kind, words[kind]), "Dimensions": [1]}


def information(release: str, gives: str) -> str:
    nodes = ("conv (Conv)", "node_relu", "node_of_positive | Local Function: binarize")
    metadata = "\x1e".join(f"[ONNX Layer: {node}]" for node in ("conv", *nodes[1:]))
    layers = [
        {
            "Name": "conv + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [tensor("x", gives, release)],
            "Outputs": [tensor("y", gives, release), tensor("n", "int64", release)],
            "Metadata": metadata,
        },
        {"Name": "__myl_Cast", "LayerType": "kgen", "Inputs": [], "Outputs": [], "Metadata": ""},
    ]
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


def asked(dtype: str) -> list[Layer]:
    return [
        Layer(name, "CONVOLUTION", None, (), (Tensor(name, dtype),)) for name in ("conv", "other")
    ]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("dtype", ["fp16", "fp32", "int8", "bf16"])
def test_both_forms_are_read(release: str, dtype: str) -> None:
    first, second = fused_layers(information(release, dtype))
    assert first == Fused(
        "conv + relu",
        frozenset({"conv", "node_relu", "node_of_positive"}),
        frozenset({dtype}),
    )
    assert (second.nodes, second.dtypes) == (frozenset(), frozenset())


@pytest.mark.parametrize("release", RELEASES)
def test_a_layer_asked_for_fp16_that_runs_in_fp32_is_found(release: str) -> None:
    wide, narrow = (fused_layers(information(release, dtype)) for dtype in ("fp32", "fp16"))
    assert widened(asked("fp16"), wide) == ["conv"]
    assert widened(asked("fp16"), narrow) == []
    assert widened(asked("fp32"), wide) == []


def test_a_cast_at_the_end_of_a_fused_layer_is_no_offence() -> None:
    fused = [Fused("conv + cast", frozenset({"conv"}), frozenset({"fp16", "fp32"}))]
    assert widened(asked("fp16"), fused) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": ["conv + relu"]}', "null"])
def test_an_inspector_that_says_nothing(text: str) -> None:
    assert fused_layers(text) == []


def test_an_engine_that_cannot_be_loaded_is_not_inspected(rtx: Library) -> None:
    from cwic.backends.device import find_device
    from cwic.errors import BackendError

    try:
        find_device()
    except BackendError:
        pass
    else:
        pytest.skip("there is a GPU here: engines load")
    with rtx.messages_to(lambda *_: None) as logger:
        assert inspect(rtx, logger, Path(__file__).read_bytes()) is None
