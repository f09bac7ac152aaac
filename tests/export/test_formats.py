"""The registry of formats: what each needs, and what fp16, Triton and engines write."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from onnx import TensorProto
from torch import Tensor

from cwic.bundle import Bundle
from cwic.errors import CwicError, ExportError
from cwic_export.bundle_writer import export_bundle
from cwic_export.formats import DEFAULT_FORMATS, FORMATS, chosen
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.triton import LARGEST_BATCH, configuration
from cwic_training.model import CodecNetwork

from .conftest import ASSETS

_PICTURE = {"calibration": [ASSETS / "kodim23.png"]}


def session(data: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def wide(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What the default export does not write and needs no pictures, with its engines."""
    pytest.importorskip("tensorrt_rtx")
    out = tmp_path_factory.mktemp("models") / "wide"
    return export_bundle(checkpoint, out, ["tensorrt-rtx", "triton", "onnx-fp16"], sm="86")


def test_the_default_needs_no_options_and_no_gpu() -> None:
    assert set(DEFAULT_FORMATS) < set(FORMATS)
    assert chosen(DEFAULT_FORMATS) == [FORMATS[name] for name in DEFAULT_FORMATS]


def test_engines_come_after_what_they_are_built_from() -> None:
    forms = chosen(["tensorrt-rtx", "onnx-fp16", "onnx", "onnx-fp16"])
    assert forms == [FORMATS[name] for name in ("onnx", "onnx-fp16", "tensorrt-rtx")]


@pytest.mark.parametrize("names", [["onnx", "tflite"], []])
def test_unknown_formats(names: list[str]) -> None:
    with pytest.raises(ExportError, match="choose from onnx, torchscript, exported-program"):
        chosen(names)


@pytest.mark.parametrize(
    ("formats", "options", "missing", "message"),
    [
        (["onnx-int8"], {}, None, "onnx-int8 measures .* add --calibration"),
        (["onnx", "onnx-int8-tensorrt"], {}, None, "onnx-int8-tensorrt measures"),
        (["onnx-int8"], {**_PICTURE, "int8_loss_db": 0.0}, None, "use for example 0.1"),
        (["tensorrt-rtx", "torchscript"], {"sm": "86"}, None, "add one or more of onnx, "),
        (["tensorrt", "onnx-int8"], _PICTURE, None, "onnx-int8-tensorrt to"),
        (["onnx"], {}, "cwic_export.onnx", r"pip install 'cwic\[export\]'"),
        (["triton"], {}, "cwic_export.onnx", r"pip install 'cwic\[export\]'"),
        (["onnx-int8"], _PICTURE, "cwic_export.quantize.qdq", r"'cwic\[export\]'"),
        (["torchscript"], {}, "cwic_export.torchscript", r"pip install 'cwic\[export\]'"),
        (["torch-tensorrt"], {}, "torch_tensorrt", "or leave torch-tensorrt out of --formats"),
        (["onnx", "tensorrt"], {}, "tensorrt", r"pip install 'cwic\[tensorrt\]'"),
        (["onnx", "tensorrt-rtx"], {}, "tensorrt_rtx", r"pip install 'cwic\[tensorrt-rtx\]'"),
    ],
)
def test_what_is_missing_is_said_in_a_line_before_anything_is_written(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    formats: list[str],
    options: dict[str, object],
    missing: str | None,
    message: str,
) -> None:
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CwicError, match=message) as caught:
        export_bundle(checkpoint, tmp_path / "model", formats, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def types_of(data: bytes) -> dict[str, set[int]]:
    """Types that each kind of node computes in: that of its first input."""
    model = onnx.inliner.inline_local_functions(onnx.load_from_string(data))
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    found: dict[str, set[int]] = {}
    for node in graph.node:
        if node.input:
            found.setdefault(node.op_type, set()).add(kinds[node.input[0]])
    return found


@pytest.mark.parametrize(
    ("halves", "whole", "role", "around"),
    [
        ("wide", "bundle", "encoder", ("Div", "Sigmoid", "Greater", "ReduceSum", "Round")),
        ("wide", "bundle", "decoder", ("Floor", "Less", "Round", "Sub", "Mul", "Clip")),
        ("values_bundle", "values_bundle", "encoder", ("Sigmoid", "Round", "Clip", "Floor")),
        ("values_bundle", "values_bundle", "decoder", ("Min", "GatherND", "Mul", "Round", "Clip")),
    ],
)
def test_fp16_is_in_the_networks_only(
    request: pytest.FixtureRequest, halves: str, whole: str, role: str, around: tuple[str, ...]
) -> None:
    data = request.getfixturevalue(halves).read(f"{role}.fp16.onnx")
    whole_data = request.getfixturevalue(whole).read(f"{role}.onnx")
    model, fp32 = (onnx.load_from_string(d) for d in (data, whole_data))
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.input) == list(fp32.graph.input)
    assert list(model.graph.output) == list(fp32.graph.output)
    assert list(model.functions) == list(fp32.functions)
    kinds = types_of(data)
    assert kinds["Conv"] == kinds["Relu"] == {TensorProto.FLOAT16}
    assert all(kinds[name] == {TensorProto.FLOAT} for name in around), kinds


def test_fp16_flips_only_codes_near_the_edge(
    wide: Bundle, network: CodecNetwork, image: Tensor
) -> None:
    graph = EncoderGraph(network)
    with torch.no_grad():
        e, _ = graph.analyse(image)
        _, importance = graph(image)
    codes, own_importance = session(wide.read("encoder.fp16.onnx")).run(
        None, {"image": image.numpy()}
    )
    flips = np.unpackbits(codes, axis=1) != (e.numpy() > 0)
    assert not (flips & (np.abs(e.numpy()) >= 0.02)).any()
    assert np.abs(own_importance.astype(int) - importance.numpy()).max() <= 2


def test_fp16_decoder_is_within_a_few_steps(
    wide: Bundle, network: CodecNetwork, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    codes, levels = codes_and_levels
    with torch.no_grad():
        image = DecoderGraph(network)(codes, levels).numpy()
    feeds = {"codes": codes.numpy(), "levels": levels.numpy()}
    (own,) = session(wide.read("decoder.fp16.onnx")).run(None, feeds)
    assert np.abs(own.astype(int) - image).max() <= 3


def test_engines_of_what_was_exported(wide: Bundle) -> None:
    engines = {
        (entry.role, entry.precision)
        for entry in wide.files.values()
        if entry.target == "tensorrt-rtx" and entry.role != "log"
    }
    assert engines == {("encoder", "fp16"), ("decoder", "fp16")}
    assert {r["audit"]["precision"] for r in wide.facts["engines"].values()} == {"fp16"}
    assert wide.facts["steps"] == 3


_TEXT, _ENUM, _MESSAGE = 9, 14, 11
_INT32, _INT64, _UINT64 = 5, 3, 4
_SCHEMA = {
    # message: field: (number, type, kind of message or enum, repeated), as in Triton's
    # model_config.proto, as far as the files use it.
    "ModelConfig": {
        "name": (1, _TEXT, "", False),
        "platform": (2, _TEXT, "", False),
        "max_batch_size": (4, _INT32, "", False),
        "input": (5, _MESSAGE, "ModelInput", True),
        "output": (6, _MESSAGE, "ModelOutput", True),
        "instance_group": (7, _MESSAGE, "ModelInstanceGroup", True),
        "dynamic_batching": (11, _MESSAGE, "ModelDynamicBatching", False),
        "backend": (17, _TEXT, "", False),
    },
    "ModelInput": {
        "name": (1, _TEXT, "", False),
        "data_type": (2, _ENUM, "DataType", False),
        "dims": (4, _INT64, "", True),
    },
    "ModelOutput": {
        "name": (1, _TEXT, "", False),
        "data_type": (2, _ENUM, "DataType", False),
        "dims": (3, _INT64, "", True),
    },
    "ModelInstanceGroup": {
        "count": (2, _INT32, "", False),
        "kind": (4, _ENUM, "Kind", False),
    },
    "ModelDynamicBatching": {"max_queue_delay_microseconds": (2, _UINT64, "", False)},
}
_ENUMS = {
    "DataType": ("TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8"),
    "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"),
}


def parsed(text: str) -> object:
    """A ``config.pbtxt`` read by protobuf, which refuses what the schema does not have."""
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="inference", syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, of, repeated) in fields.items():
            added = message.field.add(
                name=field, number=number, type=kind, label=3 if repeated else 1
            )
            if of:
                added.type_name = f".inference.{of}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(text, kind())


@pytest.mark.parametrize(
    ("role", "inputs", "outputs"),
    [
        (
            "encoder",
            {"image": [-1, -1, 3]},
            {"codes": [2, -1, -1], "importance": [-1, -1]},
        ),
        ("decoder", {"codes": [2, -1, -1], "levels": [-1, -1]}, {"image": [-1, -1, 3]}),
    ],
)
def test_triton_model(
    wide: Bundle,
    bundle: Bundle,
    role: str,
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
) -> None:
    folder = f"triton/cwic_{role}"
    config = parsed(wide.read(f"{folder}/config.pbtxt").decode())
    assert config.name == f"cwic_{role}"  # type: ignore[attr-defined]
    assert config.backend == "onnxruntime"  # type: ignore[attr-defined]
    assert config.platform == "onnxruntime_onnx"  # type: ignore[attr-defined]
    assert config.max_batch_size == LARGEST_BATCH  # type: ignore[attr-defined]
    assert config.HasField("dynamic_batching")  # type: ignore[attr-defined]
    for found, expected in ((config.input, inputs), (config.output, outputs)):  # type: ignore[attr-defined]
        assert {port.name: list(port.dims) for port in found} == expected
        assert {port.data_type for port in found} == {2}
    data = wide.read(f"{folder}/1/model.onnx")
    assert data == bundle.read(f"{role}.onnx")
    # N, the axis that `dims` leaves out, must be free and first for batches to work.
    run = session(data)
    assert all(port.shape[0] == "N" for port in (*run.get_inputs(), *run.get_outputs()))


def test_triton_knows_what_an_encoder_of_values_gives(values_network: CodecNetwork) -> None:
    found = {}
    for role, graph in (("encoder", EncoderGraph), ("decoder", DecoderGraph)):
        config = parsed(configuration(role, graph(values_network).ports()))
        ports = config.output if role == "encoder" else config.input  # type: ignore[attr-defined]
        found[role] = {port.name: list(port.dims) for port in ports}
    assert found == {
        "encoder": {"codes": [32, -1, -1], "importance": [-1, -1]},
        "decoder": {"codes": [16, -1, -1], "levels": [-1, -1]},
    }


def test_the_schema_refuses_what_triton_would(network: CodecNetwork) -> None:
    text = configuration("decoder", DecoderGraph(network).ports())
    assert parsed(text)
    for wrong in (text.replace("dims", "dim"), text.replace("TYPE_UINT8", "UINT8"), text + "}"):
        with pytest.raises(text_format.ParseError):
            parsed(wrong)
