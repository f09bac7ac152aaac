"""What the values behind bit planes cost, as a smooth function of them.

The context network prices codes, and a code is a step of its value: how its cost changes with
the value is nothing that a gradient can say. Here the value itself is priced. A value y whose last
digit that is kept has threshold T is known afterwards as a whole number q, the quantiser's
interval, of which that around 0 is wider::

    w     of :meth:`~cwic_training.planes.BitPlanes.intervals`: y / T, all intervals as wide
    q     round(w)
    cost  -log2(F(w~ + 1/2) - F(w~ - 1/2))         w~ = w + noise of -1/2..1/2 in training, or q

F is a logistic distribution, whose mean and scale a network predicts from what a decoder knows
before: q of earlier groups of values around the position, of its own group at earlier
positions, and the level. (Ballé, Laparra and Simoncelli, "End-to-end optimized image compression",
ICLR 2017, for the noise; the context network then codes what it can of the same digits.)
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ValueNet"]

_KERNEL = 5
_GROUPS = 6
_LARGEST_LOG_SCALE = 5.0
_SMALLEST = 1e-7
_LOG2 = math.log(2)


class ValueNet(nn.Module):
    """Prices the quantised values of pictures.

    Args:
        values: m, values at a position; the first are known first.
        levels: L, the highest importance level.
        hidden: width of the hidden layers.
    """

    def __init__(self, values: int, levels: int, hidden: int = 96) -> None:
        super().__init__()
        groups = min(_GROUPS, values)
        bounds = pairwise(values * g // groups for g in range(groups + 1))
        self.groups = nn.ModuleList(_Group(first, last, hidden) for first, last in bounds)
        self.level = nn.Embedding(levels + 1, groups * hidden)
        nn.init.zeros_(self.level.weight)

    def forward(
        self, w: Tensor, kept: Tensor, levels: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Bits per value, float [N, m, h, w], 0 where none of its digits is kept.

        Args:
            w: values in intervals, float32 [N, m, h, w].
            kept: ones where a value has a digit that is kept, of that shape.
            levels: int64 [N, h, w], 0..L.
            noise: -1/2..1/2, of the shape of ``w``; None prices the intervals themselves.
        """
        q = w.detach().round() * kept
        priced = q if noise is None else w + noise
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
        return _bits(priced[:, self.first : self.last], x)


def _bits(value: Tensor, predicted: Tensor) -> Tensor:
    """Of an interval of width 1 around ``value``; mean and logarithm of the scale predicted."""
    mean, log_scale = predicted.chunk(2, 1)
    scale = log_scale.clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE).exp()
    # In logarithms, and of the tail with less in it: else far values would have no gradient.
    off = -(value - mean).abs()
    above = F.logsigmoid((off + 0.5) / scale)
    below = F.logsigmoid((off - 0.5) / scale)
    share = -torch.expm1(below - above)
    return -(above + share.clamp(min=_SMALLEST).log()) / _LOG2
