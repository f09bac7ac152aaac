"""Inference backends: one module per library, one runner each behind :class:`Runner`.

A backend's module, and the library behind it, is imported when its runner is made, so that
a missing one is an error of that backend alone.
"""

from __future__ import annotations

from collections.abc import Callable

from cwic.backends.auto import Choice, Skipped, choose
from cwic.backends.base import Runner
from cwic.bundle import Bundle
from cwic.errors import UsageError

__all__ = ["BACKENDS", "Choice", "Runner", "Skipped", "choose_runner", "open_runner", "openers"]

BACKENDS = ("auto", "cpu", "cuda", "tensorrt")


def open_runner(
    bundle: Bundle,
    backend: str = "auto",
    *,
    precision: str | None = None,
    rebuild: bool = False,
    threads: int = 0,
) -> Runner:
    """The runner for a backend's name; ``auto`` takes the best one that really runs.

    Args:
        bundle: the model.
        backend: one of :data:`BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``int8``: that of the graphs or engines. None takes
            ``fp32`` graphs, and of the engines the most exact one that fits.
        rebuild: let the tensorrt backend build an engine that is missing or does not fit.
        threads: of a graph that runs on the CPU; 0 leaves it to the backend.

    Raises:
        UsageError: unknown name.
        BackendError: the backend cannot be used here. That the bundle has no graph of this
            precision shows when the graph is first used.
    """
    if backend == "auto":
        found = openers(bundle, precision=precision, rebuild=rebuild, threads=threads)
        return choose(bundle, found).runner
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; use one of {', '.join(BACKENDS)}")
    return openers(bundle, precision=precision, rebuild=rebuild, threads=threads)[backend]()


def choose_runner(bundle: Bundle, *, precision: str | None = None, rebuild: bool = False) -> Choice:
    """What ``auto`` takes, with the backends that it skipped; see :mod:`cwic.backends.auto`."""
    return choose(bundle, openers(bundle, precision=precision, rebuild=rebuild))


def openers(
    bundle: Bundle, *, precision: str | None = None, rebuild: bool = False, threads: int = 0
) -> dict[str, Callable[[], Runner]]:
    """What makes each backend's runner, in the order in which ``auto`` tries them."""

    def tensorrt() -> Runner:
        from cwic.backends.tensorrt import TensorRTRunner

        return TensorRTRunner(bundle, precision=precision, rebuild=rebuild)

    def cuda() -> Runner:
        from cwic.backends.onnxrt import OnnxRuntimeRunner

        return OnnxRuntimeRunner(bundle, "cuda", precision=precision)

    def cpu() -> Runner:
        from cwic.backends.onnxrt import OnnxRuntimeRunner

        return OnnxRuntimeRunner(bundle, "cpu", precision=precision, threads=threads)

    return {"tensorrt": tensorrt, "cuda": cuda, "cpu": cpu}
