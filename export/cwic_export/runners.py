"""Artefacts behind one interface: load the bytes of both graphs, then run NumPy arrays.

Each runner takes and gives uint8 arrays with the shapes of :mod:`cwic_export.graphs`.
"""

from __future__ import annotations

import contextlib
import io
from abc import abstractmethod
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cwic import backends
from cwic.errors import BackendError, first_line
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.quiet import quiet
from cwic_training.model import CodecNetwork

__all__ = [
    "RUNNERS",
    "ArtefactRunner",
    "EagerRunner",
    "ExportedProgramRunner",
    "OnnxRunner",
    "OnnxTensorrtRunner",
    "Runner",
    "TorchScriptRunner",
    "TritonRunner",
]

Bytes: TypeAlias = NDArray[np.uint8]
_REMEDY = "export the model again"


@contextlib.contextmanager
def _failing_as(what: str, remedy: str) -> Iterator[None]:
    """Turn whatever a framework raises into one line."""
    try:
        yield
    except Exception as exc:  # each framework has its own tree of errors
        raise BackendError(f"{what} ({first_line(exc)}); {remedy}") from exc


class Runner(backends.Runner):
    """The two graphs, loaded; a :class:`cwic.codec.Codec` takes it as it does a backend.

    `encode` and `decode` raise BackendError where the framework fails.
    """

    target: ClassVar[str]

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self.backend = self.target
        self._encoder, self._decoder = encoder, decoder

    @abstractmethod
    def _run(self, graph: Any, inputs: dict[str, Bytes]) -> tuple[Bytes, ...]: ...

    def encode(self, image: Bytes) -> tuple[Bytes, Bytes]:
        """``image`` [N, H, W, 3] to ``codes`` [N, n/8, H/8, W/8], ``importance`` [N, H/8, W/8]."""
        with _failing_as(f"the {self.target} encoder does not run", _REMEDY):
            codes, importance = self._run(self._encoder, {"image": image})
            return codes, importance

    def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
        """``codes`` [N, n/8, h, w] and ``levels`` [N, h, w] to ``image`` [N, 8h, 8w, 3]."""
        with _failing_as(f"the {self.target} decoder does not run", _REMEDY):
            (image,) = self._run(self._decoder, {"codes": codes, "levels": levels})
            return image


class ArtefactRunner(Runner):
    """A runner whose graphs come from files."""

    @classmethod
    def from_bytes(cls, encoder: bytes, decoder: bytes) -> ArtefactRunner:
        """Load both graphs.

        Raises:
            BackendError: the loader refuses the bytes.
        """
        graphs = []
        for role, data in (("encoder", encoder), ("decoder", decoder)):
            with _failing_as(f"the {cls.target} {role} does not load", _REMEDY):
                graphs.append(cls._load(data))
        return cls(*graphs)

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this machine cannot run such artefacts; None if it can."""
        return None

    @staticmethod
    @abstractmethod
    def _load(data: bytes) -> Any: ...


class OnnxRunner(ArtefactRunner):
    """onnxruntime on the CPU."""

    target = "onnx"

    @classmethod
    def unavailable(cls) -> str | None:
        if find_spec("onnxruntime") is None:
            return "onnxruntime is not installed; pip install 'cwic[cpu]'"
        return None

    @staticmethod
    def _load(data: bytes) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors are raised; warnings would go to stderr
        # Its idle threads would spin on the cores that the other frameworks compute on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def _run(self, graph: Any, inputs: dict[str, Bytes]) -> tuple[Bytes, ...]:
        return tuple(graph.run(None, inputs))


class OnnxTensorrtRunner(OnnxRunner):
    """ONNX files meant for TensorRT, through onnxruntime on the CPU: the same arithmetic, as
    far as the file states it.
    """

    target = "onnx-tensorrt"


class TritonRunner(OnnxRunner):
    """The ONNX files of a Triton repository."""

    target = "triton"


class _TorchRunner(Runner):
    def _run(self, graph: nn.Module, inputs: dict[str, Bytes]) -> tuple[Bytes, ...]:
        with torch.inference_mode():
            outputs = graph(*(torch.from_numpy(array) for array in inputs.values()))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.numpy() for output in outputs)


class TorchScriptRunner(_TorchRunner, ArtefactRunner):
    """``torch.jit`` on the CPU."""

    target = "torchscript"

    @staticmethod
    def _load(data: bytes) -> Any:
        with quiet():  # deprecated, and no warning helps whoever validates such a file
            return torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]


class ExportedProgramRunner(_TorchRunner, ArtefactRunner):
    """``torch.export`` on the CPU."""

    target = "exported-program"

    @staticmethod
    def _load(data: bytes) -> Any:
        with quiet():
            return torch.export.load(io.BytesIO(data)).module()


class EagerRunner(_TorchRunner):
    """The reference: the graphs as PyTorch modules."""

    target = "eager"

    def __init__(self, network: CodecNetwork) -> None:
        super().__init__(EncoderGraph(network), DecoderGraph(network))
        self.decided_at_once = network.config.n // max(1, network.config.feedback)
        """Codes of a group; those of a later one depend on the bits of the earlier ones."""

    def code_values(self, image: Bytes) -> NDArray[np.float32]:
        """E, whose signs are the code bits: float32 [N, n, H/8, W/8]."""
        with torch.inference_mode():
            values: NDArray[np.float32] = self._encoder.analyse(torch.from_numpy(image))[0].numpy()
        return values


RUNNERS: dict[str, type[ArtefactRunner]] = {
    runner.target: runner
    for runner in (
        OnnxRunner,
        OnnxTensorrtRunner,
        TritonRunner,
        TorchScriptRunner,
        ExportedProgramRunner,
    )
}
"""What runs an artefact, by the ``target`` of a manifest."""
