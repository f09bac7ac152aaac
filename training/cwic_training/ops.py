"""The two operators of the paper, as ``torch.library`` ops with surrogate gradients.

``cwic::binarize(x)`` and ``cwic::importance_mask(p, scale, levels, n)`` are steps, so
their true gradient is zero almost everywhere. Each is differentiated as if it were the
smooth function beside it, its *surrogate* (Li et al. 2018, sections 3.2 and 3.3)::

    binarize          x > 0                     surrogate  clip((x + 1) / 2, 0, 1)
    importance_mask   k < level(s p) * n / L    surrogate  sigmoid((n clip(s p, 0, 1) - k - .5) / w)

The paper's mask surrogate is a box three levels wide and L high, whose sum over k is
three times the slope of the number of codes; the sigmoid's sum is that slope itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "MASK_SURROGATE_WIDTH",
    "binarize",
    "binarize_decomposed",
    "binarize_surrogate",
    "importance_levels",
    "importance_mask",
    "importance_mask_decomposed",
    "importance_mask_surrogate",
]

MASK_SURROGATE_WIDTH = 3.0
"""Width of the mask's sigmoid surrogate, in codes."""


def binarize_decomposed(x: Tensor) -> Tensor:
    """:func:`binarize` in plain ATen operations, for exporters that know no custom op."""
    return (x > 0).to(x.dtype)


def binarize_surrogate(x: Tensor) -> Tensor:
    """The function whose gradient :func:`binarize` uses: ``clip((x + 1) / 2, 0, 1)``."""
    return ((x + 1) / 2).clamp(0, 1)


def importance_levels(p: Tensor, scale: Tensor, levels: int) -> Tensor:
    """Quantise importance to ``round(clip(scale * p, 0, 1) * levels)``, half to even.

    Args:
        p: importance in [0, 1], float [N, 1, H, W].
        scale: one factor per picture, float [N], non-negative.
        levels: L, the highest level.

    Returns:
        Whole numbers 0..L with the shape and dtype of ``p``.
    """
    return ((p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * levels).round()


def _channel_index(p: Tensor, n: int) -> Tensor:
    return torch.arange(n, device=p.device, dtype=p.dtype).view(1, n, 1, 1)


def importance_mask_decomposed(p: Tensor, scale: Tensor, levels: int, n: int) -> Tensor:
    """:func:`importance_mask` in plain ATen operations."""
    kept = importance_levels(p, scale, levels).float() * (n / levels)
    return (_channel_index(kept, n) < kept).to(p.dtype)


def importance_mask_surrogate(p: Tensor, scale: Tensor, levels: int, n: int) -> Tensor:
    """The function whose gradient :func:`importance_mask` uses; ``levels`` plays no part."""
    del levels
    kept = (p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * n
    return torch.sigmoid((kept - _channel_index(p, n) - 0.5) / MASK_SURROGATE_WIDTH)


@torch.library.custom_op("cwic::binarize", mutates_args=())
def binarize(x: Tensor) -> Tensor:
    """Code bits: 1 where ``x > 0``, else 0 (paper eq. 2, threshold moved to E = 0).

    Args:
        x: encoder output E, any float dtype and shape.

    Returns:
        Zeros and ones with the shape and dtype of ``x``.
    """
    return binarize_decomposed(x)


@torch.library.custom_op("cwic::importance_mask", mutates_args=())
def importance_mask(p: Tensor, scale: Tensor, levels: int, n: int) -> Tensor:
    """Which codes the importance map keeps: code k where ``k < level * n / L`` (eq. 6).

    Args:
        p: importance in [0, 1], float [N, 1, H, W].
        scale: rate factor per picture, float [N].
        levels: L, the highest level.
        n: number of code channels, a multiple of ``levels``.

    Returns:
        Zeros and ones, [N, n, H, W], dtype of ``p``.
    """
    return importance_mask_decomposed(p, scale, levels, n).contiguous()


@binarize.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@importance_mask.register_fake
def _(p: Tensor, scale: Tensor, levels: int, n: int) -> Tensor:
    return p.new_empty((p.shape[0], n, p.shape[2], p.shape[3]))


def _binarize_setup(ctx: torch.autograd.function.FunctionCtx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0])


def _binarize_backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    (x,) = ctx.saved_tensors
    return grad * 0.5 * (x.abs() <= 1)


def _mask_setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    p, scale, ctx.levels, ctx.n = inputs
    ctx.save_for_backward(p, scale)


def _mask_backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    p, scale = ctx.saved_tensors
    factor = scale.view(-1, 1, 1, 1)
    m = importance_mask_surrogate(p, scale, ctx.levels, ctx.n)
    slope = (m * (1 - m) * grad).sum(1, keepdim=True) * (ctx.n / MASK_SURROGATE_WIDTH)
    slope = slope * (p * factor <= 1)
    grad_scale = (slope * p).sum((1, 2, 3)) if ctx.needs_input_grad[1] else None
    return slope * factor, grad_scale, None, None


binarize.register_autograd(_binarize_backward, setup_context=_binarize_setup)
importance_mask.register_autograd(_mask_backward, setup_context=_mask_setup)
