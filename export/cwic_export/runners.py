"""Artefacts behind one interface: load the bytes of both graphs, then run NumPy arrays.

Each runner takes and gives uint8 arrays with the shapes of :mod:`cwic_export.graphs`.
"""

from __future__ import annotations

import contextlib
import io
from abc import abstractmethod
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cwic import backends
from cwic.errors import BackendError, first_line
from cwic.quantiser import FIXED_POINT, Quantiser
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
    "value_margins",
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
        """``image`` [N, H, W, 3] to ``codes`` [N, channels, h, w], ``importance`` [N, h, w]."""
        with _failing_as(f"the {self.target} encoder does not run", _REMEDY):
            codes, importance = self._run(self._encoder, {"image": image})
            return codes, importance

    def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
        """``codes`` [N, channels, h, w] and ``levels`` [N, h, w] to ``image`` [N, 8h, 8w, 3]."""
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
        steps = None if network.quantiser is None else network.quantiser.steps
        self._smallest_step = None if steps is None else float(steps[-1])

    def margins(self, image: Bytes) -> NDArray[np.float32]:
        """How far E may move before a code is another one: float32 [N, n, H/8, W/8].

        Signs are those of E; values are told apart in the smallest steps that there are.
        """
        with torch.inference_mode():
            e: NDArray[np.float32] = self._encoder.analyse(torch.from_numpy(image))[0].numpy()
        return np.abs(e) if self._smallest_step is None else value_margins(e, self._smallest_step)


def value_margins(y: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """How far values are from where :mod:`cwic.quantiser` makes another whole number of them.

    Beyond the last number nothing is another one.
    """
    borders = _borders(step)
    fine = FIXED_POINT * y.astype(np.float64)
    above = np.searchsorted(borders, fine).clip(1, len(borders) - 1)
    nearest = np.minimum(np.abs(fine - borders[above - 1]), np.abs(borders[above] - fine))
    margins: NDArray[np.float32] = (nearest / FIXED_POINT).astype(np.float32)
    return margins


@lru_cache(maxsize=8)
def _borders(step: float) -> NDArray[np.float64]:
    """Halfway between numbers of fixed point that are quantised to different ones."""
    # Asked, not computed: the quantiser rounds in float32.
    whole = np.arange(1 << 16, dtype=np.uint16)
    codes = np.stack([whole >> 8, whole & 255]).astype(np.uint8)[:, None]
    quantiser = Quantiser(np.array([0, step], np.float32), np.ones(1, np.uint8))
    numbers = quantiser.quantised(codes, np.ones((1, len(whole)), np.uint8))[0, 0]
    last = np.flatnonzero(np.diff(numbers)).astype(np.float64)
    return last + 0.5 - len(whole) // 2


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
