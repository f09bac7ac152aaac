"""Picture quality by torchmetrics, on uint8 RGB arrays [H, W, 3]."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure as _ms_ssim,
)
from torchmetrics.functional.image import peak_signal_noise_ratio as _psnr
from torchmetrics.functional.image import structural_similarity_index_measure as _ssim

__all__ = ["SMALLEST_MS_SSIM_PX", "bits_per_pixel", "mean_point", "ms_ssim", "psnr_db", "ssim"]

SMALLEST_MS_SSIM_PX = 176
"""Five scales of an 11-tap window need sides above 160 pixels."""


def _pair(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.from_numpy(v.copy()).permute(2, 0, 1)[None].float() for v in (a, b))
    return first, second


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR over all RGB samples, peak 255, in dB."""
    return float(_psnr(*_pair(a, b), data_range=255.0))


def ms_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """MS-SSIM on RGB, 11-tap Gaussian window, five scales, as torchmetrics defines it."""
    return float(_ms_ssim(*_pair(a, b), data_range=255.0))


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """SSIM on RGB, 11-tap Gaussian window, as torchmetrics defines it."""
    found = _ssim(*_pair(a, b), data_range=255.0)
    return float(found[0] if isinstance(found, tuple) else found)


def bits_per_pixel(data: bytes, picture: NDArray[np.uint8]) -> float:
    """Rate of a whole file."""
    return 8 * len(data) / float(picture.shape[0] * picture.shape[1])


def mean_point(
    setting: float,
    bpp: Sequence[float],
    pictures: Sequence[NDArray[np.uint8]],
    restored: Sequence[NDArray[np.uint8]],
) -> dict[str, Any]:
    """A point of a curve: mean rate, PSNR and MS-SSIM of pictures at one setting."""
    pairs = list(zip(pictures, restored, strict=True))
    return {
        "setting": setting,
        "bpp": round(fmean(bpp), 5),
        "psnr_db": round(fmean(psnr_db(a, b) for a, b in pairs), 4),
        "ms_ssim": round(fmean(ms_ssim(a, b) for a, b in pairs), 6),
    }
