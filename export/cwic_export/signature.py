"""What goes into and out of a graph: names and shapes, as every exporter needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cwic_training.config import STRIDE

__all__ = [
    "Port",
    "Ports",
    "decoder_ports",
    "dynamic_shapes",
    "encoder_ports",
    "example_inputs",
    "gradient_ports",
]

_LARGEST_BATCH = 1 << 16
_LARGEST_SIDE = 1 << 13


@dataclass(frozen=True)
class Port:
    """One input or output of a graph.

    Attributes:
        name: its name in the graph.
        dims: fixed sizes as numbers and free ones by name.
        dtype: of its elements.
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: torch.dtype = torch.uint8


Ports: TypeAlias = tuple[Port, ...]


def _pixels(positions: str) -> str:
    """Name of the pixels along a side of so many positions."""
    return f"{STRIDE}*{positions}"


def encoder_ports(channels: int) -> tuple[Ports, Ports]:
    """Inputs and outputs of an encoder graph that gives so many channels of bytes."""
    h, w = f"H/{STRIDE}", f"W/{STRIDE}"
    outputs = (Port("codes", ("N", channels, h, w)), Port("importance", ("N", h, w)))
    return (Port("image", ("N", "H", "W", 3)),), outputs


def decoder_ports(channels: int) -> tuple[Ports, Ports]:
    """Inputs and outputs of a decoder graph that takes so many channels of bytes."""
    inputs = (Port("codes", ("N", channels, "h", "w")), Port("levels", ("N", "h", "w")))
    return inputs, (Port("image", ("N", _pixels("h"), _pixels("w"), 3)),)


def gradient_ports(channels: int, n: int) -> tuple[Ports, Ports]:
    """The same of a gradient graph of a model with ``n`` codes at a position."""
    inputs, outputs = decoder_ports(channels)
    found = (
        Port("gradient", ("N", n, "h", "w"), torch.float32),
        Port("error", ("N", "h", "w"), torch.float32),
    )
    return (*inputs, *outputs), found


def example_inputs(ports: Sequence[Port]) -> tuple[Tensor, ...]:
    """Zeros to trace with; no two free sizes are equal, so none is mistaken for another."""
    sizes = {"N": 2, "h": 8, "w": 9, "H": 8 * STRIDE, "W": 9 * STRIDE}
    sizes |= {_pixels(d): sizes[d] * STRIDE for d in ("h", "w")}
    return tuple(
        torch.zeros([d if isinstance(d, int) else sizes[d] for d in p.dims], dtype=p.dtype)
        for p in ports
    )


def dynamic_shapes(ports: Sequence[Port]) -> dict[str, dict[int, Any]]:
    """Which axes of which input are free, as ``torch.export`` takes it."""
    free: dict[str, Any] = {"N": torch.export.Dim("N", min=1, max=_LARGEST_BATCH)}
    dims = {d for p in ports for d in p.dims}
    for name in ("h", "w"):
        # torch.export keeps the size 1 apart for the root of a product, whatever its minimum.
        multiplied = bool(dims & {name.upper(), _pixels(name)})
        root = torch.export.Dim(name, min=2 if multiplied else 1, max=_LARGEST_SIDE)
        free |= {name: root, name.upper(): STRIDE * root, _pixels(name): STRIDE * root}
    return {p.name: {i: free[d] for i, d in enumerate(p.dims) if isinstance(d, str)} for p in ports}
