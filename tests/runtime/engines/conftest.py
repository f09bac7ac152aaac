"""The shipped model in a folder of its own, its graphs in other precisions, and TensorRT."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cwic.bundle import Bundle, FileEntry, default_bundle_path
from cwic.engines.library import Library, load_library
from cwic.engines.target import Target
from cwic.errors import BackendError

AddOnnx: TypeAlias = Callable[..., Bundle]


@pytest.fixture(scope="session")
def rtx() -> Library:
    """TensorRT for RTX, which builds without a GPU."""
    try:
        return load_library("tensorrt-rtx")
    except BackendError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def sm86(rtx: Library) -> Target:
    return Target(rtx, "86", None)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """A copy of the shipped model that a test may change."""
    return Bundle.load(shutil.copytree(default_bundle_path(), tmp_path / "nano"))


@pytest.fixture
def add_onnx(bundle: Bundle) -> AddOnnx:
    """Puts an ONNX file into the copy and gives the changed bundle."""

    def add(name: str, data: bytes, role: str, precision: str) -> Bundle:
        path = bundle.path / name
        path.write_bytes(data)
        entry = FileEntry.of(path, role=role, target="onnx", precision=precision)
        now = Bundle.load(bundle.path)
        dataclasses.replace(now, files={**now.files, name: entry}).save()
        return Bundle.load(bundle.path)

    return add


def shipped(role: str) -> onnx.ModelProto:
    return onnx.load(default_bundle_path() / f"{role}.onnx")


def fp16(role: str) -> onnx.ModelProto:
    """A shipped graph in fp16 from its first convolution to its last, fp32 outside."""
    model = shipped(role)
    graph = model.graph
    inside = _inside(graph)
    weights = {i.name: i for i in graph.initializer}
    widened = {n.output[0]: n for n in graph.node if n.op_type == "Cast" and n.input[0] in weights}
    made_inside = {o for n in inside for o in n.output}
    nodes = []
    for node in graph.node:
        before, after = [], []
        for i, name in enumerate(node.input):
            if node not in inside:
                if name in made_inside:
                    node.input[i] = f"{name}.wide"
            elif name in widened:
                widened[name].attribute[0].i = TensorProto.FLOAT16
            elif name in weights:
                array = numpy_helper.to_array(weights[name]).astype(np.float16)
                weights[name].CopyFrom(numpy_helper.from_array(array, name))
            elif name not in made_inside:
                before.append(_cast(name, f"{name}.narrow", TensorProto.FLOAT16))
                node.input[i] = f"{name}.narrow"
        if node in inside:
            after = [_cast(o, f"{o}.wide", TensorProto.FLOAT) for o in node.output]
        nodes += [*before, node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def int8(role: str) -> onnx.ModelProto:
    """A shipped graph whose 1x1 convolutions take quantised inputs and weights."""
    model = shipped(role)
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0.05, np.float32), "q.scale"),
            numpy_helper.from_array(np.array(0, np.int8), "q.zero"),
        ]
    )
    nodes = []
    for node in graph.node:
        if node.op_type == "Conv" and ("up" in node.input[1] or "down" in node.input[1]):
            for i, name in enumerate(node.input[:2]):
                stem = f"{node.name}.{i}"
                nodes += [
                    helper.make_node(
                        "QuantizeLinear", [name, "q.scale", "q.zero"], [f"{stem}.q"], f"{stem}.Q"
                    ),
                    helper.make_node(
                        "DequantizeLinear",
                        [f"{stem}.q", "q.scale", "q.zero"],
                        [f"{stem}.dq"],
                        f"{stem}.DQ",
                    ),
                ]
                node.input[i] = f"{stem}.dq"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def _inside(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Convolutions, and what depends on one and leads to another."""
    nodes = list(graph.node)
    after: set[str] = set()
    for node in nodes:
        if node.op_type == "Conv" or set(node.input) & after:
            after |= set(node.output)
    before: set[str] = set()
    for node in reversed(nodes):
        if node.op_type == "Conv" or set(node.output) & before:
            before |= set(node.input)
    return [
        n for n in nodes if n.op_type == "Conv" or (set(n.input) & after and set(n.output) & before)
    ]


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], f"cast_{target}", to=to)
