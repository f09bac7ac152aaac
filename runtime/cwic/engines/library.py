"""The one place that knows how TensorRT 10.3, 10.16, 11 and TensorRT for RTX differ.

The two libraries have the same Python classes under two module names. What differs:

=============================  ==================  ============  ==============
what                           TensorRT 10         TensorRT 11   TensorRT for RTX 1
=============================  ==================  ============  ==============
strong typing                  flag of a network   always        always
builds without a GPU           no                  no            yes, for named SMs
timing cache                   yes                 yes           has no effect
ahead-of-time Python plugins   from 10.9           yes           no
=============================  ==================  ============  ==============

Everything that is called here exists in each of them: no precision flag of the builder, no
calibrator, no implicit batch. Precision is what the ONNX file says.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from cwic.errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["KINDS", "Kind", "Library", "Sink", "installed", "load_library"]

Kind = Literal["tensorrt", "tensorrt-rtx"]
KINDS: tuple[Kind, ...] = ("tensorrt", "tensorrt-rtx")
Sink: TypeAlias = Callable[[str, str], None]
"""Takes a severity (``error``, ``warning``, ``info`` or ``verbose``) and a message."""

_MODULES: dict[Kind, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_OLDEST: dict[Kind, tuple[int, int]] = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 4)}
_TITLES: dict[Kind, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
_REMEDIES: dict[Kind, str] = {
    "tensorrt": (
        "pip install 'cwic[tensorrt]'; on a Jetson install python3-libnvinfer and make the "
        "virtual environment with --system-site-packages"
    ),
    "tensorrt-rtx": "pip install 'cwic[tensorrt-rtx]'",
}
_DTYPES = {"FLOAT": "fp32", "HALF": "fp16"}


@dataclass(frozen=True)
class Library:
    """One installed TensorRT.

    Attributes:
        kind: which of the two libraries.
        version: its whole version, for example ``10.3.0.26``.
        module: ``tensorrt`` or ``tensorrt_rtx``.
    """

    kind: Kind
    version: str
    module: Any

    @property
    def title(self) -> str:
        """What it is called in a sentence: ``TensorRT 10.3.0.26``."""
        return f"{_TITLES[self.kind]} {self.version}"

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        return _release(self.version)

    @property
    def ahead_of_time(self) -> bool:
        """Whether engines can be built for a GPU that is not in this machine."""
        return self.kind == "tensorrt-rtx"

    @property
    def has_timing_cache(self) -> bool:
        """RTX keeps the calls, where they do nothing; its runtime has a cache of its own."""
        return self.kind == "tensorrt"

    @property
    def has_plugins(self) -> bool:
        """Whether a Python plugin can leave its compiled kernel in an engine."""
        return self.kind == "tensorrt" and self.release >= (10, 9)

    def sms(self) -> tuple[str, ...]:
        """The SMs that engines can be built for ahead of time: ``("75", "80", ...)``."""
        if not self.ahead_of_time:
            return ()
        names = self.module.ComputeCapability.__members__
        return tuple(name[2:] for name in names if re.fullmatch(r"SM\d+", name))

    def logger(self, sink: Sink) -> Any:
        """The library's logger, whose messages go to ``sink`` from now on.

        A TensorRT keeps the first logger of a process and ignores later ones, so there is one
        for each library, and the last caller's sink gets what it says.
        """
        if self.kind not in _loggers:
            _loggers[self.kind] = _make_logger(self.module)
        logger: Any = _loggers[self.kind]
        logger.sink = sink
        return logger

    @contextlib.contextmanager
    def messages_to(self, sink: Sink) -> Iterator[trt.ILogger]:
        """:meth:`logger` for the time of a block; afterwards the sink from before is back."""
        before = _loggers[self.kind].sink if self.kind in _loggers else None
        logger = self.logger(sink)
        try:
            yield logger
        finally:
            logger.sink = before

    def new_network(self, builder: trt.Builder) -> trt.INetworkDefinition:
        """An empty network whose tensors have the types that its operators say."""
        if self.kind == "tensorrt" and self.release < (11, 0):
            return builder.create_network(
                1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            )
        return builder.create_network(0)

    def new_config(self, builder: trt.Builder, sm: str) -> trt.IBuilderConfig:
        """Builder settings for a GPU of ``sm``, one of :meth:`sms` when built ahead of time."""
        config = builder.create_builder_config()
        # So that the engine inspector can say what became of every layer.
        config.profiling_verbosity = self.module.ProfilingVerbosity.DETAILED
        # It would round the inputs of fp32 convolutions to 10 bits; who wants that asks for fp16.
        config.clear_flag(self.module.BuilderFlag.TF32)
        if self.ahead_of_time:
            rtx: Any = config  # the stubs are TensorRT's
            rtx.num_compute_capabilities = 1
            rtx.set_compute_capability(getattr(self.module.ComputeCapability, f"SM{sm}"), 0)
        return config

    def dtype_name(self, dtype: trt.DataType) -> str:
        """``fp32``, ``fp16``, ``int8``, ``uint8``, ``bool``, ... for a ``DataType``."""
        name = str(dtype).rpartition(".")[2]
        return _DTYPES.get(name, name.lower())


_loggers: dict[Kind, Any] = {}


def _make_logger(module: Any) -> Any:
    severity = module.ILogger.Severity
    names = {
        severity.INTERNAL_ERROR: "error",
        severity.ERROR: "error",
        severity.WARNING: "warning",
        severity.INFO: "info",
        severity.VERBOSE: "verbose",
    }

    class Logger(module.ILogger):  # type: ignore[misc]
        sink: Sink | None = None

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if self.sink is not None:
                self.sink(names.get(severity, "verbose"), msg)

    return Logger()


def load_library(kind: Kind | None = None) -> Library:
    """The TensorRT of this machine.

    Args:
        kind: which one; None takes TensorRT, or TensorRT for RTX where it is missing.

    Raises:
        BackendError: it is not installed, cannot be loaded, or is too old.
    """
    if kind is not None:
        return _load(kind)
    try:
        return _load("tensorrt")
    except BackendError as exc:
        try:
            return _load("tensorrt-rtx")
        except BackendError:
            raise BackendError(
                f"{str(exc).partition(';')[0]}, and neither is TensorRT for RTX; "
                f"{_REMEDIES['tensorrt-rtx']}, or for TensorRT {_REMEDIES['tensorrt']}"
            ) from exc


def installed() -> list[Library]:
    """Every TensorRT that can be loaded here; TensorRT first."""
    found = []
    for kind in KINDS:
        try:
            found.append(_load(kind))
        except BackendError:
            continue
    return found


def _load(kind: Kind) -> Library:
    title, remedy = _TITLES[kind], _REMEDIES[kind]
    try:
        module = importlib.import_module(_MODULES[kind])
    except (ImportError, OSError) as exc:  # OSError: a shared library of it is missing
        raise BackendError(f"{title} is not installed ({exc}); {remedy}") from exc
    # A folder of that name, such as the one that type stubs make, imports as an empty package.
    version = getattr(module, "__version__", None)
    if version is None or not hasattr(module, "Builder"):
        raise BackendError(f"{title} is not installed; {remedy}")
    oldest = _OLDEST[kind]
    if _release(version) < oldest:
        raise BackendError(
            f"{title} {version} is older than {'.'.join(map(str, oldest))}; {remedy}"
        )
    return Library(kind, version, module)


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
