"""The artefacts of a bundle, and what runs each on this machine."""

from __future__ import annotations

from typing import cast

from cwic.backends import Runner
from cwic.bundle import Bundle
from cwic.errors import BackendError, ExportError
from cwic_export.runners import RUNNERS
from cwic_export.validation.report import Artefact
from cwic_export.validation.tolerances import TOLERANCES

__all__ = ["artefacts_of", "graph_bytes", "open_runner"]

_ROLES = ("encoder", "decoder")
_ENGINES = ("tensorrt", "tensorrt-rtx")


def artefacts_of(bundle: Bundle) -> list[Artefact]:
    """One for each target and precision that the manifest has graphs of, the most exact first."""
    keys = ((e.target, e.precision) for e in bundle.files.values() if e.role in _ROLES)
    return [Artefact(*key) for key in sorted(dict.fromkeys(keys), key=_rank)]


def _rank(key: tuple[str, str]) -> tuple[int, str, int, str]:
    """The most exact one of each target first; engines, which have no runner here, last."""
    target, precision = key
    known, exact = list(RUNNERS), list(TOLERANCES)
    place = known.index(target) if target in known else len(known)
    return place, target, exact.index(precision) if precision in exact else len(exact), precision


def open_runner(bundle: Bundle, artefact: Artefact) -> Runner | None:
    """What runs an artefact here; None if nothing does, with the reason in the artefact.

    Raises:
        CwicError: it should run here but does not load.
    """
    if artefact.target in _ENGINES:
        return _open_engines(bundle, artefact)
    kind = RUNNERS.get(artefact.target)
    reason = (
        f"nothing here runs {artefact.target} files; validate them where they run"
        if kind is None
        else kind.unavailable()
    )
    if kind is None or reason is not None:
        artefact.skip(reason or "")
        return None
    return kind.from_bytes(*(graph_bytes(bundle, artefact, role) for role in _ROLES))


def _open_engines(bundle: Bundle, artefact: Artefact) -> Runner | None:
    """TensorRT's runner, where a GPU, the library and an engine for both are there.

    Never run on a GPU yet; without one, its refusal was.
    """
    from cwic.backends.device import find_device
    from cwic.backends.tensorrt import TensorRTRunner
    from cwic.engines.choice import check_engines
    from cwic.engines.library import Kind, load_library

    kind = cast("Kind", artefact.target)
    try:
        device = find_device()
        version = load_library(kind).version
        check_engines(
            bundle, kind=kind, version=version, sm=device.sm, precision=artefact.precision
        )
        return TensorRTRunner(bundle, kind=kind, precision=artefact.precision)
    except BackendError as exc:
        artefact.skip(str(exc))
        return None


def graph_bytes(bundle: Bundle, artefact: Artefact, role: str) -> bytes:
    """The file of one graph, checked against its digest.

    Raises:
        ExportError: the bundle has none.
        BundleError: it is missing or not the one that was exported.
    """
    for name, entry in bundle.files.items():
        if (entry.role, entry.target, entry.precision) == (
            role,
            artefact.target,
            artefact.precision,
        ):
            return bundle.read(name)
    raise ExportError(f"{bundle.path} has no {role} for {artefact.label}; export the model again")
