"""What a graph costs: parameters, and multiply-accumulates per pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_training.config import STRIDE

__all__ = ["Cost", "decoder_cost", "encoder_cost"]

_SIDE_PX = 64


@dataclass(frozen=True)
class Cost:
    """Cost of one graph.

    Attributes:
        parameters: weights and biases.
        kmac_per_px: thousands of multiply-accumulates of its convolutions per pixel.
    """

    parameters: int
    kmac_per_px: float


def encoder_cost(graph: EncoderGraph) -> Cost:
    """Cost of ``graph``."""
    return _measure(graph, torch.zeros(1, _SIDE_PX, _SIDE_PX, 3, dtype=torch.uint8))


def decoder_cost(graph: DecoderGraph) -> Cost:
    """Cost of ``graph``."""
    side = _SIDE_PX // STRIDE
    codes = torch.zeros(1, graph.packing.decoder_channels, side, side, dtype=torch.uint8)
    return _measure(graph, codes, torch.zeros(1, side, side, dtype=torch.uint8))


def _measure(graph: nn.Module, *inputs: Tensor) -> Cost:
    macs = 0

    def count(conv: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        if isinstance(conv, nn.Conv2d):
            window = math.prod(conv.kernel_size) * conv.in_channels // conv.groups
            macs += output.numel() * window

    convs = [module for module in graph.modules() if isinstance(module, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    try:
        with torch.inference_mode():
            graph(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return Cost(sum(p.numel() for p in graph.parameters()), macs / _SIDE_PX**2 / 1000)
