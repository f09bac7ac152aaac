"""Layers of whole numbers, computed in float32: what both entropy networks end in.

Products are fast in float32. It holds whole numbers below 2^24 exactly, and their sums in any
order, and the shifts divide by powers of two: so every machine finds the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BundleError

__all__ = ["ACTIVATION", "LARGEST_ACTIVATION", "WEIGHT_GRID", "ExactLayers", "check_exact"]

ACTIVATION = 32
"""Activations are in 1/32."""
WEIGHT_GRID = 64
"""Weights of the layers are in 1/64."""
LARGEST_ACTIVATION = 255
_EXACT = 1 << 24


def check_exact(largest: float) -> None:
    """Whole numbers below 2^24 are exact in float32, and so are their sums.

    Raises:
        BundleError: a sum can be ``largest``, which is none.
    """
    if largest >= _EXACT:
        raise BundleError(
            f"a sum of the entropy model can reach {largest:.0f}, more than float32 holds "
            "exactly; train the entropy model again"
        )


class ExactLayers:
    """From the sums of a first layer to outputs, both whole numbers::

        a1 = clip(z, 0, 255)
        a2 = clip((middle a1 + middle_bias + 32) >> 6, 0, 255)
        z' = (last a2 + last_bias + 32) >> 6

    Args:
        of: ``middle`` [H, H], ``middle_bias`` [H], ``last`` [H, outputs] and ``last_bias``
            [outputs] by name, whole numbers.

    Raises:
        BundleError: sums are not exact.
    """

    def __init__(self, of: Callable[[str], NDArray[Any]]) -> None:
        self.hidden = of("middle").shape[0]
        self._layers = [self._scaled(of(name), of(f"{name}_bias")) for name in ("middle", "last")]

    @staticmethod
    def _scaled(
        weights: NDArray[Any], bias: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """So that no shift is left to do but to round down."""
        half = WEIGHT_GRID // 2
        weights, bias = weights.astype(np.float64), bias.astype(np.float64)
        check_exact(LARGEST_ACTIVATION * np.abs(weights).sum(0).max() + np.abs(bias).max() + half)
        scaled = (weights / WEIGHT_GRID).astype(np.float32)
        return scaled, ((bias + half) / WEIGHT_GRID).astype(np.float32)

    def __call__(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [positions, outputs] of sums [positions, H], which are rounded down first.

        ``z`` is overwritten.
        """
        for weights, bias in self._layers:
            np.floor(z, out=z)
            np.clip(z, 0, LARGEST_ACTIVATION, out=z)
            z = z @ weights
            z += bias
        return np.floor(z, out=z)
