"""The ONNX bodies of the two operators against the PyTorch operators, one at a time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from cwic_export import ops as lowerings
from cwic_training import ops

FLOAT = TensorProto.FLOAT
RANKS = {"x": 2, "bits": 2, "p": 4, "scale": 1, "mask": 4}


def model_of(node: onnx.NodeProto, opset: int = 18) -> onnx.ModelProto:
    """A model of one ``cwic`` node whose inputs and output have free sides."""
    ports = {
        name: helper.make_tensor_value_info(name, FLOAT, [None] * RANKS[name])
        for name in (*node.input, *node.output)
    }
    inputs, outputs = ([ports[name] for name in names] for names in (node.input, node.output))
    graph = helper.make_graph([node], "one", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    lowerings.add_functions(model)
    return model


def run(model: onnx.ModelProto, *inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = (i.name for i in session.get_inputs())
    (out,) = session.run(None, {k: v.numpy() for k, v in zip(names, inputs, strict=True)})
    return torch.from_numpy(out)


def binarize_node() -> onnx.NodeProto:
    return helper.make_node("binarize", ["x"], ["bits"], domain="cwic", plugin_namespace="cwic")


def mask_node(levels: int, n: int) -> onnx.NodeProto:
    return helper.make_node(
        "importance_mask",
        ["p", "scale"],
        ["mask"],
        domain="cwic",
        levels=levels,
        n=n,
        plugin_namespace="cwic",
    )


def test_binarize_at_the_threshold() -> None:
    tiny = np.finfo(np.float32).tiny
    x = torch.tensor([[-1.0, -0.0, 0.0, tiny, -tiny, 1.0, float("inf"), float("-inf")]])
    assert torch.equal(run(model_of(binarize_node()), x), ops.binarize(x))


@pytest.mark.parametrize(("levels", "n"), [(8, 16), (16, 128), (1, 8), (255, 2040)])
def test_mask_at_every_level_and_between(levels: int, n: int) -> None:
    exact = torch.arange(levels + 1) / levels
    between = (torch.arange(levels) + 0.5) / levels
    p = torch.cat([exact, between, torch.tensor([0.999999])]).view(1, 1, 1, -1).repeat(2, 1, 1, 1)
    scale = torch.tensor([1.0, 0.37])
    got = run(model_of(mask_node(levels, n)), p, scale)
    assert got.shape == (2, n, 1, p.shape[-1])
    assert torch.equal(got, ops.importance_mask(p, scale, levels, n))
    kept = got[0, :, 0, : levels + 1].sum(0)
    assert torch.equal(kept, torch.arange(levels + 1) * (n / levels))


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_bodies_use_the_opset_of_the_model(opset: int) -> None:
    model = model_of(mask_node(8, 16), opset)
    (body,) = model.functions
    assert [(o.domain, o.version) for o in body.opset_import] == [("", opset)]
    assert ("cwic", 1) in {(o.domain, o.version) for o in model.opset_import}
    run(model, torch.full((1, 1, 2, 2), 0.5), torch.ones(1))


def test_bodies_of_unused_operators_are_left_out() -> None:
    assert [f.name for f in model_of(binarize_node()).functions] == ["binarize"]


def test_files_are_valid_where_the_schemas_are_not_registered() -> None:
    code = "import onnx, sys; onnx.checker.check_model(sys.stdin.buffer.read())"
    for node in (binarize_node(), mask_node(8, 16)):
        data = model_of(node).SerializeToString()
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
