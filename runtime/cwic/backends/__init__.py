"""Inference backends: one module per library, one runner each behind :class:`Runner`."""

from cwic.backends.base import Runner, open_runner

__all__ = ["Runner", "open_runner"]
