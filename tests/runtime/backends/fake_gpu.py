"""A GPU in the host's memory: enough of cuda-python and TensorRT to run the runner's logic.

"Device" memory is host memory whose every access is checked against what is allocated, so
that a stale address, a short buffer or a graph that outlived its buffers is an error here
as it would be there. An "engine" is the bytes of an ONNX file, and onnxruntime computes.
What this cannot show: that the real libraries behave as their manuals say.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import pytest

from cwic.backends.device import Device
from cwic.bundle import Bundle

ORIN = Device("Orin", "87", 7620, False, "12.6")
VERSION = "10.3.0.26"
WithEngines: TypeAlias = Callable[..., Bundle]
"""The fixture ``with_engines``: keyword arguments are fields of the records."""


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorStreamCaptureUnsupported = 900


class FakeCuda:
    """The module ``cuda.bindings.runtime``."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.memory: dict[int, tuple[str, Any]] = {}  # address -> side, bytes
        self.limit_bytes = 1 << 30
        self.instantiable = True
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], bool]]] = {}
        self.capturing: list[Callable[[], bool]] | None = None
        self.calls: list[str] = []
        self._handles = itertools.count(1)

    def used(self, side: str) -> int:
        return sum(len(block) for kind, block in self.memory.values() if kind == side)

    def holds(self, address: int, size: int, *sides: str) -> bool:
        """Whether these bytes lie in one live allocation of one of the sides."""
        return any(
            side in sides and start <= address and address + size <= start + len(block)
            for start, (side, block) in self.memory.items()
        )

    def enqueue(self, work: Callable[[], bool]) -> bool:
        if self.capturing is not None:
            self.capturing.append(work)
            return True
        return work()

    def _allocate(self, side: str, size: int) -> tuple[Status, int | None]:
        if self.used(side) + size > self.limit_bytes:
            return Status.cudaErrorMemoryAllocation, None
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = (side, block)
        return Status.cudaSuccess, ctypes.addressof(block)

    def _free(self, address: int) -> tuple[Status]:
        del self.memory[address]
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Status, int | None]:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> tuple[Status, int | None]:
        return self._allocate("host", size)

    cudaFree = cudaFreeHost = _free

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        self.streams.add(handle := next(self._handles))
        return Status.cudaSuccess, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        self.streams.remove(stream)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        assert stream in self.streams
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, of: int, size: int, kind: int, stream: int) -> tuple[Status]:
        sides = ("device", "host") if kind == 1 else ("host", "device")

        def copy() -> bool:
            if not (self.holds(to, size, sides[0]) and self.holds(of, size, sides[1])):
                return False
            ctypes.memmove(to, of, size)
            return True

        self.calls.append("copy")
        return (Status.cudaSuccess if self.enqueue(copy) else Status.cudaErrorInvalidValue,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Status]:
        self.calls.append("capture")
        self.capturing = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, Any]:
        if self.capturing is None:
            return Status.cudaErrorStreamCaptureUnsupported, None
        captured, self.capturing = self.capturing, None
        return Status.cudaSuccess, captured

    def cudaGraphInstantiate(self, captured: Any, flags: int) -> tuple[Status, int]:
        if not self.instantiable:
            return Status.cudaErrorMemoryAllocation, 0
        self.graphs[handle := next(self._handles)] = captured
        return Status.cudaSuccess, handle

    def cudaGraphDestroy(self, captured: Any) -> tuple[Status]:
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[Status]:
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:
        self.calls.append("launch")
        done = all(work() for work in self.graphs[graph])
        return (Status.cudaSuccess if done else Status.cudaErrorInvalidValue,)

    def cudaGetLastError(self) -> tuple[Status]:
        return (Status.cudaSuccess,)


class FakeTensorRT:
    """The module ``tensorrt``, or with ``rtx`` the part of ``tensorrt_rtx`` that differs."""

    DataType = enum.Enum("DataType", ["UINT8", "FLOAT"])
    TensorIOMode = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
    ExecutionContextAllocationStrategy = enum.Enum("Strategy", ["STATIC", "USER_MANAGED"])
    Builder = object

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    def __init__(self, cuda: FakeCuda, *, rtx: bool = False, version: str = VERSION) -> None:
        self.cuda = cuda
        self.__version__ = version
        self.capturable = True
        self.working = True
        self.contexts_made = 0
        self.profile = (64, 1024)
        if rtx:
            self.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", ["WHOLE_GRAPH_CAPTURE"])

    def Runtime(self, logger: Any) -> Any:
        return FakeRuntime(self, logger)


class FakeRuntime:
    def __init__(self, trt: FakeTensorRT, logger: Any) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        try:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1  # pictures this small gain nothing from more
            session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except Exception:
            self.logger.log(self.trt.ILogger.Severity.ERROR, "magicTag assertion failed\nmore")
            return None
        return FakeEngine(self.trt, session, self.logger)


class FakeEngine:
    def __init__(self, trt: FakeTensorRT, session: Any, logger: Any) -> None:
        self.trt, self.session, self.logger = trt, session, logger
        self.inputs = [port.name for port in session.get_inputs()]
        self.outputs = [port.name for port in session.get_outputs()]
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> Any:
        ports = {p.name: p.type for p in (*self.session.get_inputs(), *self.session.get_outputs())}
        return self.trt.DataType["UINT8" if ports[name] == "tensor(uint8)" else "FLOAT"]

    def get_tensor_mode(self, name: str) -> Any:
        return self.trt.TensorIOMode["INPUT" if name in self.inputs else "OUTPUT"]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        (shape,) = (port.shape for port in self.session.get_inputs() if port.name == name)
        stride = 1 if name == "image" else 8
        limits = [side // stride for side in self.trt.profile]
        return [
            [1, *(side if isinstance(side, int) else limit for side in shape[1:])]
            for limit in (limits[0], limits[0], limits[1])
        ]

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(
            cuda_graph_strategy=None,
            set_execution_context_allocation_strategy=lambda strategy: None,
        )

    def create_execution_context(self, how: Any) -> Any:
        if hasattr(self.trt, "CudaGraphStrategy"):
            assert how.cuda_graph_strategy == self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        else:
            assert how is self.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self.trt.contexts_made += 1
        return FakeContext(self)


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def _compute(self, feeds: dict[str, Any]) -> dict[str, Any]:
        outputs = self.engine.outputs
        return dict(zip(outputs, self.engine.session.run(outputs, feeds), strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name not in self.shapes:
            empty = {key: np.zeros(self.shapes[key], np.uint8) for key in self.engine.inputs}
            self.shapes.update((key, out.shape) for key, out in self._compute(empty).items())
        return self.shapes[name]

    def update_device_memory_size_for_shapes(self) -> int:
        assert set(self.engine.inputs) <= set(self.shapes)
        return 4 * sum(math.prod(self.shapes[name]) for name in self.engine.inputs)

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = (address, size)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.engine.trt
        cuda = trt.cuda
        assert stream in cuda.streams
        if not trt.working or (cuda.capturing is not None and not trt.capturable):
            self.engine.logger.log(trt.ILogger.Severity.ERROR, "Cask convolution execution failed")
            return False

        def work() -> bool:
            if not cuda.holds(*self.scratch, "device"):
                return False
            arrays = {}
            for name, address in self.addresses.items():
                shape = self.get_tensor_shape(name)
                if not cuda.holds(address, math.prod(shape), "device", "host"):
                    return False
                bytes_ = (ctypes.c_uint8 * math.prod(shape)).from_address(address)
                arrays[name] = np.ctypeslib.as_array(bytes_).reshape(shape)
            for name, result in self._compute(
                {key: arrays[key] for key in self.engine.inputs}
            ).items():
                arrays[name][...] = result
            return True

        return cuda.enqueue(work)


# A driver with one Orin, or as many as GPUS says; a status other than 0 is a failing cuInit.
_LIBCUDA = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return flags ? 1 : number("STATUS", 0); }
int cuGetErrorString(int status, const char **text) {
    *text = status == 100 ? "no CUDA-capable device is detected" : NULL;
    return 0;
}
int cuDeviceGetCount(int *count) { *count = number("GPUS", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = 7 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    if (device != 7) return 101;
    strncpy(name, "Orin", size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    *bytes = (size_t)7620 << 20;
    return device != 7;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? 1 : -1;
    return device != 7;
}
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
"""


def compile_driver(folder: Path) -> Path:
    """Make ``libcuda.so.1`` in a folder; ``LD_LIBRARY_PATH`` brings it to a new process."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    (folder / "cuda.c").write_text(_LIBCUDA)
    command = ["cc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "cuda.c"]
    subprocess.run(command, check=True)
    return folder
