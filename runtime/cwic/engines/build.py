"""Build the engines of a bundle and record them in its manifest."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cwic.bundle import Bundle, FileEntry
from cwic.engines import plugin
from cwic.engines.network import PORTS
from cwic.engines.plan import Plan, build_plan
from cwic.engines.profile import Profile
from cwic.engines.record import FACTS, EngineRecord, file_name
from cwic.engines.target import Target, find_target
from cwic.errors import BundleError, UsageError
from cwic.files import write_bytes

__all__ = ["Target", "build_engines", "find_target"]

_LOG_SUFFIX = ".log"
_INT8 = "onnx-tensorrt"
"""``target`` of the int8 files to build from: onnxruntime's have zero points other than 0, which
TensorRT does not take."""


def build_engines(
    bundle: Bundle,
    target: Target,
    *,
    precision: str = "fp32",
    profile: Profile | None = None,
    timing_cache: Path | None = None,
    with_plugin: bool = False,
) -> tuple[Bundle, list[str]]:
    """Build the engines of encoder and decoder and add them to the bundle.

    ``model_id`` and every other file stay as they are; an engine of the same name is replaced.
    Nothing is written unless both engines are built.

    Args:
        bundle: a folder that can be written.
        target: from :func:`find_target`.
        precision: which ONNX files to build from: ``fp32``, ``fp16`` or ``int8``.
        profile: sizes that the engines take; None takes 64x64 to 2160x3840.
        timing_cache: file with TensorRT's measurements, read if it is there and written
            afterwards; a second build is then much faster.
        with_plugin: let :mod:`cwic.engines.plugin` pack the encoder's bits.

    Returns:
        The bundle with the engines, and their file names.

    Raises:
        BundleError: no ONNX file of that precision, or one that is damaged or missing.
        BackendError: TensorRT cannot read a file or build it, or the audit fails.
        UsageError: a timing cache or a plugin with a library that has none, or the folder
            cannot be written.
    """
    # Now, and not after the building, which may take minutes.
    _check_writable(bundle.path, "copy the bundle into a folder of yours and build there")
    if timing_cache is not None:
        _check_writable(timing_cache.absolute().parent, "choose another --timing-cache")
    profile = profile or Profile.parse(stride=bundle.stride)
    sources = {role: _source(bundle, role, precision) for role in PORTS}
    plans = {
        role: build_plan(
            target,
            bundle.read(source),
            name=source,
            role=role,
            precision=precision,
            shapes=profile.shapes(role, bundle.decoder_channels, bundle.stride),
            timing_cache=timing_cache,
            with_plugin=with_plugin and role == "encoder",
        )
        for role, source in sources.items()
    }
    files: dict[str, FileEntry] = {}
    records: dict[str, Any] = {}
    for role, plan in plans.items():
        name = file_name(role, target.library, target.sm, precision)
        record = EngineRecord(
            kind=target.library.kind,
            library_version=target.library.version,
            sm=target.sm,
            gpu=target.gpu,
            precision=precision,
            profile=profile.shapes(role, bundle.decoder_channels, bundle.stride),
            onnx=sources[role],
            onnx_sha256=bundle.files[sources[role]].sha256,
            builder={
                "seconds": round(plan.seconds, 3),
                "inspected": plan.inspected,
                "plugins": [plugin.PLUGIN] if with_plugin and role == "encoder" else [],
                "log": name + _LOG_SUFFIX,
            },
            audit=plan.audit.to_json(),
        )
        records[name] = record.to_json()
        kind = target.library.kind
        for path, role_, data in (
            (bundle.path / name, role, plan.data),
            (bundle.path / (name + _LOG_SUFFIX), "log", _log(plan)),
        ):
            write_bytes(path, data)
            files[path.name] = FileEntry.of(path, role=role_, target=kind, precision=precision)
    return _add(bundle, files, records), list(records)


def _check_writable(folder: Path, remedy: str) -> None:
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} is missing or cannot be written; {remedy}")


def _source(bundle: Bundle, role: str, precision: str) -> str:
    """Name of the ONNX file that a role is built from."""
    have = bundle.graphs(role, int8=_INT8)
    if precision not in have:
        raise BundleError(
            f"{bundle.path} has no {precision} ONNX file of its {role} (it has "
            f"{', '.join(have) or 'none'}); export that precision first, or use another --precision"
        )
    return have[precision]


def _log(plan: Plan) -> bytes:
    """The messages, and the type of every layer's outputs, as text."""
    lines = [
        *plan.messages,
        "",
        "layers of the network: type, name, types of its outputs",
        *(
            f"{layer.type.lower()}\t{layer.name}\t{', '.join(t.dtype for t in layer.outputs)}"
            for layer in plan.layers
        ),
        "",
    ]
    return "\n".join(lines).encode()


def _add(bundle: Bundle, files: Mapping[str, FileEntry], records: Mapping[str, Any]) -> Bundle:
    # Read afresh: building took its time, and another build may have ended meanwhile.
    now = Bundle.load(bundle.path)
    engines = {**now.facts.get(FACTS, {}), **records}
    facts = {**now.facts, FACTS: {name: engines[name] for name in sorted(engines)}}
    changed = dataclasses.replace(now, files={**now.files, **files}, facts=facts)
    changed.save()
    return Bundle.load(bundle.path)
