"""What this machine has, which backends really run on it, and what would mend the others.

Nothing is believed: each backend encodes and decodes a small picture, and onnxruntime's
providers are loaded in a process of their own, where their noise and crashes stay.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cwic import __version__, rans
from cwic.backends import openers
from cwic.backends.auto import probe
from cwic.backends.device import Device, find_device
from cwic.backends.host import Jetson, driver_version, find_jetson
from cwic.backends.onnxrt import CUDA_REMEDY, graph_file, import_onnxruntime
from cwic.bundle import Bundle
from cwic.engines.choice import choose
from cwic.engines.library import KINDS, Library, installed
from cwic.engines.record import EngineRecord
from cwic.errors import BackendError, BundleError, CwicError

__all__ = ["BackendState", "EngineState", "ProviderState", "Report", "examine", "library_versions"]

_CUDA = "CUDAExecutionProvider"
# These are part of onnxruntime itself: there is no library that could fail to load.
_BUILT_IN = ("CPUExecutionProvider", "AzureExecutionProvider")
_PROVIDER_LIMIT_S = 120
_LOAD_PROVIDER = """
import sys, onnxruntime
name, model = sys.argv[1:]
getattr(onnxruntime, "preload_dlls", lambda: None)()
session = onnxruntime.InferenceSession(model, providers=[name], enable_fallback=0)
sys.exit(name not in session.get_providers())
"""


@dataclass(frozen=True)
class BackendState:
    """One backend: the time of a small picture there and back, or why it does not run."""

    name: str
    works: bool
    time_ms: float | None
    problem: str | None


@dataclass(frozen=True)
class ProviderState:
    """One execution provider that onnxruntime lists, and why it does not load if so."""

    name: str
    loads: bool
    problem: str | None


@dataclass(frozen=True)
class EngineState:
    """One engine of the bundle, and why it does not fit this machine if so."""

    file: str
    fits: bool
    problem: str | None


@dataclass(frozen=True)
class Report:
    """What :func:`examine` found.

    Attributes:
        python, platform: version of Python; system and architecture.
        versions: of the libraries; None for one that is not installed.
        coder: the rANS coder, ``c`` or the slower ``numpy``.
        driver: version of the kernel's NVIDIA driver.
        jetson: the board, on a Jetson.
        device: the GPU that would be used.
        device_problem: why there is none.
        model: name, identity and folder of the bundle, or None if it cannot be used.
        engines: of the bundle.
        providers: of onnxruntime.
        backends: in the order in which ``auto`` tries them.
        problems: what should be mended, one line each that ends with the command.
    """

    python: str
    platform: str
    versions: Mapping[str, str | None]
    coder: str
    driver: str | None
    jetson: Jetson | None
    device: Device | None
    device_problem: str | None
    model: str | None
    engines: tuple[EngineState, ...]
    providers: tuple[ProviderState, ...]
    backends: tuple[BackendState, ...]
    problems: tuple[str, ...]

    @property
    def chosen(self) -> str | None:
        """The backend that ``auto`` takes."""
        return next((backend.name for backend in self.backends if backend.works), None)

    @property
    def healthy(self) -> bool:
        """Whether some backend encodes and decodes."""
        return self.chosen is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values, with ``chosen`` and ``healthy``."""
        return {**dataclasses.asdict(self), "chosen": self.chosen, "healthy": self.healthy}


def examine(model: str | Path | None = None) -> Report:
    """Look at this machine with a bundle (None: the model that ships with the package).

    Whatever is wrong is in the report; nothing is raised for it.
    """
    libraries = installed()
    device, device_problem = _device()
    bundle, bundle_problem = _bundle(model)
    providers = _providers(bundle)
    report = Report(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=library_versions(libraries),
        coder=rans.implementation(),
        driver=driver_version(),
        jetson=find_jetson(),
        device=device,
        device_problem=device_problem,
        model=None if bundle is None else f"{bundle.name} {bundle.model_id.hex()} ({bundle.path})",
        engines=_engines(bundle, libraries, device),
        providers=providers,
        backends=_backends(bundle),
        problems=(),
    )
    problems = [*filter(None, [bundle_problem]), *_problems(report)]
    return dataclasses.replace(report, problems=tuple(problems))


def _device() -> tuple[Device | None, str | None]:
    try:
        return find_device(), None
    except BackendError as exc:
        return None, str(exc)


def _bundle(model: str | Path | None) -> tuple[Bundle | None, str | None]:
    try:
        return Bundle.load(model), None
    except CwicError as exc:
        return None, str(exc)


def _version(*packages: str) -> str | None:
    """Version of the first of these distributions that is installed."""
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def library_versions(libraries: list[Library]) -> dict[str, str | None]:
    """Version of each library that matters here, TensorRT's from ``libraries``; None: missing."""
    trt = {library.kind: library.version for library in libraries}
    return {
        "cwic": __version__,
        "numpy": _version("numpy"),
        "Pillow": _version("Pillow"),
        "onnxruntime": _version("onnxruntime"),
        "onnxruntime-gpu": _version("onnxruntime-gpu"),
        **{kind: trt.get(kind) for kind in KINDS},
        "cuda-python": _version("cuda-python", "cuda-bindings"),
    }


def _engines(
    bundle: Bundle | None, libraries: list[Library], device: Device | None
) -> tuple[EngineState, ...]:
    if bundle is None:
        return ()
    found = [
        name
        for name, entry in sorted(bundle.files.items())
        if entry.target in KINDS and entry.role in ("encoder", "decoder")
    ]
    states = []
    for name in found:
        try:
            _check_engine(bundle, name, libraries, device)
        except CwicError as exc:
            states.append(EngineState(name, False, str(exc)))
        else:
            states.append(EngineState(name, True, None))
    return tuple(states)


def _check_engine(
    bundle: Bundle, name: str, libraries: list[Library], device: Device | None
) -> None:
    record = EngineRecord.of(bundle, name)
    library = next((found for found in libraries if found.kind == record.kind), None)
    if device is None or library is None:
        what = "there is no GPU" if device is None else f"{record.kind} is not installed"
        raise BackendError(
            f"it needs {record.kind} {record.library_version} and SM {record.sm}, and {what}; "
            "decode with --backend cpu"
        )
    # With this engine alone, the reason is this engine's.
    files = {key: e for key, e in bundle.files.items() if key == name or e.target == "onnx"}
    choose(
        dataclasses.replace(bundle, files=files),
        bundle.files[name].role,
        kind=library.kind,
        version=library.version,
        sm=device.sm,
    )


def _providers(bundle: Bundle | None) -> tuple[ProviderState, ...]:
    try:
        onnxruntime = import_onnxruntime("cpu")
    except BackendError:  # the backends say it
        return ()
    return tuple(_provider(name, bundle) for name in onnxruntime.get_available_providers())


def _provider(name: str, bundle: Bundle | None) -> ProviderState:
    if name in _BUILT_IN:
        return ProviderState(name, True, None)
    if bundle is None:
        return ProviderState(name, False, "there is no model to try it with")
    try:
        model = bundle.path / graph_file(bundle, "decoder", "fp32")
        command = [sys.executable, "-c", _LOAD_PROVIDER, name, str(model)]
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=_PROVIDER_LIMIT_S, check=False
        )
    except BundleError as exc:
        return ProviderState(name, False, str(exc))
    except subprocess.TimeoutExpired:
        return ProviderState(name, False, f"it does not load within {_PROVIDER_LIMIT_S} s")
    if done.returncode == 0:
        return ProviderState(name, True, None)
    stderr = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)  # colours
    said = re.search(r"with error: (.*)", stderr)
    lines = [line for line in stderr.splitlines() if line.strip()]
    reason = said[1] if said else lines[-1] if lines else f"exit status {done.returncode}"
    return ProviderState(name, False, reason.strip()[:300])


def _backends(bundle: Bundle | None) -> tuple[BackendState, ...]:
    if bundle is None:
        return ()
    states = []
    for name, opener in openers(bundle).items():
        try:
            runner = opener()
            probe(bundle, runner)  # loads the graphs
            started = time.monotonic()
            probe(bundle, runner)
            time_ms = round(1e3 * (time.monotonic() - started), 1)
        except CwicError as exc:
            states.append(BackendState(name, False, None, str(exc)))
        else:
            states.append(BackendState(name, True, time_ms, None))
    return tuple(states)


def _problems(report: Report) -> list[str]:
    problems = []
    if report.versions["onnxruntime"] and report.versions["onnxruntime-gpu"]:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'cwic[cuda]'"
        )
    if report.coder == "numpy":
        problems.append(
            "the coder written in C is not in use, which makes coding slow; unset CWIC_RANS, or "
            "install a C compiler and pip install --force-reinstall --no-cache-dir cwic"
        )
    listed = {provider.name: provider for provider in report.providers}
    cuda_listed = listed.get(_CUDA)
    problems += [engine.problem for engine in report.engines if engine.problem and report.device]
    # Where nobody expects a GPU, a backend that needs one is no problem.
    gpu_expected = bool(report.device or report.driver or report.jetson or cuda_listed)
    if gpu_expected and report.device_problem:
        problems.append(report.device_problem)
    for backend in report.backends:
        if backend.problem is None or backend.problem == report.device_problem:
            continue
        if backend.name == "cuda" and cuda_listed and not cuda_listed.loads:
            problems.append(
                f"cuda: onnxruntime lists {_CUDA} and cannot load it ({cuda_listed.problem}); "
                f"{CUDA_REMEDY}"
            )
        elif backend.name == "cpu" or gpu_expected:
            problems.append(f"{backend.name}: {backend.problem}")
    return problems
