"""Shipped models: the default in a folder of its own, graphs in other precisions, and TensorRT."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from cwic import packaged
from cwic.bundle import Bundle, FileEntry
from cwic.engines.library import Library, load_library
from cwic.engines.target import Target
from cwic.errors import BackendError
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.onnx import to_bytes
from cwic_training.checkpoint import load_checkpoint

CHECKPOINTS = Path(__file__).resolve().parents[3] / "models"
VALUES, SIGNS = packaged.DEFAULT, "nano-signs"
"""A model of each kind of codes."""

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
    return Bundle.load(shutil.copytree(packaged.folder(), tmp_path / "nano"))


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


def shipped(role: str, name: str = VALUES) -> onnx.ModelProto:
    return onnx.load(packaged.folder(name) / f"{role}.onnx")


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def pointwise(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The 1x1 convolutions of the blocks."""
    return [node for node in convolutions(model) if re.search(r"\.(up|down)\b", node.input[1])]


@lru_cache(maxsize=4)
def _exported_fp16(role: str, name: str) -> bytes:
    network = load_checkpoint(CHECKPOINTS / f"{name}.safetensors").network()
    graph = {"encoder": EncoderGraph, "decoder": DecoderGraph}[role]
    return to_bytes(graph(network, dtype=torch.float16))


def fp16(role: str, name: str = VALUES) -> onnx.ModelProto:
    """A shipped graph as ``cwic export --formats onnx-fp16`` writes it."""
    return onnx.load_from_string(_exported_fp16(role, name))


def int8(role: str, name: str = VALUES) -> onnx.ModelProto:
    """A shipped graph whose :func:`pointwise` convolutions take quantised inputs and weights."""
    model = shipped(role, name)
    chosen = [node.name for node in pointwise(model)]
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0.05, np.float32), "q.scale"),
            numpy_helper.from_array(np.array(0, np.int8), "q.zero"),
        ]
    )
    nodes = []
    for node in graph.node:
        if node.name in chosen:
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
