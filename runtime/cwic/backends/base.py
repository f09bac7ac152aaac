"""What a backend does."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runner"]


class Runner(ABC):
    """Runs the two graphs of a bundle. A graph is loaded when it is first used.

    Methods may be called from several threads.

    Attributes:
        backend: the name under which :func:`cwic.backends.open_runner` gives this runner.
    """

    backend: str

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

    def release(self) -> None:  # noqa: B027 - most keep nothing
        """Give back memory that is kept for the next run; graphs are loaded again then."""
