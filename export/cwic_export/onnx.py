"""ONNX: one self-contained file per graph, the same bytes for the same weights.

Opset 18 and IR version 10, so that onnxruntime 1.18 and TensorRT 10.3 read it. Weights
whose values are halves already, as those of a release are, are stored as halves and cast
to float32 by the graph: half the file, the same numbers, and a runtime folds the cast
when it loads the file.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from cwic.errors import ExportError, first_line
from cwic_export import ops
from cwic_export.graphs import Graph
from cwic_export.quiet import quiet
from cwic_export.signature import Port, dynamic_shapes, example_inputs

__all__ = ["IR_VERSION", "OPSET", "serialise", "to_bytes", "to_model"]

OPSET = 18
IR_VERSION = 10
_SMALL = 1024
"""Elements of a tensor that is not worth a Cast."""


def to_bytes(graph: Graph) -> bytes:
    """``graph`` as the bytes of an ONNX file.

    Raises:
        ExportError: as :func:`to_model` and :func:`serialise`.
    """
    return serialise(to_model(graph))


def to_model(graph: Graph) -> onnx.ModelProto:
    """``graph`` as an ONNX model; its ``cwic`` operators stay nodes (:mod:`cwic_export.ops`).

    Raises:
        ExportError: the installed torch, onnx and onnxscript do not work together.
    """
    inputs, outputs = graph.ports()
    try:
        with quiet():
            program = torch.onnx.export(
                graph,
                example_inputs(inputs),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table=ops.translation_table(),
                input_names=[p.name for p in inputs],
                output_names=[p.name for p in outputs],
                dynamic_shapes=dynamic_shapes(inputs),
            )
        if program is None:
            raise ExportError("torch.onnx.export gave no program; install cwic[export] afresh")
        model: onnx.ModelProto = program.model_proto
    except torch.onnx.errors.OnnxExporterError as exc:
        raise _failed(exc) from exc
    _name_dims(model, (*inputs, *outputs))
    ops.add_functions(model)
    return model


def serialise(model: onnx.ModelProto) -> bytes:
    """``model`` as the bytes of a file: checked, without traces of the machine.

    Weights become halves where that loses nothing; ``model`` itself is left as it is.

    Raises:
        ExportError: the model is not valid ONNX.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _strip(copy)
    _store_halves(copy.graph)
    copy.ir_version = min(copy.ir_version, IR_VERSION)
    try:
        onnx.checker.check_model(copy)
    except onnx.checker.ValidationError as exc:
        raise _failed(exc) from exc
    return bytes(copy.SerializeToString(deterministic=True))


def _failed(exc: Exception) -> ExportError:
    return ExportError(
        f"the ONNX exporter of torch {torch.__version__} failed ({first_line(exc)}); "
        "install the versions that cwic[export] names"
    )


def _name_dims(model: onnx.ModelProto, ports: Iterable[Port]) -> None:
    """Give free axes the names of the signature instead of the exporter's."""
    found = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for port in ports:
        kind = onnx.helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=port.dtype).numpy().dtype)
        shape = onnx.helper.make_tensor_type_proto(kind, port.dims)
        found[port.name].type.CopyFrom(shape)


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces, paths and guessed shapes: they change with the machine."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _store_halves(graph: onnx.GraphProto) -> None:
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if array.size <= _SMALL or not np.array_equal(half.astype(np.float32), array):
            continue
        name, stored = tensor.name, f"{tensor.name}.half"
        tensor.CopyFrom(numpy_helper.from_array(half, stored))
        casts.append(
            onnx.helper.make_node(
                "Cast", [stored], [name], name=f"widen_{name}", to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
