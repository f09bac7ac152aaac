"""ONNX graphs in onnxruntime, with its CUDA or its TensorRT provider, or on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.errors import BackendError

__all__ = ["CUDA", "TENSORRT", "OnnxRunner", "TensorrtProviderRunner"]

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
_ERRORS = 3
"""Severity of what onnxruntime prints."""


class OnnxRunner(OnnxRuntimeRunner):
    """The runtime's backend, and calls whose inputs and outputs stay on the device."""

    def __init__(self, bundle: Bundle, device: str, precision: str) -> None:
        backend: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
        super().__init__(bundle, backend, precision=precision)
        self._device = device

    def resident(self, role: str, feeds: dict[str, NDArray[np.uint8]]) -> Callable[[], None]:
        """One call of a graph with memory bound on the device; it waits for the end."""
        session = self._session(role)
        binding = session.io_binding()
        for name, array in feeds.items():
            value = self._ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)
            binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name, self._device, 0)

        def once() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return once


class TensorrtProviderRunner(OnnxRunner):
    """The same graphs in onnxruntime's TensorRT provider, which no backend of cwic uses.

    It builds engines when a shape is first seen and has no switch against TF32: fp32 graphs may
    be rounded.
    """

    def __init__(self, bundle: Bundle, precision: str) -> None:
        super().__init__(bundle, "cuda", precision)

    def _load(self, name: str) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = _ERRORS
        tensorrt = {"trt_fp16_enable": "1" if self._precision == "fp16" else "0"}
        session = self._ort.InferenceSession(
            self._bundle.read(name),
            options,
            providers=[(TENSORRT, tensorrt), (CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"],
            enable_fallback=0,
        )
        if TENSORRT not in session.get_providers():
            raise BackendError(
                f"onnxruntime {self._ort.__version__} does not run {name} in its TensorRT "
                "provider; install the TensorRT that this onnxruntime was built for"
            )
        return session
