"""The graphs of a bundle, as PyTorch modules: from pixels to code bytes and back.

They are the reference that every exported artefact is compared with. ``N``, ``H`` and
``W`` are free; ``H`` and ``W`` are multiples of 8::

    EncoderGraph   image uint8 [N, H, W, 3] ─┬─▶ codes       uint8 [N, channels, H/8, W/8]
                                             └─▶ importance  uint8 [N, H/8, W/8]
    DecoderGraph   sent, levels             ───▶ image       uint8 [N, H, W, 3]
    GradientGraph  sent, levels, image      ─┬─▶ gradient    float32 [N, n, H/8, W/8]
                                             └─▶ error       float32 [N, H/8, W/8]

The third is for an encoder that looks for better codes (:mod:`cwic.search`). What codes are as
bytes is said in :mod:`cwic_export.packing`; signs are sent as they are, and values in the steps of
their levels.

Bytes become float32 before anything else happens to them and float32 becomes bytes last,
because TensorRT takes uint8 next to a Cast only. Between the two the networks may compute
in another type (``dtype``); code bits, mask and the pixels around them stay float32.
"""

from __future__ import annotations

import copy
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cwic_export.adjoint import with_adjoint
from cwic_export.packing import packing_of
from cwic_export.signature import Ports, decoder_ports, encoder_ports, gradient_ports
from cwic_training.config import STRIDE
from cwic_training.layers import Conv2d
from cwic_training.model import CodecNetwork

__all__ = ["DecoderGraph", "EncoderGraph", "GradientGraph", "Graph"]


def _conv(weight: Tensor, bias: Tensor, stride: int = 1, padding: int = 0) -> nn.Conv2d:
    c_out, c_in, kernel, _ = weight.shape
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding)
    conv.weight.data, conv.bias = weight.detach().clone(), nn.Parameter(bias.detach().clone())
    return conv


def _plain_conv(flat: Conv2d) -> nn.Conv2d:
    return _conv(flat.weight.reshape(flat.kernel_shape), flat.bias, flat.stride, flat.padding)


def _patch_conv(factor: int, flat: Conv2d) -> nn.Conv2d:
    """Pixel-unshuffle by ``factor`` and the 1x1 convolution after it as one convolution."""
    return _conv(flat.weight.reshape(flat.weight.shape[0], -1, factor, factor), flat.bias, factor)


def _for_export(module: nn.Module) -> nn.Module:
    """A frozen copy of ``module`` with plain convolutions.

    Training keeps weights as matrices; a graph that reshaped them would hide its weights
    from quantisers and engine builders. And a transposition of every pixel before the
    first convolution would cost a tenth of `nano`'s encoder on a CPU.
    """

    def swap(parent: nn.Module) -> None:
        for name, child in parent.named_children():
            if isinstance(child, Conv2d):
                setattr(parent, name, _plain_conv(child))
            else:
                swap(child)

    module = copy.deepcopy(module)
    if isinstance(module, nn.Sequential):
        unshuffle, layout, first, *rest = module
        if (
            isinstance(unshuffle, nn.PixelUnshuffle)
            and isinstance(first, Conv2d)
            and first.kernel_shape[-1] == 1
        ):
            patch = _patch_conv(unshuffle.downscale_factor, first)
            module = nn.Sequential(layout, patch, *rest)
    swap(module)
    return module.requires_grad_(False)


def _feedback_convs(network: CodecNetwork) -> nn.ModuleList:
    """For each group but the first, the convolution of all earlier signs."""
    kernel, config = network.folded_feedback(), network.config
    convs = nn.ModuleList()
    if kernel is not None:
        size = config.n // config.feedback
        for first in range(size, config.n, size):
            weight = kernel[first : first + size, :first]
            convs.append(_conv(weight, torch.zeros(size), padding=weight.shape[-1] // 2))
    return convs.requires_grad_(False)


class EncoderGraph(nn.Module):
    """Picture to code bytes and importance.

    Args:
        network: the model, trained; it is copied, not kept.
        decomposed: use plain ATen operations instead of ``cwic::binarize``, for artefacts
            that must load where ``cwic`` is not installed.
        dtype: what the networks compute in: float32 or float16.

    Raises:
        CheckpointError: the network has no running statistics.
    """

    def __init__(
        self,
        network: CodecNetwork,
        *,
        decomposed: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.n, self.dtype = network.config.n, dtype
        self.packing = packing_of(network, decomposed=decomposed)
        self.trunk = _for_export(network.trunk).to(dtype)
        self.importance = _for_export(network.importance).to(dtype)
        self.projection = _conv(*network.folded_projection()).requires_grad_(False).to(dtype)
        self.feedback = _feedback_convs(network).to(dtype)
        self.eval()

    def ports(self) -> tuple[Ports, Ports]:
        """Inputs and outputs."""
        return encoder_ports(self.packing.encoder_channels)

    def analyse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What the bytes are rounded from.

        Args:
            image: uint8 [N, H, W, 3].

        Returns:
            E: float32 [N, n, H/8, W/8]; a code bit is E > 0. Of values y.
            P: importance in [0, 1], float32 [N, 1, H/8, W/8].
        """
        x = image.float().permute(0, 3, 1, 2) / 255
        features = self.trunk(((x - 0.5) * 2).to(self.dtype))
        e = self._decided(self.projection(features)).float()
        return e, self.importance(features).float()

    def _decided(self, raw: Tensor) -> Tensor:
        """E, with what the bits of earlier groups of codes add to later ones."""
        if not len(self.feedback):
            return raw
        first, *others = raw.chunk(len(self.feedback) + 1, 1)
        parts, known = [first], []
        for sums, conv in zip(others, self.feedback, strict=True):
            known.append(2 * self.packing.bits(parts[-1].float()).to(self.dtype) - 1)
            parts.append(sums + conv(torch.cat(known, 1)))
        return torch.cat(parts, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` uint8 [N, H, W, 3] to ``codes`` and ``importance`` (see the module).

        ``importance`` is round(255 P), half to even.
        """
        e, p = self.analyse(image)
        return self.packing.pack(e), (p.squeeze(1) * 255).round().to(torch.uint8)


class DecoderGraph(nn.Module):
    """Code bytes and levels to a picture.

    Args:
        network: the model, trained; it is copied, not kept.
        decomposed: use plain ATen operations instead of ``cwic::importance_mask``.
        dtype: what the network computes in: float32 or float16.
    """

    def __init__(
        self,
        network: CodecNetwork,
        *,
        decomposed: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.n, self.dtype = network.config.n, dtype
        self.packing = packing_of(network, decomposed=decomposed)
        self.synthesis = _for_export(network.folded_synthesis()).to(dtype)
        self.eval()

    def ports(self) -> tuple[Ports, Ports]:
        """Inputs and outputs."""
        return decoder_ports(self.packing.decoder_channels)

    def forward(self, codes: Tensor, levels: Tensor) -> Tensor:
        """``codes`` uint8 [N, channels, h, w] and ``levels`` uint8 [N, h, w] to a picture.

        Levels above L count as L.

        Returns:
            image: round(255 clip(x, 0, 1)), uint8 [N, 8h, 8w, 3].
        """
        z = self.packing.unpack(codes, levels).to(self.dtype)
        x: Tensor = self.synthesis(z).float() / 2 + 0.5
        return (x.clamp(0, 1) * 255).round().permute(0, 2, 3, 1).to(torch.uint8)


class GradientGraph(nn.Module):
    """How the error of a decoded picture depends on its codes.

    Args:
        network: the model, trained; it is copied, not kept.
    """

    def __init__(self, network: CodecNetwork) -> None:
        super().__init__()
        self.decoder = DecoderGraph(network)
        self.eval()

    def ports(self) -> tuple[Ports, Ports]:
        """Inputs and outputs."""
        return gradient_ports(self.decoder.packing.decoder_channels, self.decoder.n)

    def forward(self, codes: Tensor, levels: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Error against ``image`` uint8 [N, 8h, 8w, 3], and its gradient.

        Returns:
            gradient: of the sum of all errors with respect to codes, signs as -1 and 1 or values
                as whole numbers, for those that are left out too: float32 [N, n, h, w].
            error: sum of the squares of what the decoded picture, clipped but not rounded, is
                off by in steps of 1/255, per position: float32 [N, h, w].
        """
        y, back = with_adjoint(self.decoder.synthesis, self.decoder.packing.unpack(codes, levels))
        decoded = (y / 2 + 0.5).clamp(0, 1) * 255
        off = decoded - image.float().permute(0, 3, 1, 2)
        error = F.avg_pool2d(off.square().sum(1), STRIDE) * STRIDE**2
        return self.decoder.packing.by_code(back(off * 255), levels), error


Graph: TypeAlias = EncoderGraph | DecoderGraph | GradientGraph
