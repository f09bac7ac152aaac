"""The entropy model's context network (:mod:`cwic.context`) as one ONNX graph.

::

    own      int8  [M, 12 c]  group `group` at the 12 known neighbours ─┐
    earlier  int8  [M, n]     all codes at the positions themselves    ─┤
    level    uint8 [M]                                                 ─┼─▶ p1 uint16 [M, c]
    group    int64 []         0 .. L - 1                               ─┤
    kind     int64 []         0 .. 6; with 6 no neighbours are known   ─┘

A call is a pass of one group: M is free, and may be 0. Codes are -1, 0, 1. What ``earlier``
holds from channel ``group * c`` on changes nothing, nor does ``own`` where kind is 6.

The graph does what the NumPy reference does, in float32: matrix products whose sums stay
below 2^24, then a floor. Any runtime whose float32 is float32 gives its result, bit for bit.
``MatMulInteger`` would give no such promise: onnxruntime's documentation warns that its 8-bit
products saturate on x86 processors without VNNI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cwic.context import LOGITS, CodeModel
from cwic.exact_layers import LARGEST_ACTIVATION, WEIGHT_GRID
from cwic.scan import NEIGHBOURS
from cwic_export.onnx import IR_VERSION, OPSET, serialise

__all__ = ["to_bytes", "to_model"]


def to_bytes(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> bytes:
    """The graph as the bytes of an ONNX file, the same for the same tensors.

    Args: as :func:`to_model`.

    Raises:
        BundleError: as :func:`to_model`.
        ExportError: as :func:`cwic_export.onnx.serialise`.
    """
    return serialise(to_model(tensors, n, levels))


def to_model(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> onnx.ModelProto:
    """The graph above for the weights of one model.

    Args:
        tensors: the arrays of ``context.safetensors`` by name.
        n: code channels.
        levels: L.

    Raises:
        BundleError: the arrays are not those of an entropy model, or sums would not be exact.
    """
    CodeModel(tensors, n, levels)  # checks them
    c = n // levels
    graph = _Graph()
    _pick_weights(graph, _tables(tensors), levels)
    _predict(graph, tensors["codes.p1"], c)
    inputs: tuple[tuple[str, int, list[str | int]], ...] = (
        ("own", TensorProto.INT8, ["M", NEIGHBOURS * c]),
        ("earlier", TensorProto.INT8, ["M", n]),
        ("level", TensorProto.UINT8, ["M"]),
        ("group", TensorProto.INT64, []),
        ("kind", TensorProto.INT64, []),
    )
    whole = helper.make_graph(
        graph.nodes,
        "context",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info("p1", TensorProto.UINT16, ["M", c])],
        graph.constants,
    )
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(whole, opset_imports=[opset], ir_version=IR_VERSION)


class _Graph:
    """Nodes and constants. A node has the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, name: str, operator: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name


def _tables(
    tensors: Mapping[str, NDArray[Any]],
) -> dict[str, tuple[NDArray[np.int8] | NDArray[np.float32], str]]:
    """By name: a table int8 or float32, and which value picks a call's row of it.

    The shifts are in the weights and biases of the last two layers, as in the reference.
    """

    def halves_up(bias: NDArray[np.int32]) -> NDArray[np.float32]:
        return ((bias.astype(np.float64) + WEIGHT_GRID // 2) / WEIGHT_GRID).astype(np.float32)

    def rows(table: NDArray[Any]) -> NDArray[Any]:
        return table.reshape(-1, *table.shape[2:])

    w = {name.removeprefix("codes."): tensor for name, tensor in tensors.items()}
    no_neighbours = np.zeros((1, *w["own"].shape[1:]), np.int8)
    scaled = {name: (w[name] / WEIGHT_GRID).astype(np.float32) for name in ("middle", "last")}
    return {
        "own_weight": (rows(np.concatenate([w["own"], no_neighbours])), "kind_and_group"),
        "kind_bias": (rows(w["kind"]).astype(np.float32), "kind_and_group"),
        "earlier_weight": (w["earlier"], "group"),
        "level_bias": (w["level"].astype(np.float32), "group"),
        "middle_weight": (scaled["middle"], "group"),
        "middle_bias": (halves_up(w["middle_bias"]), "group"),
        "last_weight": (scaled["last"], "group"),
        "last_bias": (halves_up(w["last_bias"]), "group"),
    }


def _pick_weights(
    graph: _Graph, tables: Mapping[str, tuple[NDArray[Any], str]], levels: int
) -> None:
    """The float32 weights of the call's group and kind, under the names of their tables."""
    graph.constant("groups", np.array(levels, np.int64))
    graph.node("kind_times_groups", "Mul", "kind", "groups")
    graph.node("kind_and_group", "Add", "kind_times_groups", "group")
    for name, (table, row) in tables.items():
        source = graph.constant(f"{name}.table", table)
        if table.dtype == np.int8:
            # The whole table, which a runtime does once, when it loads the file.
            source = graph.node(f"{name}.float", "Cast", source, to=int(TensorProto.FLOAT))
        graph.node(name, "Gather", source, row, axis=0)


def _predict(graph: _Graph, p1: NDArray[np.uint16], c: int) -> None:
    constant, node = graph.constant, graph.node
    for name, value in (
        ("zero", 0),
        ("largest_activation", LARGEST_ACTIVATION),
        ("lowest_logit", -LOGITS // 2),
        ("highest_logit", LOGITS // 2 - 1),
        ("logits_below_zero", LOGITS // 2),
    ):
        constant(name, np.array(value, np.float32))
    constant("c", np.array([c], np.int64))
    constant("from_channel", np.array([0], np.int64))
    constant("rows", np.array([0], np.int64))
    constant("columns", np.array([1], np.int64))

    node("to_channel", "Mul", "group", "c")
    node("earlier.known", "Slice", "earlier", "from_channel", "to_channel", "columns")
    node("earlier_weight.known", "Slice", "earlier_weight", "from_channel", "to_channel", "rows")
    node("known", "Concat", "own", "earlier.known", axis=1)
    node("known.float", "Cast", "known", to=int(TensorProto.FLOAT))
    node("first_weight", "Concat", "own_weight", "earlier_weight.known", axis=0)
    node("first", "MatMul", "known.float", "first_weight")
    node("level.index", "Cast", "level", to=int(TensorProto.INT32))
    node("first_bias", "Add", "level_bias", "kind_bias")
    node("first_bias.each", "Gather", "first_bias", "level.index", axis=0)
    node("a1.free", "Add", "first", "first_bias.each")
    node("a1", "Clip", "a1.free", "zero", "largest_activation")

    node("middle", "MatMul", "a1", "middle_weight")
    node("middle.sum", "Add", "middle", "middle_bias")
    node("a2.free", "Floor", "middle.sum")
    node("a2", "Clip", "a2.free", "zero", "largest_activation")

    node("last", "MatMul", "a2", "last_weight")
    node("last.sum", "Add", "last", "last_bias")
    node("z.free", "Floor", "last.sum")
    node("z", "Clip", "z.free", "lowest_logit", "highest_logit")
    node("entry.float", "Add", "z", "logits_below_zero")
    node("entry", "Cast", "entry.float", to=int(TensorProto.INT32))
    node("p1", "Gather", constant("p1.table", p1), "entry", axis=0)
