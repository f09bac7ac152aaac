"""The onnxruntime backend on the CPU."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.backends.base import Runner
from cwic.bundle import Bundle
from cwic.errors import BackendError

__all__ = ["OnnxRuntimeRunner"]


class OnnxRuntimeRunner(Runner):
    """``encoder.onnx`` and ``decoder.onnx`` through onnxruntime's CPU provider.

    Args:
        bundle: the model.
        threads: threads per graph; 0 lets onnxruntime choose.

    Raises:
        BackendError: onnxruntime is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        try:
            import onnxruntime
        except ImportError as exc:
            raise BackendError(
                f"the cpu backend needs onnxruntime ({exc}); pip install 'cwic[cpu]'"
            ) from exc
        self._ort: Any = onnxruntime
        self._bundle = bundle
        self._threads = threads

    @cached_property
    def _encoder(self) -> Any:
        return self._session("encoder.onnx")

    @cached_property
    def _decoder(self) -> Any:
        return self._session("decoder.onnx")

    def _session(self, name: str) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Errors reach the user as exceptions; warnings about folded constants are noise.
        options.log_severity_level = 4
        model = self._bundle.read(name)
        try:
            return self._ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises kinds of its own, all unrelated
            raise BackendError(
                f"onnxruntime {self._ort.__version__} cannot load {name} "
                f"({_first_line(exc)}); export the model again or update onnxruntime"
            ) from exc

    def _run(self, session: Any, feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        try:
            outputs: list[NDArray[np.uint8]] = session.run(None, feeds)
        except Exception as exc:
            raise BackendError(
                f"onnxruntime failed ({_first_line(exc)}); "
                "use a smaller picture if memory is short, or export the model again"
            ) from exc
        return outputs

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        codes, importance = self._run(self._encoder, {"image": image})
        return codes, importance

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (image,) = self._run(self._decoder, {"codes": codes, "levels": levels})
        return image


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0][:200] if str(exc).strip() else type(exc).__name__
