"""From ONNX bytes to a parsed network, and that network as plain data.

The parser inlines the function bodies of ``cwic::binarize`` and ``cwic::importance_mask``
(ONNX model-local functions, read since TensorRT 9) and notes on each layer which function
it came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cwic.engines.library import Library
from cwic.errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["FUNCTIONS", "PORTS", "Layer", "Tensor", "layers_of", "parse"]

FUNCTIONS = ("binarize", "importance_mask")
"""The operators of domain ``cwic``."""

PORTS = {
    "encoder": (("image",), ("codes", "importance")),
    "decoder": (("codes", "levels"), ("image",)),
}
"""Names of the inputs and outputs of each graph; all are uint8."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a network: its name and type (``fp32``, ``fp16``, ``int8``, ...)."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Layer:
    """A layer of a parsed network.

    Attributes:
        name: that of the ONNX node, or one that the parser made up.
        type: for example ``CONVOLUTION``.
        function: the operator out of :data:`FUNCTIONS` whose body it belongs to, or None.
        inputs, outputs: its tensors.
    """

    name: str
    type: str
    function: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def parse(
    library: Library, builder: trt.Builder, logger: trt.ILogger, data: bytes, name: str, role: str
) -> trt.INetworkDefinition:
    """The network of the ONNX model ``data``, which the file ``name`` holds.

    Raises:
        BackendError: it is no ONNX model, an operator has no function body, this TensorRT
            does not know an operator, or it is not the ``role`` it should be.
    """
    network = library.new_network(builder)
    parser: trt.OnnxParser = library.module.OnnxParser(network, logger)
    if not parser.parse(data):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BackendError(_explain(library, name, errors))
    inputs, outputs = PORTS[role]
    found = (
        tuple(_port(library, network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_port(library, network.get_output(i)) for i in range(network.num_outputs)),
    )
    wanted = tuple(tuple(f"{port} uint8" for port in ports) for ports in (inputs, outputs))
    if tuple(tuple(sorted(ports)) for ports in found) != wanted:
        raise BackendError(
            f"{name} is not the {role} of a model: it takes {_list(found[0])} and gives "
            f"{_list(found[1])}, not {_list(wanted[0])} and {_list(wanted[1])}; "
            "export the model again"
        )
    return network


def layers_of(library: Library, network: trt.INetworkDefinition) -> list[Layer]:
    """Every layer of ``network``, in its order."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return [_layer(library, layer) for layer in layers]


def _layer(library: Library, layer: trt.ILayer) -> Layer:
    inputs = (layer.get_input(index) for index in range(layer.num_inputs))
    outputs = (layer.get_output(index) for index in range(layer.num_outputs))
    return Layer(
        name=layer.name,
        type=str(layer.type).rpartition(".")[2],
        function=_function(layer.metadata),
        inputs=_tensors(library, inputs),
        outputs=_tensors(library, outputs),
    )


def _function(metadata: str) -> str | None:
    # TensorRT 10.3 writes "[ONNX Layer: x | Local Function: binarize]", later ones
    # "[ONNX Layer: x | node_binarize (binarize)]".
    inside = metadata.partition("|")[2]
    return next((f for f in FUNCTIONS if re.search(rf"[(: ]{f}[)\]]", inside)), None)


def _tensors(library: Library, tensors: Iterable[trt.ITensor | None]) -> tuple[Tensor, ...]:
    # An optional input that is not given is None.
    return tuple(Tensor(t.name, library.dtype_name(t.dtype)) for t in tensors if t is not None)


def _port(library: Library, tensor: trt.ITensor) -> str:
    return f"{tensor.name} {library.dtype_name(tensor.dtype)}"


def _list(ports: Sequence[str]) -> str:
    return ", ".join(ports) or "nothing"


def _explain(library: Library, name: str, errors: Sequence[Any]) -> str:
    if not errors:
        return f"{library.title} cannot read {name}; export the model again"
    error = errors[0]
    operator, text = error.node_operator(), error.desc()
    if operator in FUNCTIONS and not error.local_function_stack():
        return (
            f"{name} has no function body for its operator cwic::{operator}, which "
            f"{library.title} does not know by itself; export the model again with this release"
        )
    if str(error.code()).endswith("MODEL_DESERIALIZE_FAILED"):
        return f"{name} is no ONNX model; export the model again"
    if operator:
        return (
            f"{library.title} does not run the operator {operator} of {name} "
            f"(node {error.node_name()}: {text}); update it, or export the model again"
        )
    return f"{library.title} cannot read {name} ({text}); update it, or export the model again"
