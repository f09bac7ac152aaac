"""Inference backends: one module per library, one runner each behind :class:`Runner`.

A runner imports its library when it is made, so that a missing one is an error of that
backend alone.
"""

from cwic.backends.base import Runner
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.errors import UsageError

__all__ = ["BACKENDS", "Runner", "open_runner"]

BACKENDS = ("auto", "cpu")


def open_runner(bundle: Bundle, backend: str = "auto") -> Runner:
    """The runner for a backend's name; ``auto`` takes the best one that is installed.

    Raises:
        UsageError: unknown name.
        BackendError: the backend's library is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; use one of {', '.join(BACKENDS)}")
    return OnnxRuntimeRunner(bundle)
