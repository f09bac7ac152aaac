"""The onnxruntime backend: ``cpu`` and ``cuda``, by the execution provider that runs a graph.

The cuda provider was never run on a GPU here; on machines without one its refusals were.
"""

from __future__ import annotations

import contextlib
import io
import platform
import threading
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cwic.backends.base import Runner
from cwic.backends.device import find_device
from cwic.bundle import Bundle
from cwic.errors import BackendError, BundleError, first_line

__all__ = ["CUDA_REMEDY", "OnnxRuntimeRunner", "graph_file", "import_onnxruntime"]

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# Pictures come in any size, and an exhaustive search would begin again with each. TF32 would
# round the inputs of convolutions to 10 bits: who wants that asks for fp16.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
_ORT_FATAL, _ORT_WARNING = 4, 2

CUDA_REMEDY = (
    "pip install 'cwic[cuda]'"
    if platform.machine() == "x86_64"
    else "install the onnxruntime-gpu that NVIDIA builds for this JetPack"
)
"""What brings onnxruntime with CUDA, and CUDA's libraries, to this kind of machine."""


def import_onnxruntime(extra: str) -> Any:
    """The module ``onnxruntime``; ``extra`` is the one of cwic that would install it.

    Raises:
        BackendError: it is not installed, or only pieces of it are.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        raise BackendError(
            f"the {extra} backend needs onnxruntime ({exc}); pip install 'cwic[{extra}]'"
        ) from exc
    if not hasattr(onnxruntime, "InferenceSession"):
        raise BackendError(
            "the installed onnxruntime is incomplete, as where onnxruntime and onnxruntime-gpu "
            "were mixed; pip uninstall -y onnxruntime onnxruntime-gpu && "
            f"pip install 'cwic[{extra}]'"
        )
    return onnxruntime


def graph_file(bundle: Bundle, role: str, precision: str) -> str:
    """Name of the ONNX file of a role (``encoder``, ``decoder``) at a precision.

    Raises:
        BundleError: the bundle has none; the message names the precisions that it has.
    """
    found = bundle.graphs(role)
    if precision not in found:
        name = f"{role}.onnx" if precision == "fp32" else f"{role}.{precision}.onnx"
        raise BundleError(
            f"{bundle.path} lists no {name} (precisions of the {role} that it has: "
            f"{', '.join(sorted(found)) or 'none'}); export it, or choose another precision"
        )
    return found[precision]


class OnnxRuntimeRunner(Runner):
    """The bundle's ONNX graphs through onnxruntime.

    Args:
        bundle: the model.
        backend: ``cpu``, or ``cuda`` for onnxruntime-gpu.
        precision: that of the graphs, as the manifest has it; None takes ``fp32``.
        threads: threads per graph on the CPU; 0 lets onnxruntime choose.

    Raises:
        BackendError: onnxruntime is not installed; for ``cuda``: there is no GPU, or it is
            not the onnxruntime for GPUs.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Literal["cpu", "cuda"] = "cpu",
        *,
        precision: str | None = None,
        threads: int = 0,
    ) -> None:
        if backend == "cuda":
            find_device()  # first: without a GPU no package helps
        self._ort = import_onnxruntime(backend)
        self.backend = backend
        self._bundle = bundle
        self._threads = threads
        self._precision = precision or "fp32"
        self._sessions: dict[str, Any] = {}
        self._loading = threading.Lock()
        if backend == "cuda":
            self._prepare_cuda()

    def _prepare_cuda(self) -> None:
        if _CUDA not in self._ort.get_available_providers():
            raise BackendError(
                f"the installed onnxruntime {self._ort.__version__} is without CUDA; "
                f"pip uninstall -y onnxruntime && {CUDA_REMEDY}"
            )
        # CUDA's libraries may come from wheels, where the system's loader does not look. What
        # is missing shows when a session is made; here it would be printed.
        preload = getattr(self._ort, "preload_dlls", None)  # onnxruntime 1.21 and later
        if preload is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                preload()

    def _session(self, role: str) -> Any:
        with self._loading:
            if role not in self._sessions:
                # The gradient is that of the exact graph: a hint, whatever decodes.
                precision = "fp32" if role == "gradient" else self._precision
                self._sessions[role] = self._load(graph_file(self._bundle, role, precision))
            return self._sessions[role]

    def _load(self, name: str) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        # Its threads would spin on, and entropy coding needs the cores as soon as a graph is done.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Errors reach the user as exceptions; warnings about folded constants are noise.
        options.log_severity_level = _ORT_FATAL
        model = self._bundle.read(name)
        providers: list[Any] = [(_CUDA, _CUDA_OPTIONS)] if self.backend == "cuda" else []
        try:
            with self._quiet():
                session = self._ort.InferenceSession(
                    model, options, providers=[*providers, _CPU], enable_fallback=0
                )
        except Exception as exc:  # onnxruntime raises kinds of its own, all unrelated
            raise BackendError(
                f"onnxruntime {self._ort.__version__} cannot load {name} "
                f"({first_line(exc)}); export the model again or update onnxruntime"
            ) from exc
        if self.backend == "cuda" and _CUDA not in session.get_providers():
            # onnxruntime has silently taken the CPU instead.
            raise BackendError(
                f"onnxruntime {self._ort.__version__} cannot load its CUDA provider (cwic doctor "
                f"names what is missing); {CUDA_REMEDY}, or use --backend cpu"
            )
        return session

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keep a provider that does not load from writing to stderr what is raised anyway."""
        if self.backend == "cpu":
            yield
            return
        self._ort.set_default_logger_severity(_ORT_FATAL)
        try:
            yield
        finally:
            self._ort.set_default_logger_severity(_ORT_WARNING)  # its default

    def _run(self, role: str, feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[Any]]:
        session = self._session(role)
        try:
            outputs: list[NDArray[Any]] = session.run(None, feeds)
        except Exception as exc:
            raise BackendError(
                f"onnxruntime failed ({first_line(exc)}); "
                "use a smaller picture if memory is short, or export the model again"
            ) from exc
        return outputs

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        codes, importance = self._run("encoder", {"image": image})
        return codes, importance

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (image,) = self._run("decoder", {"codes": codes, "levels": levels})
        return image

    def gradient(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8], image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        feeds = {"codes": codes, "levels": levels, "image": image}
        gradient, error = self._run("gradient", feeds)
        return gradient, error

    def release(self) -> None:
        # With a session goes its arena, which is as large as the largest run made it.
        with self._loading:
            self._sessions.clear()
