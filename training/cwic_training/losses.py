"""Training objectives: distortion, the rate of codes and levels, the paper's hinge."""

from __future__ import annotations

import torch
from pytorch_msssim import ms_ssim
from torch import Tensor

from cwic_training.config import STRIDE

__all__ = [
    "MS_SSIM_SMALLEST_PX",
    "PIXELS_PER_CODE",
    "code_bpp",
    "distortion",
    "fixed_rate_loss",
    "level_bpp",
    "mse255",
    "step_loss",
    "variable_rate_loss",
]

PIXELS_PER_CODE = STRIDE * STRIDE

MS_SSIM_SMALLEST_PX = 161
"""Shortest side of a picture that five scales of an 11-tap window fit in."""

_MS_SSIM_GAIN = 1300.0
"""What 1 - MS-SSIM is multiplied by to be as large as the MSE of the same picture, about,
measured at 0.25 to 1 bit per pixel: so the same rate factor serves both."""


def mse255(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared error per picture on the 0..255 scale; [N, 3, H, W] twice to [N]."""
    return (x - y).square().mean((1, 2, 3)) * 255.0**2


def distortion(x: Tensor, y: Tensor, ms_ssim_share: float) -> Tensor:
    """What the reconstructions of a batch are judged by, per picture [N].

    Args:
        x: pictures in [0, 1], [N, 3, H, W].
        y: their reconstructions, unclipped.
        ms_ssim_share: that share of the pictures, the first ones, is judged by 1 - MS-SSIM
            (RGB, five scales), the others by :func:`mse255`: on average the sum of the two,
            at the cost of one. Sides of at least :data:`MS_SSIM_SMALLEST_PX` pixels then.
    """
    structural = round(ms_ssim_share * len(x))
    found = mse255(x[structural:], y[structural:])
    if structural == 0:
        return found
    with torch.autocast(x.device.type, enabled=False):
        similarity = ms_ssim(y[:structural].float(), x[:structural], 1.0, size_average=False)
    return torch.cat([_MS_SSIM_GAIN * (1 - similarity), found])


def code_bpp(p: Tensor, scale: Tensor, n: int) -> Tensor:
    """Kept codes in bits per pixel before entropy coding, per picture [N]; differentiable.

    The count is ``n * clip(s P, 0, 1)``, the mask's sum before it is rounded to levels.
    """
    kept = (p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * n
    return kept.mean((1, 2, 3)) / PIXELS_PER_CODE


def level_bpp(p: Tensor, scale: Tensor, levels: int) -> Tensor:
    """A price for the importance map itself in bits per pixel, per picture [N].

    Levels are coded from their neighbours, so their cost grows with the logarithm of the
    step between neighbours; ``log2(1 + |d|)`` bits per position stands in for it.
    """
    u = (p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * levels
    across = torch.log2(1 + (u[..., 1:] - u[..., :-1]).abs()).mean((1, 2, 3))
    down = torch.log2(1 + (u[..., 1:, :] - u[..., :-1, :]).abs()).mean((1, 2, 3))
    return (across + down) / PIXELS_PER_CODE


def variable_rate_loss(distortion: Tensor, bpp: Tensor, scale: Tensor, weight: float) -> Tensor:
    """``mean(s * D + weight / s * R)``: one network for all rates.

    A picture coded at scale s sees the trade-off ``weight / s**2`` between distortion
    (:func:`distortion`) and rate (bits per pixel); the two factors keep the gradients of low
    and high rates comparable.
    """
    return (scale * distortion + weight / scale * bpp).mean()


def step_loss(distortion: Tensor, bpp: Tensor, step: Tensor, weight: float) -> Tensor:
    """``mean((D + lambda R) / sqrt(lambda))``, lambda = weight step^2: :func:`variable_rate_loss`
    for values in steps.

    The squared error of a uniform quantiser is in proportion to the square of its step, so that
    trade-off is the one at which the step is right.

    Args:
        distortion: of each picture, :func:`distortion`, [N].
        bpp: rate of each in bits per pixel, [N].
        step: :meth:`~cwic_training.quantiser.Quantiser.reference_steps` of each, [N].
        weight: how much rate weighs, positive.
    """
    price = weight * step.square()
    return ((distortion + price * bpp) / price.sqrt()).mean()


def fixed_rate_loss(distortion: Tensor, bpp: Tensor, target_bpp: float, weight: float) -> Tensor:
    """The paper's objective (eq. 8): distortion plus a hinge ``max(0, R - r)`` per picture."""
    return (distortion + weight * (bpp - target_bpp).clamp(min=0)).mean()
