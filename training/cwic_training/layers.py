"""Building blocks of the networks; every feature map is [N, C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cwic_training import ops

__all__ = [
    "ChannelsLast",
    "Conv2d",
    "DecisionFeedback",
    "ImportanceHead",
    "MixBlock",
    "ResidualBlock",
    "UniformImportance",
]


_MEAN_MOMENTUM = 0.02
"""How fast the running mean of the logits of importance follows."""


class ChannelsLast(nn.Module):
    """Identity that lays its input out as NHWC.

    1x1 kernels look the same in both layouts, so convolutions follow their input; one
    NCHW tensor at the start would make every later operation three times slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


class Conv2d(nn.Module):
    """A convolution whose weight is stored as the matrix [out, in * k * k].

    Muon orthogonalises matrices and ``torch.optim.Muon`` takes 2-D parameters only, so
    the weight is kept flat and viewed as a kernel in ``forward``. Padding keeps
    ``size / stride`` for even kernels too.
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel_shape = (c_out, c_in, kernel, kernel)
        self.stride = stride
        self.padding = (kernel - stride + 1) // 2
        self.weight = nn.Parameter(torch.empty(c_out, c_in * kernel * kernel))
        self.bias = nn.Parameter(torch.zeros(c_out))
        nn.init.normal_(self.weight, std=1 / math.sqrt(c_in * kernel * kernel))

    def centre(self) -> Tensor:
        """The middle of the kernel, a view [out, in]."""
        middle = self.kernel_shape[-1] // 2
        return self.weight.view(self.kernel_shape)[:, :, middle, middle]

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.view(self.kernel_shape)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class MixBlock(nn.Module):
    """``x + down(relu(up(depthwise(x))))``: 3x3 depthwise, 1x1 up, ReLU, 1x1 down.

    The last convolution starts at zero, so a new network is linear from pixels to codes
    and learns its transform before its nonlinearities.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        nn.init.dirac_(self.depthwise.weight, groups=width)
        self.up = Conv2d(width, hidden)
        self.down = Conv2d(hidden, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.relu(self.up(self.depthwise(x))))
        return x + y


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(x)))`` with two 3x3 convolutions (paper section 4.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(width, width, 3)
        self.conv2 = Conv2d(width, width, 3)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + y


class ImportanceHead(nn.Module):
    """P(x) from the trunk's features F(x): 3x3, 3x3, 1x1, sigmoid (paper section 3.3).

    Args:
        width: feature channels.
        hidden: channels between.
        centred: P is 1/2 on average over many pictures, and only says what is more important
            than what. Values in steps need that: else a smaller signal and finer steps come to
            the same, and training drifts to where all steps are the finest.
    """

    mean: Tensor | None

    def __init__(self, width: int, hidden: int, *, centred: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()) if centred else None)
        self.conv1 = Conv2d(width, hidden, 3)
        self.conv2 = Conv2d(hidden, hidden, 3)
        self.conv3 = Conv2d(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        y = F.relu(self.conv2(F.relu(self.conv1(features))))
        # The sigmoid is taken in float32: in bfloat16 the top levels would merge.
        logits = self.conv3(y).float()
        if self.mean is not None:
            if self.training:
                mean = logits.mean()
                self.mean.lerp_(mean.detach(), _MEAN_MOMENTUM)
                logits = logits - mean
            else:
                logits = logits - self.mean
        return torch.sigmoid(logits)


class UniformImportance(nn.Module):
    """P(x) = 1/2 everywhere: all positions keep as many codes."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.full_like(features[:, :1], 0.5, dtype=torch.float32)


class DecisionFeedback(nn.Module):
    """E of each group of codes, corrected by the code bits of the groups before it.

    Bits that are decided independently can hardly refine one another: the second bit of a
    value is a sawtooth of it. Here each group sees what the earlier ones decided, at its
    position and the eight around it, as a converter by successive approximation does::

        E_g = raw_g + sum over j < g of W_gj * (2 B_j - 1)        W_gj: 3x3, starts at zero

    Levels keep codes in their order, so a decoder that has group g has all earlier ones.

    Args:
        n: code channels.
        groups: how many groups they are decided in.
    """

    KERNEL = 3
    earlier: Tensor

    def __init__(self, n: int, groups: int) -> None:
        super().__init__()
        self.size = n // groups
        taps = self.KERNEL**2
        self.weight = nn.Parameter(torch.zeros(n, n * taps))
        group = torch.arange(n) // self.size
        earlier = (group[None, :] < group[:, None]).float().repeat_interleave(taps, 1)
        self.register_buffer("earlier", earlier, persistent=False)

    def kernel(self) -> Tensor:
        """W, [n, n, 3, 3]: from the channel of a bit (second) to that of E (first)."""
        n = len(self.weight)
        return (self.weight * self.earlier).view(n, n, self.KERNEL, self.KERNEL)

    def forward(self, raw: Tensor, normalise: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """E, float32 [N, n, h, w].

        Args:
            raw: the projection of the features, of that shape.
            normalise: turns the sums of some channels into their E.
        """
        kernel = self.kernel()
        known: list[Tensor] = []
        parts = []
        for first in range(0, raw.shape[1], self.size):
            own = slice(first, first + self.size)
            sums = raw[:, own].float()
            if known:
                fed = F.conv2d(torch.cat(known, 1), kernel[own, :first], padding=self.KERNEL // 2)
                sums = sums + fed.float()
            parts.append(normalise(sums, own))
            known.append(2 * ops.binarize(parts[-1]) - 1)
        return torch.cat(parts, 1)
