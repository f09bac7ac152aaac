"""Quality of a restored picture, by torchmetrics: the figures that the field compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["CONVENTION", "SMALLEST_MS_SSIM_PX", "Quality", "measure"]

SMALLEST_MS_SSIM_PX = 176
"""Five scales of an 11-tap window need sides above 160 pixels, whole after four halvings."""

CONVENTION = (
    "PSNR over all RGB samples, peak 255; MS-SSIM by torchmetrics on RGB, data range 255, "
    "11-tap Gaussian window, five scales, mean over the channels"
)
_SMALLEST_MSE = 1e-10


@dataclass(frozen=True)
class Quality:
    """Of one restored picture.

    Attributes:
        psnr_db: peak signal-to-noise ratio; 148 for equal pictures.
        ms_ssim: 0..1; None for sides below :data:`SMALLEST_MS_SSIM_PX`.
    """

    psnr_db: float
    ms_ssim: float | None


def measure(picture: NDArray[np.uint8], restored: NDArray[np.uint8]) -> Quality:
    """Compare two pictures, uint8 [H, W, 3]."""
    mse = np.square(restored.astype(np.float64) - picture).mean()
    psnr_db = float(10 * np.log10(255**2 / max(mse, _SMALLEST_MSE)))
    if min(picture.shape[:2]) < SMALLEST_MS_SSIM_PX:
        return Quality(psnr_db, None)
    # Takes seconds to load, and most commands measure nothing.
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    with torch.inference_mode():
        value = multiscale_structural_similarity_index_measure(
            _planes(restored), _planes(picture), data_range=255.0
        )
    return Quality(psnr_db, float(value))


def _planes(picture: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
