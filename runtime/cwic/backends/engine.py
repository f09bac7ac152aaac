"""One loaded TensorRT engine: buffers, a context per shape, and CUDA graphs.

TensorRT and TensorRT for RTX have the same classes, so this runs either. Each shape of the
inputs has an execution context of its own, because a captured graph holds its context's
state; all of them share the buffers and the scratch memory, which are sized by the largest
shape that came, not by the largest one that the engine could take. The first run of a shape
is launched call by call, as TensorRT asks for after a change of shapes; the second is
captured, and from then on one launch does it all. RTX, which compiles kernels while it runs,
captures by itself.

Nothing here was run on a GPU yet: the tests run it over a fake that keeps "device" memory
on the host and computes with onnxruntime.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.backends.cuda import Buffer, Cuda, Graph, Stream
from cwic.engines.library import Library
from cwic.errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["Engine"]

Arrays: TypeAlias = dict[str, NDArray[np.uint8]]
_Key: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]

_SHAPES_KEPT = 8


@dataclass
class _Shape:
    """What one shape of the inputs keeps from run to run; ``sizes`` has that of every tensor."""

    context: trt.IExecutionContext
    sizes: dict[str, tuple[int, ...]]
    runs: int = 0
    graph: Graph | None = None
    capturable: bool = True


class _FirstError:
    """Keeps the first error that TensorRT logs: its calls only say that they failed.

    What follows the first one are its consequences.
    """

    text = ""

    def __call__(self, severity: str, message: str) -> None:
        if severity == "error" and not self.text:
            self.text = message.partition("\n")[0][:300]

    def take(self) -> str:
        text, self.text = self.text, ""
        return text or "no reason given"


# A TensorRT has one logger for the whole process, so there is one memory of what it said.
_said = _FirstError()


class Engine:
    """An engine on the GPU. :meth:`run` may be called from several threads, one at a time runs.

    Args:
        library: the TensorRT that built it.
        cuda: CUDA's runtime.
        name: the engine's file, for messages.
        data: its bytes.
        shared_memory: the GPU shares the host's memory, so nothing needs to be copied.
        rebuild: the command that builds the engine again, for messages.

    Raises:
        BackendError: TensorRT refuses the engine, or it was not built from these graphs.
    """

    def __init__(
        self,
        library: Library,
        cuda: Cuda,
        name: str,
        data: bytes,
        *,
        shared_memory: bool,
        rebuild: str,
    ) -> None:
        self._library, self._cuda, self._name, self._rebuild = library, cuda, name, rebuild
        self._trt: Any = library.module
        _said.take()
        loaded: trt.ICudaEngine | None
        try:
            self._runtime: trt.Runtime = self._trt.Runtime(library.logger(_said))
        except Exception as exc:  # the bindings raise kinds of their own
            raise BackendError(
                f"{library.title} does not start ({_said.text or exc}); compare its CUDA with the "
                "driver's, which cwic doctor names, or use --backend cpu"
            ) from exc
        try:
            loaded = self._runtime.deserialize_cuda_engine(data)
        except Exception as exc:
            raise self._refused(_said.text or str(exc)) from exc
        if loaded is None:
            raise self._refused(_said.take())
        self._engine = loaded
        # RTX has a graph strategy of its own, TensorRT has not.
        self._captures_itself = hasattr(self._trt, "CudaGraphStrategy")
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        for index in range(loaded.num_io_tensors):
            tensor = loaded.get_tensor_name(index)
            if loaded.get_tensor_dtype(tensor) != self._trt.DataType.UINT8:
                raise self._refused(f"its {tensor} is not of uint8")
            is_input = loaded.get_tensor_mode(tensor) == self._trt.TensorIOMode.INPUT
            (self._inputs if is_input else self._outputs).append(tensor)
        self._stream = Stream(cuda)
        self._buffers = {
            tensor: Buffer(cuda, on_host=True, shared=shared_memory)
            for tensor in (*self._inputs, *self._outputs)
        }
        self._scratch = Buffer(cuda, on_host=False)
        self._shapes: OrderedDict[_Key, _Shape] = OrderedDict()
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[np.uint8]]) -> Arrays:
        """Outputs by name for inputs by name, uint8 each.

        Raises:
            BackendError: the inputs are not the engine's, lie outside the sizes it was built
                for, or CUDA or TensorRT fails.
        """
        if set(feeds) != set(self._inputs):
            raise self._refused(f"its inputs are {', '.join(self._inputs)}")
        outputs = self._outputs
        with self._lock:
            _said.take()
            shape = self._shape(feeds)
            for name, array in feeds.items():
                np.copyto(self._buffers[name].view(array.shape), array)
            self._launch(shape)
            self._cuda.call("cudaStreamSynchronize", self._stream.handle)
            shape.runs += 1
            return {name: self._buffers[name].view(shape.sizes[name]).copy() for name in outputs}

    def _shape(self, feeds: Mapping[str, NDArray[np.uint8]]) -> _Shape:
        key: _Key = tuple((name, feeds[name].shape) for name in self._inputs)
        if key in self._shapes:
            self._shapes.move_to_end(key)
        else:
            shape = self._prepare(feeds)
            while len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.popitem(last=False)
            self._shapes[key] = shape
        return self._shapes[key]

    def _prepare(self, feeds: Mapping[str, NDArray[np.uint8]]) -> _Shape:
        """A context for these shapes, bound to buffers that are large enough."""
        context = self._new_context()
        sizes = {name: array.shape for name, array in feeds.items()}
        for name, size in sizes.items():
            self._check_size(name, size)
            if not context.set_input_shape(name, size):
                raise self._failed("set the sizes")
        sizes.update((name, tuple(context.get_tensor_shape(name))) for name in self._outputs)
        scratch_bytes = context.update_device_memory_size_for_shapes()
        if scratch_bytes > self._scratch.size or any(
            math.prod(size) > self._buffers[name].size for name, size in sizes.items()
        ):
            # The other contexts and their graphs hold the addresses that are to go.
            self._shapes.clear()
        self._scratch.reserve(scratch_bytes)
        context.set_device_memory(self._scratch.address, self._scratch.size)
        for name, size in sizes.items():
            buffer = self._buffers[name]
            buffer.reserve(math.prod(size))
            if not context.set_tensor_address(name, buffer.address):
                raise self._failed("bind the tensors")
        return _Shape(context, sizes, capturable=not self._captures_itself)

    def _check_size(self, name: str, size: tuple[int, ...]) -> None:
        smallest, _, largest = map(tuple, self._engine.get_tensor_profile_shape(name, 0))
        if len(size) != len(smallest) or not all(
            low <= side <= high for low, side, high in zip(smallest, size, largest, strict=True)
        ):
            raise BackendError(
                f"{self._name} takes {name} of {_times(smallest)} to {_times(largest)}, not "
                f"{_times(size)}; use --backend cuda or cpu, or build it for these sizes with "
                f"--profile and --batch: {self._rebuild}"
            )

    def _new_context(self) -> trt.IExecutionContext:
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context: trt.IExecutionContext | None
        if self._captures_itself:
            config: Any = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise self._failed("make a context")
        return context

    def _launch(self, shape: _Shape) -> None:
        if shape.runs and shape.capturable and shape.graph is None:
            shape.graph = self._capture(shape)
            shape.capturable = shape.graph is not None
        if shape.graph is not None:
            shape.graph.launch(self._stream)
        else:
            self._enqueue(shape)

    def _enqueue(self, shape: _Shape) -> None:
        for name in self._inputs:
            self._copy(name, "cudaMemcpyHostToDevice", shape)
        if not shape.context.execute_async_v3(int(self._stream.handle)):
            raise self._failed("run")
        for name in self._outputs:
            self._copy(name, "cudaMemcpyDeviceToHost", shape)

    def _copy(self, name: str, direction: str, shape: _Shape) -> None:
        buffer = self._buffers[name]
        if buffer.shared:
            return
        ends = [buffer.address, buffer.host_address]
        if direction == "cudaMemcpyDeviceToHost":
            ends.reverse()
        size_bytes = math.prod(shape.sizes[name])
        kind = getattr(self._cuda.runtime.cudaMemcpyKind, direction)
        self._cuda.call("cudaMemcpyAsync", *ends, size_bytes, kind, self._stream.handle)

    def _capture(self, shape: _Shape) -> Graph | None:
        """The run as a graph, or None where something in it cannot be captured."""
        # Thread-local: what other threads do with CUDA meanwhile is none of its business.
        mode = self._cuda.runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._cuda.call("cudaStreamBeginCapture", self._stream.handle, mode)
        try:
            self._enqueue(shape)
            return Graph(self._cuda, self._cuda.call("cudaStreamEndCapture", self._stream.handle))
        except BackendError:
            with contextlib.suppress(BackendError):  # a broken capture ends with an error
                self._cuda.call("cudaStreamEndCapture", self._stream.handle)
            self._cuda.forget_error()
            _said.take()
            return None

    def _refused(self, reason: str) -> BackendError:
        return BackendError(
            f"{self._library.title} cannot use {self._name} ({reason}); "
            f"build it again: {self._rebuild}"
        )

    def _failed(self, what: str) -> BackendError:
        return BackendError(
            f"{self._library.title} cannot {what} of {self._name} ({_said.take()}); "
            "use smaller pictures if memory is short, or --backend cpu"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
