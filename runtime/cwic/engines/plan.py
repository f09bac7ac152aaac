"""One engine from the bytes of one ONNX file, in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cwic.engines import inspector, plugin
from cwic.engines.audit import Audit, audit, check
from cwic.engines.library import Library
from cwic.engines.network import Layer, layers_of, parse
from cwic.engines.profile import Shapes
from cwic.engines.target import Target
from cwic.errors import BackendError, UsageError
from cwic.files import write_bytes

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["Plan", "build_plan"]


@dataclass(frozen=True)
class Plan:
    """One built engine, still in memory.

    Attributes:
        data: the bytes that the library made, unchanged.
        layers: the network it was built from.
        audit: what that network computes in.
        inspected: whether the built engine was looked into as well.
        messages: what the library said, a line each, with its severity.
        seconds: what building took.
    """

    data: bytes
    layers: Sequence[Layer]
    audit: Audit
    inspected: bool
    messages: Sequence[str]
    seconds: float


def build_plan(
    target: Target,
    data: bytes,
    *,
    name: str,
    role: str,
    precision: str,
    shapes: Mapping[str, Shapes],
    timing_cache: Path | None = None,
    with_plugin: bool = False,
) -> Plan:
    """Parse, audit, build, and look into what was built.

    Args:
        target: what to build for.
        data: the ONNX file, and ``name``: what errors call it.
        role: ``encoder`` or ``decoder``.
        precision: what the file is to compute in.
        shapes: smallest, best and largest shape of every input.
        timing_cache: file that is read if it is there, and written.
        with_plugin: pack the bits of an encoder with :mod:`cwic.engines.plugin`.

    Raises:
        BackendError: the library cannot read or build the file, or the audit fails.
        UsageError: the library has no timing cache or no plugins.
    """
    library = target.library
    if timing_cache is not None and not library.has_timing_cache:
        raise UsageError(
            f"{library.title} measures nothing while it builds and has no timing cache; leave "
            "--timing-cache out (its runtime cache is made where the engine runs)"
        )
    messages: list[str] = []
    errors: list[str] = []

    def sink(severity: str, message: str) -> None:
        if severity != "verbose":
            messages.append(f"{severity}: {message}")
        if severity == "error":
            errors.append(message)

    with library.messages_to(sink) as logger:
        builder = _new_builder(library, logger, errors)
        network = parse(library, builder, logger, data, name, role)
        layers = layers_of(library, network)
        result = audit(layers, precision)
        check(result, name)
        if with_plugin:
            plugin.fuse_packing(network, plugin.inserter(library, target.sm))
        config = library.new_config(builder, target.sm)
        optimization = builder.create_optimization_profile()
        for port, (smallest, best, largest) in shapes.items():
            optimization.set_shape(port, smallest, best, largest)
        if config.add_optimization_profile(optimization) < 0:
            raise BackendError(
                f"{name} does not take pictures of these sizes ({_last(errors)}); "
                "give another --profile, or export the model again"
            )
        cache = None if timing_cache is None else _read_cache(config, timing_cache)
        started = time.monotonic()
        plan = builder.build_serialized_network(network, config)
        seconds = time.monotonic() - started
        if plan is None:
            raise BackendError(
                f"{library.title} cannot build {name} ({_last(errors)}); give a --profile with a "
                "smaller largest size if memory is short, or update it"
            )
        built = bytes(plan)
        if timing_cache is not None and cache is not None:
            write_bytes(timing_cache, bytes(cache.serialize()))
        inspected = target.gpu is not None and _inspect(library, logger, built, layers, name)
    return Plan(built, layers, result, inspected, messages, seconds)


def _new_builder(library: Library, logger: trt.ILogger, errors: Sequence[str]) -> trt.Builder:
    try:
        builder: trt.Builder = library.module.Builder(logger)
    except Exception as exc:  # how the bindings say that the library gave none
        raise BackendError(
            f"{library.title} does not start ({_last(errors) if errors else exc}); update the "
            "NVIDIA driver, or see cwic doctor"
        ) from exc
    return builder


def _read_cache(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache:
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror}); choose another file") from exc
    cache = config.create_timing_cache(data)
    # A cache of another version or GPU is refused: its times would be wrong here.
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageError(
            f"{path} is no timing cache of this TensorRT and this GPU; remove it, or name another"
        )
    return cache


def _inspect(
    library: Library, logger: trt.ILogger, plan: bytes, layers: Sequence[Layer], name: str
) -> bool:
    information = inspector.inspect(library, logger, plan)
    fused = inspector.fused_layers(information) if information else []
    wide = inspector.widened(layers, fused)
    if wide:
        raise BackendError(
            f"{library.title} runs {wide[0]} and {len(wide) - 1} other fp16 layers of {name} in "
            "fp32; use --precision fp32, or another release of it"
        )
    return any(layer.nodes for layer in fused)


def _last(errors: Sequence[str]) -> str:
    return errors[-1][:300] if errors else "it does not say why"
