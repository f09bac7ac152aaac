"""What a backend does."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BackendError

__all__ = ["Runner"]


class Runner(ABC):
    """Runs the graphs of a bundle. A graph is loaded when it is first used.

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
            codes: uint8 [N, channels, H/8, W/8], see :attr:`cwic.bundle.Bundle.encoder_channels`;
                of signs, channel k is bit 7 - k % 8 of byte k // 8; of values see
                :mod:`cwic.quantiser`.
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

    def gradient(
        self, codes: NDArray[np.uint8], levels: NDArray[np.uint8], image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """How far pictures are from their codes' decoded ones, and what each code does to that.

        Args:
            codes, levels: as :meth:`decode` takes them.
            image: uint8 [N, H, W, 3].

        Returns:
            gradient: float32 [N, n, H/8, W/8], of the sum of all errors with respect to codes:
                to signs as -1 and 1, or to values as whole numbers.
            error: float32 [N, H/8, W/8], the sum of squared differences of each position's
                pixels in steps of 1/255.

        Raises:
            BackendError: this backend has no such graph, or it cannot be loaded or fails.
            BundleError: the bundle has none.
        """
        raise BackendError(
            f"the {self.backend} backend cannot search for codes; use --backend cpu or cuda, "
            "or leave out the effort"
        )

    def release(self) -> None:  # noqa: B027 - most keep nothing
        """Give back memory that is kept for the next run; graphs are loaded again then."""
