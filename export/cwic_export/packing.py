"""Codes as the bytes at the edges of the graphs.

::

    signs    E ──▶ bits ──▶ codes uint8 [N, n/8, h, w] ──▶ z = (2 bits - 1) mask(levels)
    values   y ──▶ fixed point, uint8 [N, 2n, h, w]
                   whole numbers q, uint8 [N, n, h, w] ──▶ z = q step[level]

Code channel k of signs is bit ``7 - k % 8`` of byte ``k // 8``, as ``np.packbits`` has it; the
bytes of values are those of :mod:`cwic.quantiser`, which turns the first into the second.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from cwic.quantiser import ZERO
from cwic_training import ops
from cwic_training.fixed_point import fixed_point_bytes
from cwic_training.model import CodecNetwork

__all__ = ["Packing", "packing_of"]


class Packing(nn.Module):
    """What one kind of codes looks like.

    Attributes:
        encoder_channels: channels of the bytes that an encoder graph gives.
        decoder_channels: of those that a decoder graph takes.
    """

    encoder_channels: int
    decoder_channels: int

    @abstractmethod
    def bits(self, e: Tensor) -> Tensor:
        """Signs of E as zeros and ones, float32, of its shape."""

    @abstractmethod
    def pack(self, e: Tensor) -> Tensor:
        """E, float32 [N, n, h, w], to an encoder graph's codes, uint8."""

    @abstractmethod
    def unpack(self, codes: Tensor, levels: Tensor) -> Tensor:
        """A decoder graph's codes and levels, uint8 [N, h, w], to z, float32 [N, n, h, w]."""

    @abstractmethod
    def by_code(self, gradient: Tensor, levels: Tensor) -> Tensor:
        """A gradient with respect to z, [N, n, h, w], as one with respect to the codes."""


def packing_of(network: CodecNetwork, *, decomposed: bool = False) -> Packing:
    """That of a model.

    Args:
        network: the model.
        decomposed: use plain ATen operations instead of the ops of ``cwic``.
    """
    if network.quantiser is not None:
        return _Values(network.config.n, network.quantiser.steps)
    return _Signs(network.config.n, network.config.levels, decomposed)


class _Signs(Packing):
    place: Tensor
    scale: Tensor

    def __init__(self, n: int, levels: int, decomposed: bool) -> None:
        super().__init__()
        self.n, self.levels, self.decomposed = n, levels, decomposed
        self.encoder_channels = self.decoder_channels = n // 8
        # 128, 64, .. 1 along the axis of a byte's bits.
        self.register_buffer("place", (2.0 ** torch.arange(7, -1, -1)).view(1, 1, 8, 1, 1))
        # One factor for every picture: levels arrive scaled.
        self.register_buffer("scale", torch.ones(1))

    def bits(self, e: Tensor) -> Tensor:
        return ops.binarize_decomposed(e) if self.decomposed else ops.binarize(e)

    def pack(self, e: Tensor) -> Tensor:
        bits = torch.unflatten(self.bits(e), 1, (self.n // 8, 8))
        return (bits * self.place).sum(2).to(torch.uint8)

    def unpack(self, codes: Tensor, levels: Tensor) -> Tensor:
        shifted = torch.floor(codes.float().unsqueeze(2) / self.place)
        bits = (shifted - 2 * torch.floor(shifted / 2)).flatten(1, 2)
        p = levels.float().unsqueeze(1) / self.levels
        mask_op = ops.importance_mask_decomposed if self.decomposed else ops.importance_mask
        mask = mask_op(p, self.scale, self.levels, self.n)
        return (2 * bits - 1) * mask

    def by_code(self, gradient: Tensor, levels: Tensor) -> Tensor:
        return gradient


class _Values(Packing):
    steps: Tensor

    def __init__(self, n: int, steps: Tensor) -> None:
        super().__init__()
        self.encoder_channels, self.decoder_channels = 2 * n, n
        self.register_buffer("steps", steps.detach().clone())

    def bits(self, e: Tensor) -> Tensor:
        return (e > 0).float()

    def pack(self, e: Tensor) -> Tensor:
        return fixed_point_bytes(e)

    def unpack(self, codes: Tensor, levels: Tensor) -> Tensor:
        return self.by_code(codes.float() - ZERO, levels)

    def by_code(self, gradient: Tensor, levels: Tensor) -> Tensor:
        level = levels.float().clamp(max=len(self.steps) - 1).long()
        return gradient * self.steps[level].unsqueeze(1)
