"""Does every layer compute in the precision that was asked for?

A strongly typed network says each tensor's type before anything is built, so the audit
needs no GPU. It looks at layers that calculate with fractions and depend on the input:

* between the first and the last convolution all must have the asked type;
* outside of that stretch, and in the bodies of the ``cwic`` operators, fp32 is allowed:
  pixels to numbers and back, code bits to bytes and back, ``binarize``, the mask.

For int8, a convolution counts as int8 when what it takes was dequantised just before:
TensorRT runs the pair as one int8 convolution. How many must be is the quantiser's matter
(it may leave sensitive ones out), so the audit fails only when there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from cwic.engines.network import Layer
from cwic.errors import BackendError

__all__ = ["Audit", "audit", "check"]

_WEIGHTED = frozenset({"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY"})
_CALCULATING = _WEIGHTED | {
    "ACTIVATION",
    "EINSUM",
    "ELEMENTWISE",
    "NORMALIZATION",
    "PARAMETRIC_RELU",
    "PLUGIN_V3",
    "POOLING",
    "REDUCE",
    "RESIZE",
    "SCALE",
    "SOFTMAX",
    "UNARY",
}
_FRACTIONS = frozenset({"fp32", "fp16", "bf16", "fp8", "fp4"})

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Audit:
    """What a network computes in.

    Attributes:
        precision: what was asked for.
        weighted: how many convolutions compute in each type, for example ``{"fp16": 17}``.
        allowed: how many other layers keep fp32, by where they are: ``input`` (before the
            first convolution), ``output`` (after the last one), or the name of the operator.
        wrong: names of the layers that should have had another type.
    """

    precision: str
    weighted: Mapping[str, int]
    allowed: Mapping[str, int]
    wrong: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "precision": self.precision,
            "weighted": dict(self.weighted),
            "allowed": dict(self.allowed),
            "wrong": list(self.wrong),
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {dtype}" for dtype, count in self.weighted.items())
        return f"convolutions: {counts or 'none'}"


def audit(layers: Sequence[Layer], precision: str) -> Audit:
    """Check the layers of a network that was asked to compute in ``precision``.

    Args:
        layers: in an order in which every tensor is made before it is used.
        precision: ``fp32``, ``fp16`` or ``int8``.
    """
    from_input = _downstream(layers, _graph_inputs(layers))
    weighted = [
        layer for layer in layers if layer.type in _WEIGHTED and _touches(layer, from_input)
    ]
    after_first = _downstream(layers, _outputs(weighted))
    before_last = _upstream(layers, {t.name for w in weighted for t in w.inputs})
    dequantised = {t.name for layer in layers if layer.type == "DEQUANTIZE" for t in layer.outputs}
    kinds: Counter[str] = Counter()
    allowed: Counter[str] = Counter()
    wrong: list[str] = []
    for layer in layers:
        if layer.type not in _CALCULATING or not _touches(layer, from_input):
            continue
        dtype = _computes_in(layer, dequantised)
        if layer in weighted:
            kinds[dtype] += 1
        elif dtype not in _FRACTIONS:
            continue  # sizes and comparisons
        reason = _reason(layer, layer in weighted, after_first, before_last)
        if dtype == precision or precision == "int8":
            continue
        if reason is not None and dtype == "fp32":
            allowed[reason] += 1
        else:
            wrong.append(layer.name)
    if precision == "int8" and not kinds["int8"]:
        wrong = [layer.name for layer in weighted]
    return Audit(
        precision, dict(sorted(kinds.items())), dict(sorted(allowed.items())), tuple(wrong)
    )


def check(result: Audit, name: str) -> None:
    """Refuse a network with layers of another type than was asked for.

    Raises:
        BackendError: naming the first few of them.
    """
    if not result.weighted:
        raise BackendError(f"{name} has no convolution; export the model again")
    if not result.wrong:
        return
    names = ", ".join(result.wrong[:_NAMES_SHOWN])
    if len(result.wrong) > _NAMES_SHOWN:
        names += f" and {len(result.wrong) - _NAMES_SHOWN} more"
    raise BackendError(
        f"{name} was asked to compute in {result.precision}, but does not in {names} "
        f"({result}); export that precision again, or ask for another --precision"
    )


def _computes_in(layer: Layer, dequantised: AbstractSet[str]) -> str:
    """The type that ``layer`` calculates in; ``dequantised`` names tensors made from int8."""
    if layer.type in _WEIGHTED and layer.inputs and layer.inputs[0].name in dequantised:
        return "int8"
    return layer.outputs[0].dtype if layer.outputs else "none"


def _reason(
    layer: Layer, weighted: bool, after_first: set[str], before_last: set[str]
) -> str | None:
    if weighted:
        return None
    if layer.function is not None:
        return layer.function
    if not _touches(layer, after_first):
        return "input"
    if not {t.name for t in layer.outputs} & before_last:
        return "output"
    return None


def _graph_inputs(layers: Sequence[Layer]) -> set[str]:
    made = _outputs(layers)
    return {t.name for layer in layers for t in layer.inputs if t.name not in made}


def _outputs(layers: Iterable[Layer]) -> set[str]:
    return {t.name for layer in layers for t in layer.outputs}


def _touches(layer: Layer, names: set[str]) -> bool:
    return any(t.name in names for t in layer.inputs)


def _downstream(layers: Sequence[Layer], names: set[str]) -> set[str]:
    """``names`` and every tensor that is made from one of them."""
    reached = set(names)
    for layer in layers:
        if _touches(layer, reached):
            reached |= _outputs([layer])
    return reached


def _upstream(layers: Sequence[Layer], names: set[str]) -> set[str]:
    """``names`` and every tensor that one of them is made from."""
    reached = set(names)
    for layer in reversed(layers):
        if {t.name for t in layer.outputs} & reached:
            reached |= {t.name for t in layer.inputs}
    return reached
