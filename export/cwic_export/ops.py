"""The two operators in ONNX: nodes of domain ``cwic`` with a body of standard operators.

A node stays one node in the file, so that a runtime with a plugin of that name can use it
(``plugin_namespace`` is what TensorRT looks for); every other runtime inlines the body,
a model-local function that travels in the same file::

    cwic_training.ops           in the file                   in a runtime without a plugin
    cwic::binarize         ──▶  cwic.binarize (x)        ──▶  Greater, Cast
    cwic::importance_mask  ──▶  cwic.importance_mask     ──▶  Mul, Clip, Round, Range, Less, ...
                                <levels, n> (p, scale)

The exporter inlines any function that it is given, so the nodes are emitted bare, through
schemas that exist in this process only, and :func:`add_functions` appends the bodies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import torch
from onnx import defs
from onnxscript import values

import cwic_training.ops  # noqa: F401 - registers the PyTorch side of the operators

__all__ = ["DOMAIN", "add_functions", "translation_table"]

DOMAIN = "cwic"
_VERSION = 1

_BODIES = {
    "binarize": """
        binarize <plugin_namespace> (x) => (bits) {
            zero = Constant <value_float: float = 0.0> ()
            positive = Greater (x, zero)
            bits = Cast <to: int = 1> (positive)
        }""",
    "importance_mask": """
        importance_mask <levels, n, plugin_namespace> (p, scale) => (mask) {
            zero = Constant <value_float: float = 0.0> ()
            one = Constant <value_float: float = 1.0> ()
            first = Constant <value_int: int = 0> ()
            step = Constant <value_int: int = 1> ()
            per_picture = Constant <value_ints: ints = [-1, 1, 1, 1]> ()
            per_channel = Constant <value_ints: ints = [1, -1, 1, 1]> ()
            highest = Constant <value_int: int = @levels> ()
            channels = Constant <value_int: int = @n> ()
            highest_f = Cast <to: int = 1> (highest)
            channels_f = Cast <to: int = 1> (channels)
            factor = Reshape (scale, per_picture)
            scaled = Mul (p, factor)
            clipped = Clip (scaled, zero, one)
            steps = Mul (clipped, highest_f)
            level = Round (steps)
            codes_per_level = Div (channels_f, highest_f)
            kept = Mul (level, codes_per_level)
            index = Range (first, channels, step)
            index_f = Cast <to: int = 1> (index)
            channel = Reshape (index_f, per_channel)
            keep = Less (channel, kept)
            mask = Cast <to: int = 1> (keep)
        }""",
}


def _register_schemas() -> None:
    if defs.has("binarize", DOMAIN):
        return
    parameter, attribute = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute
    kind = defs.OpSchema.AttrType
    namespace = attribute("plugin_namespace", kind.STRING, required=True)
    shape = [attribute(name, kind.INT, required=True) for name in ("levels", "n")]
    floats = [("T", ["tensor(float)"], "")]
    for name, inputs, output, attributes in (
        ("binarize", ["x"], "bits", [namespace]),
        ("importance_mask", ["p", "scale"], "mask", [*shape, namespace]),
    ):
        defs.register_schema(
            defs.OpSchema(
                name,
                DOMAIN,
                _VERSION,
                inputs=[parameter(i, "T") for i in inputs],
                outputs=[parameter(output, "T")],
                type_constraints=floats,
                attributes=attributes,
            )
        )


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export`` takes as ``custom_translation_table``."""
    _register_schemas()
    domain = values.Opset(DOMAIN, _VERSION)

    def binarize(x: Any) -> Any:
        return domain.binarize(x, plugin_namespace=DOMAIN)

    def importance_mask(p: Any, scale: Any, levels: int, n: int) -> Any:
        return domain.importance_mask(p, scale, levels=levels, n=n, plugin_namespace=DOMAIN)

    return {
        torch.ops.cwic.binarize.default: binarize,
        torch.ops.cwic.importance_mask.default: importance_mask,
    }


def add_functions(model: onnx.ModelProto) -> None:
    """Append the body of every ``cwic`` node in ``model``, in the model's own opset."""
    used = sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
    opset = next(o.version for o in model.opset_import if not o.domain)
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>'
    model.functions.extend(onnx.parser.parse_function(header + _BODIES[name]) for name in used)
    if used and not any(o.domain == DOMAIN for o in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, _VERSION))
