"""A graph in onnxruntime, as calibration and scoring run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cwic.errors import ExportError, first_line

__all__ = ["Session"]

_FATAL = 4


class Session:
    """One graph on the CPU.

    Args:
        model: bytes of an ONNX file.

    Raises:
        ExportError: onnxruntime refuses it.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # onnxruntime raises kinds of its own, all unrelated
            raise _failed(exc) from exc

    def run(
        self, feeds: Mapping[str, NDArray[np.uint8]], outputs: Sequence[str] | None = None
    ) -> list[NDArray[Any]]:
        """The outputs named, by default all of the graph's own.

        Raises:
            ExportError: onnxruntime fails.
        """
        try:
            results: list[NDArray[Any]] = self._session.run(outputs, dict(feeds))
        except Exception as exc:
            raise _failed(exc) from exc
        return results


def _failed(exc: Exception) -> ExportError:
    return ExportError(
        f"onnxruntime {onnxruntime.__version__} cannot run the graph to quantise "
        f"({first_line(exc)}); use smaller calibration pictures if memory is short, "
        "or update onnxruntime"
    )
