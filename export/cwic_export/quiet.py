"""Silence for PyTorch's exporters: a library prints nothing."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what the exporters say about themselves; errors are still raised.

    They warn of their own deprecations (TorchScript, pytrees), of axes that share a name on
    purpose, and of packages that these graphs do not need.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
