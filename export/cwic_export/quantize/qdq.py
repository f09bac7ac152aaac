"""Writes QuantizeLinear and DequantizeLinear nodes around chosen convolutions.

onnxruntime's quantiser does the writing. Weights are int8, symmetric, per output channel;
sums are float, so that errors do not pile up along the residual connections. The rest
depends on what shall run the file (:class:`Scheme`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from cwic_export.quantize.calibration import Ranges

__all__ = ["ONNXRUNTIME", "TENSORRT", "Layer", "Scheme", "layers_of", "quantise", "tensors_of"]


@dataclass(frozen=True)
class Scheme:
    """How activations are quantised.

    Attributes:
        kind: their type.
        symmetric: whether zero points are 0.
        outputs: whether a convolution's result is quantised too, and its bias with it.
    """

    kind: QuantType
    symmetric: bool
    outputs: bool


ONNXRUNTIME = Scheme(QuantType.QUInt8, symmetric=False, outputs=True)
"""Its CPU kernels compute a convolution with integers only if the result is quantised at once;
a zero point that makes 0 the smallest number spares the ReLU."""
TENSORRT = Scheme(QuantType.QInt8, symmetric=True, outputs=False)
"""It takes int8 with zero points of 0 only, no int32 biases, and fuses a convolution with what
follows, up to the next quantisation."""


@dataclass(frozen=True)
class Layer:
    """A convolution.

    Attributes:
        name: that of its weights, for example ``trunk.2.up``.
        node: name of its ONNX node.
        weights: elements of its kernel per output channel.
        input, output: names of its tensors.
        relu: name of the node of the ReLU that alone takes its output, and of that one's output.
    """

    name: str
    node: str
    weights: int
    input: str
    output: str
    relu: tuple[str, str] | None


def layers_of(model: onnx.ModelProto) -> list[Layer]:
    """The convolutions of a graph, in its order."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        following = consumers.get(node.output[0], [])
        is_relu = [f.op_type for f in following] == ["Relu"]
        layers.append(
            Layer(
                name=node.input[1].removesuffix(".weight"),
                node=node.name,
                weights=math.prod(shapes[node.input[1]][1:]),
                input=node.input[0],
                output=node.output[0],
                relu=(following[0].name, following[0].output[0]) if is_relu else None,
            )
        )
    return layers


def tensors_of(layer: Layer) -> tuple[str, str]:
    """Names of the tensors whose ranges :func:`quantise` needs: input and final output."""
    return layer.input, layer.relu[1] if layer.relu else layer.output


def quantise(
    model: onnx.ModelProto, layers: Collection[Layer], ranges: Ranges, scheme: Scheme
) -> onnx.ModelProto:
    """A copy of ``model`` in which ``layers`` compute with int8.

    Args:
        model: fp32, with weights as float32.
        layers: out of :func:`layers_of`; with none, the copy is equal to ``model``.
        ranges: of the tensors that :func:`tensors_of` names.
        scheme: :data:`ONNXRUNTIME` or :data:`TENSORRT`.
    """
    copy = onnx.shape_inference.infer_shapes(model)
    if not layers:
        return copy
    nodes, limits = [], {}
    for layer in layers:
        nodes.append(layer.node)
        first, last = tensors_of(layer)
        limits[first] = ranges[first]
        # What a ReLU cuts off need not be in the range of what goes into it.
        limits[layer.output] = limits[last] = ranges[last]
        if layer.relu and scheme.outputs:
            nodes.append(layer.relu[0])
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=scheme.kind,
        tensors_range=_tensors_data(limits),
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", "Relu"],
        extra_options={
            "ActivationSymmetric": scheme.symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": scheme.outputs,
            "OpTypesToExcludeOutputQuantization": [] if scheme.outputs else ["Conv"],
            "DedicatedQDQPair": True,
        },
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()
    quantised: onnx.ModelProto = quantiser.model.model
    return quantised


def _tensors_data(ranges: Ranges) -> TensorsData:
    as_floats = {
        name: TensorData(lowest=np.float32(lowest), highest=np.float32(highest))
        for name, (lowest, highest) in ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, as_floats)
