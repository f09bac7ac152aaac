"""Which layers stay fp32: found by measuring, not by rules.

All layers are tried first. If that loses too much, each layer is quantised alone, and
those that lose most for the work that they save go first; bisection finds how many must
stay fp32 until the loss is within its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from cwic.errors import ExportError
from cwic_export.quantize.calibration import measure
from cwic_export.quantize.qdq import Layer, Scheme, layers_of, quantise, tensors_of
from cwic_export.quantize.scoring import QUALITIES, Role, Score, Scorer
from cwic_export.quantize.session import Session

__all__ = ["Quantised", "search"]


@dataclass(frozen=True)
class Quantised:
    """An int8 graph within its limit.

    Attributes:
        model: the graph.
        fp32_layers: names of the convolutions that stay fp32, the most sensitive first.
        int8_macs_share: share of the multiply-accumulates that int8 does.
        score: of the graph.
        alone: score of each layer quantised alone; empty if all could be quantised.
    """

    model: onnx.ModelProto
    fp32_layers: tuple[str, ...]
    int8_macs_share: float
    score: Score
    alone: dict[str, Score]

    def facts(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "int8_macs_share": round(self.int8_macs_share, 4),
            "fp32_layers": list(self.fp32_layers),
            **_plain(self.score),
            "delta_psnr_db": _by_quality(self.score.delta_psnr_db),
            "delta_bits": _by_quality(self.score.delta_bits),
            "alone": {name: _plain(score) for name, score in self.alone.items()},
        }


def search(
    role: Role, model: onnx.ModelProto, scorer: Scorer, scheme: Scheme, largest_loss_db: float
) -> Quantised:
    """Quantise as much of a graph as the limit allows.

    Args:
        role: which graph ``model`` is.
        model: fp32.
        scorer: of the same model.
        scheme: what the result is for.
        largest_loss_db: PSNR that may be lost at equal bits (:attr:`Score.loss_db`).

    Raises:
        ExportError: not even one layer can be quantised within the limit.
    """
    layers = layers_of(model)
    names = {name for layer in layers for name in tensors_of(layer)}
    ranges, sizes = measure(model, names, scorer.feeds(role))
    macs = {layer.name: layer.weights * sizes[tensors_of(layer)[1]] for layer in layers}

    def attempt(chosen: Sequence[Layer]) -> tuple[onnx.ModelProto, Score]:
        candidate = quantise(model, chosen, ranges, scheme)
        return candidate, scorer.score(role, Session(candidate.SerializeToString()))

    candidate, score = attempt(layers)
    alone: dict[str, Score] = {}
    first_kept = 0
    if score.loss_db > largest_loss_db:
        alone = {layer.name: attempt([layer])[1] for layer in layers}
        layers.sort(
            key=lambda layer: alone[layer.name].mean_loss_db / macs[layer.name], reverse=True
        )
        # With `too_few` layers in fp32 too much is lost, with all of them nothing is.
        too_few, first_kept = 0, len(layers)
        while first_kept - too_few > 1:
            middle = (too_few + first_kept) // 2
            tried, tried_score = attempt(layers[middle:])
            if tried_score.loss_db > largest_loss_db:
                too_few = middle
            else:
                first_kept, candidate, score = middle, tried, tried_score
        if first_kept == len(layers):
            raise ExportError(
                f"no layer of the {role} can be int8 within {largest_loss_db} dB; "
                "allow more with --int8-loss, or leave int8 out"
            )
    saved = sum(macs[layer.name] for layer in layers[first_kept:])
    return Quantised(
        model=candidate,
        fp32_layers=tuple(layer.name for layer in layers[:first_kept]),
        int8_macs_share=saved / sum(macs.values()),
        score=score,
        alone=alone,
    )


def _plain(score: Score) -> dict[str, Any]:
    return {
        "losses_db": _by_quality(score.losses_db),
        "flip_share": round(score.flip_share, 5),
    }


def _by_quality(values: Sequence[float]) -> dict[str, float]:
    pairs = zip(QUALITIES, values, strict=True)
    return {str(quality): round(float(value), 4) for quality, value in pairs}
