"""What quantised values cost, as a smooth function of them.

A value y in steps, u, is sent as the whole number q::

    q     round(u)
    cost  -log2(F(u~ + 1/2) - F(u~ - 1/2))         u~ = u + noise of -1/2..1/2 in training, or q

(:mod:`cwic_training.quantiser`). F is a logistic distribution, whose mean and scale a network
predicts from what a decoder knows before: q of earlier groups of values around the position, of
its own group at earlier positions, and the level. (Ballé, Laparra and Simoncelli, "End-to-end
optimized image compression", ICLR 2017, for the noise.) It is used in training only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ValueNet", "interval_bits"]

_KERNEL = 5
_LARGEST_LOG_SCALE = 5.0
_SMALLEST = 1e-7
_LOG2 = math.log(2)


class ValueNet(nn.Module):
    """Prices the quantised values of pictures.

    Args:
        sizes: how many values each group has; those of earlier groups are known first.
        levels: L, the highest importance level.
        hidden: width of the hidden layers.
    """

    def __init__(self, sizes: Sequence[int], levels: int, hidden: int = 96) -> None:
        super().__init__()
        lasts = list(accumulate(sizes))
        self.groups = nn.ModuleList(
            _Group(last - size, last, hidden) for size, last in zip(sizes, lasts, strict=True)
        )
        self.level = nn.Embedding(levels + 1, len(lasts) * hidden)
        nn.init.zeros_(self.level.weight)

    def forward(
        self, u: Tensor, kept: Tensor, levels: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Bits per value, float32 [N, n, h, w], 0 where the value does not exist.

        Args:
            u: values in steps, float32 [N, n, h, w].
            kept: ones where a value exists, else zeros, of that shape.
            levels: int64 [N, h, w], 0..L.
            noise: -1/2..1/2, of the shape of ``u``; None prices the whole numbers themselves.
        """
        q = u.detach().round() * kept
        priced = q if noise is None else u + noise
        seen = q.sign() * q.abs().log1p()
        biases = self.level(levels).permute(0, 3, 1, 2).chunk(len(self.groups), 1)
        parts = [group(seen, priced, bias) for group, bias in zip(self.groups, biases, strict=True)]
        return torch.cat(parts, 1) * kept


class _Group(nn.Module):
    """Prices some of the values, ``first`` to ``last - 1``, which are known together."""

    before: Tensor

    def __init__(self, first: int, last: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = first, last
        self.own = nn.Conv2d(last - first, hidden, _KERNEL, padding=_KERNEL // 2)
        self.earlier = nn.Conv2d(first, hidden, 3, padding=1) if first else None
        self.middle = nn.Conv2d(hidden, hidden, 1)
        self.predicted = nn.Conv2d(hidden, 2 * (last - first), 1)
        before = torch.zeros(_KERNEL, _KERNEL)
        before.view(-1)[: _KERNEL**2 // 2] = 1
        self.register_buffer("before", before, persistent=False)

    def forward(self, seen: Tensor, priced: Tensor, bias: Tensor) -> Tensor:
        own = seen[:, self.first : self.last]
        kernel = self.own.weight * self.before
        x = F.conv2d(own, kernel, self.own.bias, padding=_KERNEL // 2) + bias
        if self.earlier is not None:
            x = x + self.earlier(seen[:, : self.first])
        x = self.predicted(F.relu(self.middle(F.relu(x))))
        return interval_bits(priced[:, self.first : self.last], *x.chunk(2, 1))


def interval_bits(value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """What a logistic distribution leaves for the interval of width 1 around each value, in bits.

    Args:
        value: middles of intervals, float of any shape.
        mean, log_scale: of the distribution of each, of that shape; the logarithm counts as
            -5..5.

    Returns:
        Bits of the shape of ``value``, smooth in all three, at most about 23 more than the tail
        that the interval lies in.
    """
    scale = log_scale.clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE).exp()
    # In logarithms, and of the tail with less in it: else far values would have no gradient.
    off = -(value - mean).abs()
    above = F.logsigmoid((off + 0.5) / scale)
    below = F.logsigmoid((off - 0.5) / scale)
    share = -torch.expm1(below - above)
    return -(above + share.clamp(min=_SMALLEST).log()) / _LOG2
