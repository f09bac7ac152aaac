"""Codes as numbers: values in steps that are the same for all and fall from level to level.

The encoder projects to n values y at each position, and the importance map says in which steps
they are sent; l is the level of the position, s the rate factor of the picture::

    t  = clip(s P, 0, 1) L       l = round(t)
    u  = clip(y / step_l, -127, 127)     q = round(u)     y^ = q step_l

    step_l = 4.4 * 2**(-5.4 (l - 1) / (L - 1)) for l = 1..L; at level 0 nothing is sent

So each level has a uniform quantiser, and the one step for all values is what gives the least
squared error for its rate as long as the transform is about orthonormal (Gish and Pierce,
"Asymptotically efficient quantizing", IEEE Trans. Inf. Theory, 1968). Values are in six groups by
how much photographs have of them, the most first; a group exists from the first level whose step
is not so large that nearly all of it would be 0, and costs nothing before.

:meth:`Quantiser.straight_through` is what training sees. Rounding has the gradient of the identity,
and the step that of ``2**(-slope t)``, so that P learns what finer steps are worth::

    dy^ = dy + (q - u) dstep        du = (dy - u dstep) / step
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cwic.errors import CheckpointError
from cwic_training import ops
from cwic_training.dct import deviations

__all__ = ["LARGEST", "MOST_VALUES", "Quantiser"]

LARGEST = 127
"""Of a quantised value: a signed byte without its lowest number."""
MOST_VALUES = 192
"""As many as there are numbers in 8x8 pixels of three colours."""
_LEAST_VALUES = 8
_LARGEST_STEP = 4.4
_OCTAVES = 5.4
"""By how many powers of 2 the step falls from level 1 to level L."""
_BOUNDS = 6, 20, 40, 64, 94, 128
"""Where groups end, of 128 values."""
_REACH = 6.0
"""A group exists where the step is at most so many deviations of its first value."""


class Quantiser(nn.Module):
    """The steps of n values at levels 0..L, and which values exist at which level.

    Args:
        n: values at a position, 8..192.
        levels: L, the highest level, 1..255.

    Attributes:
        rows: which row of :func:`~cwic_training.dct.dct_basis` each value starts as, the row of
            the largest deviation first, n numbers.
        sizes: values in each of the six groups, in this order; their sum is n.
        first_levels: first level at which each group exists, 1..L, not falling.
        steps: float32 [L + 1], by level; 0 at level 0.
        log_gain: logarithm of what a network multiplies its values by, [n].

    Raises:
        CheckpointError: ``n`` or ``levels`` is out of range.
    """

    steps: Tensor
    exists: Tensor

    def __init__(self, n: int, levels: int) -> None:
        super().__init__()
        if not _LEAST_VALUES <= n <= MOST_VALUES or not 1 <= levels <= 255:
            raise CheckpointError(
                f"{n} values at {levels} levels are not possible; choose {_LEAST_VALUES} to "
                f"{MOST_VALUES} values and 1 to 255 levels"
            )
        self.n, self.levels = n, levels
        found = deviations()
        order = found.argsort(descending=True, stable=True)[:n]
        self.rows = tuple(order.tolist())
        self.sizes = _sizes(n)
        self._slope = _OCTAVES / max(1, levels - 1)
        steps = self.step_at(torch.arange(levels + 1).double()).float()
        steps[0] = 0
        self.register_buffer("steps", steps, persistent=False)
        self.first_levels = self._first_levels(found[order])
        first = torch.tensor(self.first_levels).repeat_interleave(torch.tensor(self.sizes))
        exists = torch.arange(levels + 1)[:, None] >= first
        self.register_buffer("exists", exists.float(), persistent=False)
        self.log_gain = nn.Parameter(found[order].log())

    def _first_levels(self, deviation: Tensor) -> tuple[int, ...]:
        found: list[int] = []
        start = 0
        for size in self.sizes:
            large_enough = self.steps[1:] <= _REACH * deviation[start]
            first = int(large_enough.int().argmax()) + 1 if large_enough.any() else self.levels
            found.append(max(first, *found) if found else first)
            start += size
        return tuple(found)

    @property
    def gain(self) -> Tensor:
        """Of y over what the network's projection makes; y^ is divided by it. float32 [n]"""
        return self.log_gain.float().exp()

    def step_at(self, level: Tensor) -> Tensor:
        """The step at levels between whole ones too, of the shape and dtype of ``level``."""
        return _LARGEST_STEP * torch.exp2(-self._slope * (level - 1))

    def reference_steps(self, scale: Tensor) -> Tensor:
        """The step where importance is 1/2, its mean, of rate factors [N]: float32 [N].

        Beyond s = 2 it goes on to fall, though no level has such steps.
        """
        return self.step_at(scale.float() * (self.levels / 2))

    def kept(self, levels: Tensor) -> Tensor:
        """Which values exist: ones and zeros, float32 [N, n, h, w], of int64 [N, h, w]."""
        return self.exists[levels].permute(0, 3, 1, 2)

    def quantised(self, y: Tensor, levels: Tensor) -> Tensor:
        """Values as whole numbers of steps, half to even.

        Args:
            y: values, float [N, n, h, w].
            levels: int64 [N, h, w], 0..L.

        Returns:
            q: float32 [N, n, h, w], whole numbers -127..127; 0 where the value does not exist.
        """
        return self._in_steps(y, self._divisor(levels), self.kept(levels)).round()

    def restored(self, q: Tensor, levels: Tensor) -> Tensor:
        """y^ of whole numbers: float32 [N, n, h, w].

        Args:
            q: of :meth:`quantised`, [N, n, h, w].
            levels: int64 [N, h, w], 0..L.
        """
        return q.float() * self.steps[levels][:, None]

    def straight_through(
        self, y: Tensor, p: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """:meth:`quantised` and :meth:`restored` with the gradients of the module's text.

        Args:
            y: values, float [N, n, h, w].
            p: importance in [0, 1], float [N, 1, h, w].
            scale: rate factor per picture, float [N], non-negative.

        Returns:
            y^: float32 [N, n, h, w], equal to what :meth:`restored` says.
            u: y in steps before it is rounded, -127..127, of that shape; with a gradient.
            kept: ones where the value exists, else zeros, where y^ and u are 0, of that shape.
            levels: int64 [N, h, w], 0..L.
        """
        p = p.float()
        levels = ops.importance_levels(p.detach(), scale, self.levels)[:, 0].long()
        t = (p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * self.levels
        # The factor is 1, and has the slope of the step over t.
        step = self._divisor(levels) * torch.exp2(-self._slope * (t - t.detach()))
        kept = self.kept(levels)
        u = self._in_steps(y, step, kept)
        restored = (u + (u.round() - u).detach()) * step
        return restored, u, kept, levels

    def _divisor(self, levels: Tensor) -> Tensor:
        """Steps [N, 1, h, w]; at level 0, which has none, that of level 1: not to divide by 0."""
        return self.steps[levels.clamp(min=1)][:, None]

    @staticmethod
    def _in_steps(y: Tensor, step: Tensor, kept: Tensor) -> Tensor:
        return (y.float() / step).clamp(-LARGEST, LARGEST) * kept


def _sizes(n: int) -> tuple[int, ...]:
    sizes: list[int] = []
    for bound in _BOUNDS:
        sizes.append(max(1, round(n * bound / _BOUNDS[-1]) - sum(sizes)))
    return tuple(sizes)
