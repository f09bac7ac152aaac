"""What became of each layer in a built engine, where a GPU is there to load it.

An engine fuses layers, and the inspector lists the fused ones, with the ONNX nodes that
each was made from and the types of what goes in and out. TensorRT 10 writes a tensor's type
as ``Format/Datatype``, TensorRT 11 as ``Datatype`` beside ``Format``.

Written after the documentation of both; there was no GPU here to run it on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwic.engines.library import Library
from cwic.engines.network import Layer

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["Fused", "fused_layers", "inspect", "widened"]

_NODE = re.compile(r"\[ONNX Layer: ([^\]|]+?)\s*(?:\|[^\]]*)?\]")
# Tried in this order: "BFloat16" would match "float" too.
_DTYPES = (
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half|float16", re.IGNORECASE)),
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Fused:
    """A layer of an engine.

    Attributes:
        name: as the engine calls it.
        nodes: the ONNX nodes that it was made from; none where the engine does not say.
        dtypes: types of its inputs and outputs, as far as they are fractions or int8.
    """

    name: str
    nodes: frozenset[str]
    dtypes: frozenset[str]


def inspect(library: Library, logger: trt.ILogger, plan: bytes) -> str | None:
    """The engine inspector's JSON, or None where the engine cannot be loaded."""
    runtime: trt.Runtime = library.module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(library.module.LayerInformationFormat.JSON))


def fused_layers(information: str) -> list[Fused]:
    """The layers in the inspector's JSON; empty when it holds no details."""
    try:
        layers = json.loads(information)["Layers"]
    except (KeyError, TypeError, ValueError):
        return []
    return [_fused(layer) for layer in layers if isinstance(layer, dict)]


def widened(layers: Sequence[Layer], fused: Sequence[Fused]) -> list[str]:
    """Names of fp16 layers of a network that an engine runs with fp32 on every side.

    Engine layers that name no node are passed over: what they were made from is unknown.
    """
    asked = {layer.name for layer in layers if layer.outputs and layer.outputs[0].dtype == "fp16"}
    wide: set[str] = set()
    for layer in fused:
        if "fp32" in layer.dtypes and not layer.dtypes & {"fp16", "int8"}:
            wide |= layer.nodes & asked
    return [layer.name for layer in layers if layer.name in wide]


def _fused(layer: dict[str, Any]) -> Fused:
    tensors = [t for side in ("Inputs", "Outputs") for t in layer.get(side) or ()]
    return Fused(
        name=str(layer.get("Name", "")),
        nodes=frozenset(_NODE.findall(str(layer.get("Metadata", "")))),
        dtypes=frozenset(d for d in map(_dtype, tensors) if d is not None),
    )


def _dtype(tensor: Any) -> str | None:
    if not isinstance(tensor, dict):
        return None
    text = str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")
    return next((name for name, pattern in _DTYPES if pattern.search(text)), None)
