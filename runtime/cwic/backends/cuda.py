"""CUDA's runtime through cuda-python: calls that raise, and memory that frees itself.

cuda-python 12.6 and later has it as ``cuda.bindings.runtime``, older ones (JetPack 6) as
``cuda.cudart``; the calls made here are the same in both. Nothing here was run on a GPU
yet: the tests run it over a fake of the runtime that keeps "device" memory on the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import weakref
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BackendError

__all__ = ["Buffer", "Cuda", "Graph", "Stream"]


class Cuda:
    """CUDA's runtime.

    Args:
        cuda_version: what the driver supports; the remedy for a missing package names it.

    Raises:
        BackendError: cuda-python is not installed.
    """

    def __init__(self, cuda_version: str) -> None:
        self._package = f"pip install 'cuda-python~={cuda_version.partition('.')[0]}.0'"
        self.runtime = _import_runtime(self._package)
        self._remedies = {
            "cudaErrorMemoryAllocation": "free memory on the GPU, use smaller pictures",
            "cudaErrorInsufficientDriver": self._package,
        }

    def call(self, name: str, *arguments: Any) -> Any:
        """The result of one call; None, the value, or a tuple of values.

        Raises:
            BackendError: CUDA reports an error, or the function is not to be had.
        """
        try:
            status, *values = getattr(self.runtime, name)(*arguments)
        except (AttributeError, RuntimeError) as exc:  # how the bindings say: no such symbol
            raise BackendError(f"cuda-python cannot call {name} ({exc}); {self._package}") from exc
        if int(status):
            reason = getattr(status, "name", str(status))
            remedy = self._remedies.get(reason, "run cwic doctor to see driver and versions")
            raise BackendError(f"CUDA failed in {name} ({reason}); {remedy}, or use --backend cpu")
        return None if not values else values[0] if len(values) == 1 else tuple(values)

    def forget_error(self) -> None:
        """Take back the error that the last failed call left for the next one to find."""
        with contextlib.suppress(BackendError):
            self.call("cudaGetLastError")


class Stream:
    """A stream of its own that takes no notice of the default one.

    Attributes:
        handle: what CUDA's calls take.
    """

    def __init__(self, cuda: Cuda) -> None:
        flags = cuda.runtime.cudaStreamNonBlocking
        self.handle = cuda.call("cudaStreamCreateWithFlags", flags)
        _when_gone(self, cuda.runtime.cudaStreamDestroy, self.handle)


class Graph:
    """Work that was captured on a stream, ready to be launched as one."""

    def __init__(self, cuda: Cuda, captured: Any) -> None:
        self._cuda = cuda
        try:
            self._handle = cuda.call("cudaGraphInstantiate", captured, 0)
        finally:
            cuda.runtime.cudaGraphDestroy(captured)
        _when_gone(self, cuda.runtime.cudaGraphExecDestroy, self._handle)

    def launch(self, stream: Stream) -> None:
        self._cuda.call("cudaGraphLaunch", self._handle, stream.handle)


class Buffer:
    """Memory for one tensor of bytes, on the device and (pinned) on the host; it only grows.

    Args:
        cuda: the runtime.
        on_host: it is filled or read on the host.
        shared: the GPU reads and writes the host's memory itself (an integrated GPU).

    Attributes:
        address: where the device finds it; 0 before the first :meth:`reserve`.
        size: bytes that it holds.
    """

    def __init__(self, cuda: Cuda, *, on_host: bool, shared: bool = False) -> None:
        self._cuda, self._on_host, self._shared = cuda, on_host, shared and on_host
        self._host: _Memory | None = None
        self._device: _Memory | None = None
        self.address = self.size = 0

    @property
    def shared(self) -> bool:
        """Host and device use the same bytes: nothing is to be copied."""
        return self._shared

    @property
    def host_address(self) -> int:
        """Where the host finds it."""
        return self._host.address if self._host else 0

    def reserve(self, size: int) -> None:
        """Hold at least ``size`` bytes. Where that takes new memory, the content is lost.

        Raises:
            BackendError: there is not enough memory; the buffer then is empty.
        """
        if size <= self.size:
            return
        # The old memory goes first: a device may not have room for both.
        self._host = self._device = None
        self.address = self.size = 0
        if self._on_host:
            self._host = _Memory(self._cuda, "cudaMallocHost", "cudaFreeHost", size)
        if not self._shared:
            self._device = _Memory(self._cuda, "cudaMalloc", "cudaFree", size)
        memory = self._device or self._host
        self.address, self.size = (memory.address if memory else 0), size

    def view(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The first bytes of the host's side, uint8 of this shape, without a copy."""
        pointer = ctypes.cast(self.host_address, ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(pointer, (math.prod(shape),)).reshape(shape)


class _Memory:
    """One allocation, freed with its last reference."""

    def __init__(self, cuda: Cuda, allocate: str, free: str, size: int) -> None:
        self.address = int(cuda.call(allocate, size))
        _when_gone(self, getattr(cuda.runtime, free), self.address)


def _when_gone(holder: object, function: Any, *arguments: Any) -> None:
    # Not at the interpreter's exit: the driver may have gone by then, and takes all with it.
    weakref.finalize(holder, function, *arguments).atexit = False


def _import_runtime(package: str) -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as first:
        try:
            return importlib.import_module("cuda.cudart")
        except ImportError:
            raise BackendError(
                f"the tensorrt backend needs cuda-python ({first}); {package}"
            ) from first
