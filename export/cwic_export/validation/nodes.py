"""Where a graph leaves the reference: the ONNX nodes that its error comes from.

Both graphs are run with every inner tensor as an output, and tensors that mean the same are
compared: those of one name, or, where the names differ, the k-th of each operator. A node's
error is compared with the largest error among what goes into it, so that one bad layer
stands out from those behind it that only pass its error on.

Watching tensors keeps onnxruntime from fusing nodes across them: the figures are those of
the graph as it is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import inf, isfinite

import numpy as np
import onnx
from numpy.typing import NDArray

from cwic_export.quantize.session import Session
from cwic_export.validation.report import Departure

__all__ = ["departures"]

# fmt: off
_COMPUTING = frozenset((
    "Add", "AveragePool", "Clip", "Conv", "ConvTranspose", "DepthToSpace", "Div", "Gemm",
    "HardSigmoid", "LeakyRelu", "MatMul", "Mul", "PRelu", "Relu", "Sigmoid", "Softplus",
    "SpaceToDepth", "Sub", "Tanh",
))
# fmt: on
_ROUNDING = frozenset(("binarize", "Round"))
"""What comes after them differs by whole steps, whatever the error before them. (A decoder's
Floor takes apart bytes that are equal.)"""
_WEIGHT = ".weight"
_NOTHING = 1e-6
"""Errors of float32 itself."""

Feeds = Mapping[str, NDArray[np.uint8]]


def departures(
    graph: str, reference: bytes, candidate: bytes, feeds: Feeds, count: int = 5
) -> list[Departure]:
    """The nodes of ``candidate`` that add most to its error, in the order of the graph.

    The first node that differs from the reference at all is always one of them.

    Args:
        graph: ``encoder`` or ``decoder``, for the result.
        reference, candidate: ONNX files with the same inputs.
        feeds: the inputs.
        count: how many nodes to name.

    Raises:
        ExportError: onnxruntime does not run one of them.
    """
    models = [onnx.load_from_string(data) for data in (reference, candidate)]
    pairs = _matched(*models)
    ours = _run(models[0], list(pairs.values()), feeds)
    theirs = _run(models[1], list(pairs), feeds)
    errors = {
        name: _relative_error(theirs[name], ours[other])
        for name, other in pairs.items()
        if theirs[name].shape == ours[other].shape
    }
    found = _with_inherited(graph, models[1].graph, errors)
    if not found:
        return []
    kept = sorted(found, key=_added, reverse=True)[:count]
    if found[0] not in kept:
        kept = [found[0], *kept[: count - 1]]
    return [departure for departure in found if departure in kept]


def _matched(reference: onnx.ModelProto, candidate: onnx.ModelProto) -> dict[str, str]:
    """Output of a node of ``candidate`` -> that of the same node of ``reference``."""
    ours, theirs = (_computing(model.graph) for model in (reference, candidate))
    by_name = {name: name for name, op in theirs.items() if ours.get(name) == op}
    if 2 * len(by_name) >= len(ours):
        return by_name
    positions: list[dict[str, list[str]]] = []
    for graph in (ours, theirs):
        lists: dict[str, list[str]] = defaultdict(list)
        for name, op in graph.items():
            lists[op].append(name)
        positions.append(lists)
    return {
        name: other
        for op, names in positions[1].items()
        if len(names) == len(positions[0][op])
        for name, other in zip(names, positions[0][op], strict=True)
    }


def _computing(graph: onnx.GraphProto) -> dict[str, str]:
    """Output and operator of the nodes that compute with real numbers, in order."""
    found: dict[str, str] = {}
    rounded: set[str] = set()
    for node in graph.node:
        if node.op_type in _ROUNDING or rounded.intersection(node.input):
            rounded.update(node.output)
        elif node.op_type in _COMPUTING and node.domain in ("", "ai.onnx"):
            found[node.output[0]] = node.op_type
    return found


def _run(model: onnx.ModelProto, names: list[str], feeds: Feeds) -> dict[str, NDArray[np.float64]]:
    watching = onnx.ModelProto()
    watching.CopyFrom(model)
    own = {value.name for value in model.graph.output}
    # Only a name: onnxruntime finds type and shape by itself.
    watching.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in own)
    session = Session(watching.SerializeToString())
    if not names:
        return {}
    values = session.run(feeds, names)
    return {name: value.astype(np.float64) for name, value in zip(names, values, strict=True)}


def _relative_error(value: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    difference = np.sqrt(np.square(value - wanted).mean())
    size = np.sqrt(np.square(wanted).mean())
    if difference == 0:
        return 0.0
    error = float(difference / size) if size > 0 else inf
    return error if isfinite(error) else inf


def _with_inherited(
    graph: str, candidate: onnx.GraphProto, errors: Mapping[str, float]
) -> list[Departure]:
    """The compared nodes that differ, each with the error of what goes into it."""
    arriving: dict[str, float] = {}  # largest error of the compared tensors behind a tensor
    found: list[Departure] = []
    for node in candidate.node:
        before = max((arriving.get(name, 0.0) for name in node.input), default=0.0)
        error = errors.get(node.output[0])
        if error is not None and error > _NOTHING:
            found.append(
                Departure(
                    graph=graph,
                    node=node.name,
                    op=node.op_type,
                    layer=next((_layer(n) for n in node.input if _WEIGHT in n), ""),
                    tensor=node.output[0],
                    error=error,
                    before=before,
                    first=not found,
                )
            )
        arriving.update(dict.fromkeys(node.output, before if error is None else error))
    return found


def _layer(weight: str) -> str:
    """``trunk.2.up`` of ``trunk.2.up.weight``, and of what a quantiser makes of that name."""
    return weight.partition(_WEIGHT)[0]


def _added(departure: Departure) -> float:
    """What the node adds itself, if errors add up as independent ones do."""
    if not isfinite(departure.error):
        return inf if isfinite(departure.before) else 0.0
    return max(departure.error**2 - departure.before**2, 0.0)
