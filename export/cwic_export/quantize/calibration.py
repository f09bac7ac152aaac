"""What a graph's tensors hold on real pictures: their ranges, and how large they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from cwic_export.quantize.session import Session

__all__ = ["Feeds", "Ranges", "measure"]

Feeds: TypeAlias = Mapping[str, NDArray[np.uint8]]
"""Inputs of a graph by name."""
Ranges: TypeAlias = dict[str, tuple[float, float]]
"""Lowest and highest value of tensors by name."""

_CLIPPED = 1e-5
"""Share of a tensor's values that may lie beyond its range, on each side: a few outliers
would cost all other values their precision."""


def measure(
    model: onnx.ModelProto, names: Collection[str], feeds: Iterable[Feeds]
) -> tuple[Ranges, dict[str, int]]:
    """Run ``model`` and look at the float32 tensors ``names`` inside it.

    Args:
        model: the graph.
        names: tensors of it.
        feeds: inputs, one run each.

    Returns:
        For each tensor its range over all runs, without the outermost values, and its
        number of elements in the last run.
    """
    watched = sorted(set(names))
    session = Session(_with_outputs(model, watched))
    ranges: Ranges = {}
    sizes: dict[str, int] = {}
    for feed in feeds:
        for name, values in zip(watched, session.run(feed, watched), strict=True):
            lowest, highest = np.quantile(values, (_CLIPPED, 1 - _CLIPPED), method="nearest")
            before = ranges.get(name, (float(lowest), float(highest)))
            ranges[name] = (min(before[0], float(lowest)), max(before[1], float(highest)))
            sizes[name] = values.size
    return ranges, sizes


def _with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in names:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        copy.graph.output.append(value)
    return bytes(copy.SerializeToString())
