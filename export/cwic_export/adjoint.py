"""The adjoint of a decoder network, written out: gradients as a plain graph.

An exported graph cannot differentiate, so each layer's step back is spelled out here, as
further layers of the same weights::

    y, back = with_adjoint(module, x)
    back(g)        the gradient of (y * g).sum() with respect to x
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from cwic.errors import ExportError
from cwic_training.layers import ChannelsLast, MixBlock, ResidualBlock

__all__ = ["Back", "with_adjoint"]

Back: TypeAlias = Callable[[Tensor], Tensor]


def with_adjoint(module: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    """What ``module`` makes of ``x``, and its adjoint there.

    Raises:
        ExportError: a kind of layer that has no adjoint here.
    """
    if isinstance(module, nn.Sequential):
        return _chain(list(module), x)
    if isinstance(module, ChannelsLast):
        return module(x), lambda g: g
    if isinstance(module, nn.PixelShuffle):
        factor = module.upscale_factor
        return module(x), lambda g: F.pixel_unshuffle(g, factor)
    if isinstance(module, nn.ReLU):
        return module(x), lambda g: g * (x > 0).to(g.dtype)
    if isinstance(module, nn.Conv2d):
        return module(x), lambda g: _conv_back(module, g)
    if isinstance(module, MixBlock):
        return _residual([module.depthwise, module.up, nn.ReLU(), module.down], x)
    if isinstance(module, ResidualBlock):
        return _residual([module.conv1, nn.ReLU(), module.conv2], x)
    raise ExportError(
        f"no adjoint of {type(module).__name__} is known; use a model of this release"
    )


def _chain(modules: list[nn.Module], x: Tensor) -> tuple[Tensor, Back]:
    backs: list[Back] = []
    for module in modules:
        x, back = with_adjoint(module, x)
        backs.append(back)

    def all_back(g: Tensor) -> Tensor:
        for back in reversed(backs):
            g = back(g)
        return g

    return x, all_back


def _residual(modules: list[nn.Module], x: Tensor) -> tuple[Tensor, Back]:
    y, back = _chain(modules, x)
    return x + y, lambda g: g + back(g)


def _conv_back(conv: nn.Conv2d, g: Tensor) -> Tensor:
    """The adjoint of a convolution of stride 1 that keeps the size, a convolution too."""
    weight = conv.weight
    if conv.groups == 1:
        weight = weight.transpose(0, 1)
    if weight.shape[-1] > 1:
        weight = weight.flip(2, 3)
    return F.conv2d(g, weight, padding=conv.padding, groups=conv.groups)
