"""Picture quality by scikit-image, on uint8 RGB arrays [H, W, 3]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SMALLEST_SSIM_PX", "psnr_db", "ssim"]

SMALLEST_SSIM_PX = 11
"""Side of the window of :func:`ssim`."""


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """PSNR over all RGB samples, peak 255, in dB; infinite for equal pictures."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(a, b, data_range=255))  # type: ignore[no-untyped-call]


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """SSIM of luma (ITU-R BT.601, 8 bit) as Wang et al. 2004 define it; one scale.

    Gaussian window of 11 taps and sigma 1.5, K1 = 0.01, K2 = 0.03, peak 255, mean over the
    picture without a border of 5 pixels. None if a side is shorter than the window.
    """
    from skimage.metrics import structural_similarity

    if min(a.shape[:2]) < SMALLEST_SSIM_PX:
        return None
    # float32 halves the memory of large pictures and changes the mean by less than 1e-6.
    first, second = (np.asarray(Image.fromarray(v).convert("L"), np.float32) for v in (a, b))
    found = structural_similarity(  # type: ignore[no-untyped-call]
        first,
        second,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(found)
