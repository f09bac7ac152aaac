"""What a backend does, and how one is chosen by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Bundle
from cwic.errors import UsageError

__all__ = ["BACKENDS", "Runner", "open_runner"]

BACKENDS = ("auto", "cpu")


class Runner(ABC):
    """Runs the two graphs of a bundle. A graph is loaded when it is first used."""

    @abstractmethod
    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures to codes and importance.

        Args:
            image: uint8 [N, H, W, 3], H and W multiples of the stride.

        Returns:
            codes: uint8 [N, n/8, H/8, W/8], channel k in bit 7 - k % 8 of byte k // 8.
            importance: uint8 [N, H/8, W/8], 255 for the most important.

        Raises:
            BackendError: the graph cannot be loaded or fails.
        """

    @abstractmethod
    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes and levels, uint8 [N, H/8, W/8] each 0..L, to pictures uint8 [N, H, W, 3].

        Raises:
            BackendError: the graph cannot be loaded or fails.
        """


def open_runner(bundle: Bundle, backend: str = "auto") -> Runner:
    """The runner for a backend's name; ``auto`` takes the best one that is installed.

    Raises:
        UsageError: unknown name.
        BackendError: the backend's library is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"unknown backend {backend!r}; use one of {', '.join(BACKENDS)}")
    from cwic.backends.onnxrt import OnnxRuntimeRunner

    return OnnxRuntimeRunner(bundle)
