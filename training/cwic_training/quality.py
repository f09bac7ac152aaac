"""Which rate factors the qualities 1 to 100 stand for: equal steps of MS-SSIM in dB.

In dB, ``-10 log10(1 - MS-SSIM)``, for nearly all of MS-SSIM's own range lies among pictures
that nobody wants. Measured once, on pictures that the model was not trained on; MS-SSIM
(torchmetrics, RGB) rises with the rate factor s, so the factors that reach evenly spaced
values of it follow by interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cwic_training.data import open_centre
from cwic_training.model import CodecNetwork

__all__ = ["quality_scales"]

LOWEST_MS_SSIM = 0.8
"""Of quality 1."""
_LOWEST_SCALE = 0.05
KNOTS = 12
_MEASURED = 14
_SMALLEST_PX = 176
"""Five scales of an 11-tap window need this."""
_LARGEST_PX = 512
_PICTURES = 16


def quality_scales(
    network: CodecNetwork, pictures: Sequence[Path], highest: float
) -> list[float] | None:
    """Rate factors of :data:`KNOTS` qualities spread evenly from 1 to 100.

    Args:
        network: trained, in evaluation mode, with an importance map.
        pictures: photographs; the first 16 that are large enough for MS-SSIM are taken.
        highest: rate factor of quality 100.

    Returns:
        None if no picture is large enough.

    Raises:
        TrainingError: a picture is unreadable; the message names it.
    """
    scales = np.geomspace(_LOWEST_SCALE, highest, _MEASURED)
    rows = []
    for path in pictures:
        picture = open_centre(path, _LARGEST_PX)
        if min(picture.shape[:2]) >= _SMALLEST_PX:
            x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
            rows.append(_ms_ssim(network, x, scales.tolist()))
        if len(rows) == _PICTURES:
            break
    if not rows:
        return None
    # MS-SSIM may stand still where all levels are 0, or L; the knots must rise all the same.
    rising = np.maximum.accumulate(-10 * np.log10(1 - np.mean(rows, axis=0))) + 1e-4 * np.arange(
        _MEASURED
    )
    lowest = min(-10 * np.log10(1 - LOWEST_MS_SSIM), (rising[0] + rising[-1]) / 2)
    wanted = np.linspace(max(rising[0], lowest), rising[-1], KNOTS)
    logs = np.interp(wanted, rising, np.log(scales))
    return [round(float(scale), 5) for scale in np.exp(logs)]


def _ms_ssim(network: CodecNetwork, x: Tensor, scales: Sequence[float]) -> list[float]:
    # Takes seconds to load, and most commands measure nothing.
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    found = []
    with torch.inference_mode():
        raw, p = network.analysed(x)
        for scale in torch.tensor(scales)[:, None]:
            y = network.coded(raw, p, scale).picture.clamp(0, 1)
            value = multiscale_structural_similarity_index_measure(y, x, data_range=1.0)
            found.append(float(value))
    return found
