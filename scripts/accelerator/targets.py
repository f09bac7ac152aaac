"""What is measured: each artefact, what it needs of the machine, and how it is opened."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from scripts.accelerator.bundles import Bundles
from scripts.accelerator.onnx_graphs import CUDA, TENSORRT, OnnxRunner, TensorrtProviderRunner
from scripts.accelerator.torch_graphs import DeviceRunner, load_exported_program, load_torchscript

from cwic.backends import Runner
from cwic.backends.cuda import Cuda
from cwic.backends.device import find_device
from cwic.backends.onnxrt import OnnxRuntimeRunner, import_onnxruntime
from cwic.backends.tensorrt import TensorRTRunner
from cwic.bundle import Bundle
from cwic.doctor import Report
from cwic.engines.build import build_engines, find_target
from cwic.engines.choice import check_engines
from cwic.engines.library import KINDS, Kind, load_library
from cwic.engines.record import FACTS
from cwic.errors import BackendError
from cwic_export import torch_tensorrt
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.validation.artefacts import graph_bytes
from cwic_export.validation.report import Artefact

__all__ = ["Opened", "Site", "Target", "targets"]

_ROLES = ("encoder", "decoder")
_LOADERS: dict[str, Callable[[bytes, str], Any]] = {
    "torchscript": load_torchscript,
    "exported-program": load_exported_program,
}


@dataclass(frozen=True)
class Site:
    """Where it is measured.

    Attributes:
        device: ``cuda`` or ``cpu``.
        bundles: artefacts.
        doctor: what `cwic doctor` found here.
        folder: for engines that are built.
    """

    device: str
    bundles: Bundles
    doctor: Report
    folder: Path


@dataclass(frozen=True)
class Opened:
    """An artefact that was loaded.

    Attributes:
        runner: runs it from host arrays to host arrays.
        bundle, backend: with which :func:`cwic.bench.run` runs it; None if no backend of the
            runtime does.
        facts: for the result.
    """

    runner: Runner
    bundle: Bundle | None = None
    backend: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """An artefact at a precision.

    Attributes:
        name, precision: what it is called.
        form: the format of `cwic export` that it is made from; None: the network itself.
        check: raises CwicError where this machine cannot run it.
        open: loads it; what it raises is a failure and no reason to skip it.
    """

    name: str
    precision: str
    form: str | None
    check: Callable[[Site], None]
    open: Callable[[Site, Target], Opened]

    @property
    def label(self) -> str:
        return f"{self.name} {self.precision}"


def targets(device: str) -> list[Target]:
    """All that can be measured on ``cuda`` or ``cpu``."""
    found = [
        Target("eager", "fp32", None, _check_torch, _open_eager),
        # The project has no tolerance for bfloat16: it shows what speed PyTorch itself reaches.
        Target("eager", "bf16", None, _check_torch, _open_eager),
        Target("torchscript", "fp32", "torchscript", _check_torch, _open_torch),
        Target("exported-program", "fp32", "exported-program", _check_torch, _open_torch),
    ]
    graphs = {"fp32": "onnx", "fp16": "onnx-fp16"}
    if device == "cpu":
        found += [
            Target("onnxruntime-cpu", p, form, _check_cpu_provider, _open_onnx)
            for p, form in graphs.items()
        ]
        return found
    found += [
        Target("onnxruntime-cuda", p, form, _check_cuda_provider, _open_onnx)
        for p, form in graphs.items()
    ]
    found += [
        Target("onnxruntime-tensorrt", p, form, _check_tensorrt_provider, _open_tensorrt_provider)
        for p, form in graphs.items()
    ]
    for kind in KINDS:
        found += [
            Target(kind, p, form, _check_engines(kind), _open_engines(kind))
            for p, form in {**graphs, "int8": "onnx-int8-tensorrt"}.items()
        ]
    found.append(
        Target(
            "torch-tensorrt",
            "fp32",
            "torch-tensorrt",
            _check_torch_tensorrt,
            _open_torch_tensorrt,
        )
    )
    return found


def _check_torch(site: Site) -> None:
    if site.device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"PyTorch {torch.__version__} finds no CUDA device; run this on a machine with an "
            "NVIDIA GPU and a PyTorch that is built for CUDA"
        )


def _open_eager(site: Site, target: Target) -> Opened:
    network = site.bundles.network
    encoder, decoder = (kind(network).to(site.device) for kind in (EncoderGraph, DecoderGraph))
    autocast = torch.bfloat16 if target.precision == "bf16" else None
    return Opened(DeviceRunner(encoder, decoder, site.device, autocast))


def _open_torch(site: Site, target: Target) -> Opened:
    bundle = site.bundles.get(target.form or "")
    artefact = Artefact(target.name, target.precision)
    encoder, decoder = (
        _LOADERS[target.name](graph_bytes(bundle, artefact, role), site.device) for role in _ROLES
    )
    return Opened(DeviceRunner(encoder, decoder, site.device))


def _check_torch_tensorrt(site: Site) -> None:
    _check_torch(site)
    torch_tensorrt.load()


def _open_torch_tensorrt(site: Site, target: Target) -> Opened:
    """The ``.pt2`` files, which run where they were compiled."""
    torch_tensorrt.load()  # registers the operators that the files call
    bundle = site.bundles.get(target.form or "")
    encoder, decoder = (
        torch.export.load(bundle.path / f"{role}.torch-tensorrt.pt2").module() for role in _ROLES
    )
    return Opened(DeviceRunner(encoder, decoder, site.device))


def _check_cpu_provider(site: Site) -> None:
    del site
    import_onnxruntime("cpu")


def _check_cuda_provider(site: Site) -> None:
    OnnxRuntimeRunner(Bundle.load(), "cuda")  # loads nothing yet
    _check_provider(site, CUDA)


def _check_tensorrt_provider(site: Site) -> None:
    _check_cuda_provider(site)
    _check_provider(site, TENSORRT)


def _check_provider(site: Site, name: str) -> None:
    states = {state.name: state for state in site.doctor.providers}
    if name not in states:
        raise BackendError(f"the installed onnxruntime has no {name}; install onnxruntime-gpu")
    if not states[name].loads:
        raise BackendError(
            f"onnxruntime cannot load its {name} ({states[name].problem}); install the libraries "
            "that it was built for"
        )


def _open_onnx(site: Site, target: Target) -> Opened:
    bundle = site.bundles.get(target.form or "")
    runner = OnnxRunner(bundle, site.device, target.precision)
    return Opened(runner, bundle, runner.backend)


def _open_tensorrt_provider(site: Site, target: Target) -> Opened:
    bundle = site.bundles.get(target.form or "")
    return Opened(TensorrtProviderRunner(bundle, target.precision))


def _check_engines(kind: Kind) -> Callable[[Site], None]:
    def check(site: Site) -> None:
        del site
        device = find_device()
        find_target(load_library(kind))
        Cuda(device.cuda_version)

    return check


def _open_engines(kind: Kind) -> Callable[[Site, Target], Opened]:
    def opened(site: Site, target: Target) -> Opened:
        source = site.bundles.get(target.form or "")
        place = site.folder / f"{kind}-{target.precision}"
        shutil.copytree(source.path, place)
        # The backend takes the first library that a bundle has engines for: leave it one.
        files = {k: e for k, e in source.files.items() if e.target not in set(KINDS) - {kind}}
        bundle = dataclasses.replace(source, path=place, files=files)
        bundle.save()
        library, sm = load_library(kind), find_device().sm
        try:
            check_engines(
                bundle, kind=kind, version=library.version, sm=sm, precision=target.precision
            )
        except BackendError:
            here = find_target(library)
            bundle, _ = build_engines(bundle, here, precision=target.precision)
        runner = TensorRTRunner(bundle, kind=kind, precision=target.precision)
        return Opened(runner, bundle, runner.backend, {"engines": bundle.facts[FACTS]})

    return opened
