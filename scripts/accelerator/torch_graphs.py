"""Graphs that PyTorch runs on a device: host arrays in and out, or kept there for timing.

The runners of :mod:`cwic_export.runners` run on the CPU; these take a device, and ``cpu`` is one.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export.passes import move_to_device_pass

from cwic_export.quiet import quiet
from cwic_export.runners import Runner

__all__ = ["DeviceRunner", "exact_fp32", "load_exported_program", "load_torchscript"]

Bytes = NDArray[np.uint8]


class DeviceRunner(Runner):
    """Two modules on a device.

    Args:
        encoder, decoder: the graphs, on the device already.
        device: ``cuda`` or ``cpu``.
        autocast: compute convolutions in this type.
    """

    target = "PyTorch"

    def __init__(
        self, encoder: Any, decoder: Any, device: str, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(encoder, decoder)
        self._device, self._autocast = device, autocast

    def _run(self, graph: Any, inputs: dict[str, Bytes]) -> tuple[Bytes, ...]:
        outputs = self._call(graph, self._tensors(inputs.values()))
        return tuple(output.cpu().numpy() for output in outputs)

    def resident(self, role: str, feeds: dict[str, Bytes]) -> Callable[[], None]:
        """One call of a graph whose inputs and outputs stay on the device; it waits for the end.

        Args:
            role: ``encoder`` or ``decoder``.
            feeds: inputs in the graph's order, copied to the device once.
        """
        graph = self._encoder if role == "encoder" else self._decoder
        tensors = self._tensors(feeds.values())

        def once() -> None:
            self._call(graph, tensors)
            if self._device == "cuda":
                torch.cuda.synchronize()

        return once

    def _tensors(self, arrays: Any) -> list[Tensor]:
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def _call(self, graph: Any, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        cast = torch.autocast(self._device, self._autocast, enabled=self._autocast is not None)
        with torch.inference_mode(), cast:
            outputs = graph(*tensors)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def load_torchscript(data: bytes, device: str) -> Any:
    """A TorchScript archive on a device."""
    with quiet():
        return torch.jit.load(io.BytesIO(data), map_location=device)  # type: ignore[no-untyped-call]


def load_exported_program(data: bytes, device: str) -> Any:
    """A ``.pt2`` archive on a device.

    It was exported on the CPU, and the operators that make tensors name that device: moving the
    weights alone is not enough.
    """
    with quiet():
        return move_to_device_pass(torch.export.load(io.BytesIO(data)), device).module()


@contextlib.contextmanager
def exact_fp32() -> Iterator[None]:
    """PyTorch without TF32, which it takes for convolutions and which rounds inputs to 10 bits."""
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
