"""Which engine of a bundle runs here, or why none does."""

from __future__ import annotations

from cwic.bundle import Bundle
from cwic.engines.library import Kind
from cwic.engines.record import EngineRecord
from cwic.errors import BackendError, BundleError

__all__ = ["PRECISIONS", "check_engines", "choose"]

PRECISIONS = ("fp32", "fp16", "int8")
"""From the most exact one."""

_REASONS_SHOWN = 3


def choose(
    bundle: Bundle,
    role: str,
    *,
    kind: Kind,
    version: str,
    sm: str,
    precision: str | None = None,
) -> tuple[str, EngineRecord]:
    """The engine of ``role`` that this library runs on this GPU.

    Args:
        bundle: the model.
        role: ``encoder`` or ``decoder``.
        kind, version: the library and its whole version: an engine runs with no other.
        sm: compute capability of the GPU, for example ``86``.
        precision: ``fp32``, ``fp16`` or ``int8``; None takes the most exact one there is.

    Returns:
        Name of the file (:meth:`Bundle.read` gives its bytes, checked) and its record.

    Raises:
        BackendError: no engine fits; the message says what is wrong with those there are
            and how to build one.
    """
    fitting: list[tuple[str, EngineRecord]] = []
    reasons: list[str] = []
    for name, entry in sorted(bundle.files.items()):
        if (entry.role, entry.target) != (role, kind):
            continue
        try:
            record = EngineRecord.of(bundle, name)
        except BundleError as exc:
            reasons.append(str(exc).partition(";")[0])
            continue
        reason = _misfit(bundle, record, version, sm, precision)
        if reason is None:
            fitting.append((name, record))
        else:
            reasons.append(f"{name} {reason}")
    if fitting:
        return min(fitting, key=lambda found: _rank(found[1].precision))
    what = "; ".join(reasons[:_REASONS_SHOWN]) or "there is none"
    if len(reasons) > _REASONS_SHOWN:
        what += f"; and {len(reasons) - _REASONS_SHOWN} more"
    raise BackendError(
        f"{bundle.path} has no {kind} engine of the {role} that runs here ({what}); "
        f"build it: {_command(bundle, kind, sm, precision)}"
    )


def check_engines(
    bundle: Bundle, *, kind: Kind, version: str, sm: str, precision: str | None = None
) -> None:
    """See whether encoder and decoder have one; arguments and errors as :func:`choose`."""
    for role in ("encoder", "decoder"):
        choose(bundle, role, kind=kind, version=version, sm=sm, precision=precision)


def _misfit(
    bundle: Bundle, record: EngineRecord, version: str, sm: str, precision: str | None
) -> str | None:
    source = bundle.files.get(record.onnx)
    if precision is not None and record.precision != precision:
        return f"is {record.precision}, not {precision}"
    if record.sm != sm:
        return f"is for SM {record.sm}, this GPU has SM {sm}"
    if record.library_version != version:
        return f"was built by version {record.library_version}, here is {version}"
    if source is None or source.sha256 != record.onnx_sha256:
        return f"is stale: {record.onnx} has changed since it was built"
    return None


def _rank(precision: str) -> int:
    return PRECISIONS.index(precision) if precision in PRECISIONS else len(PRECISIONS)


def _command(bundle: Bundle, kind: Kind, sm: str, precision: str | None) -> str:
    command = f"cwic engine {bundle.path} --kind {kind}"
    if kind == "tensorrt-rtx":
        command += f" --sm {sm}"
    return command if precision is None else f"{command} --precision {precision}"
