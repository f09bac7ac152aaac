"""The network that predicts values from what is already decoded, as training sees it.

The float twin of :mod:`cwic.value_network`. For the values of group g at a position::

    f   log2(1 + |q|) sign(q)                 of a value q
    u   of the own group f at the 12 known neighbours of the pass, and their |f| summed; of all
        earlier groups f and |f| at the position itself, and |f| summed over the eight around;
        sums are in quarters; 0 outside and where a group is not kept
    a1  clip(O[kind, g] u_own + E[g] u_earlier + V[g, level] + K[kind, g], 0, 255 / 32)
    a2  clip(H[g] a1 + b[g], 0, 255 / 32)
    mean, i = C[g] a2 + c[g]                  i: place of the scale, 8 i + 32 its index
    mean += sum over neighbours t of S[kind, t] q_t           each value from its own neighbours

A value costs what a logistic distribution of that mean and scale leaves for an interval of
width 1. With ``quantised`` every weight is on the grid of the integers that it will be frozen to
and activations, means and places are rounded, with straight-through gradients.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cwic.exact_layers import ACTIVATION, LARGEST_ACTIVATION
from cwic.scan import KINDS, NEIGHBOURS
from cwic.value_network import FEATURE, MEANS, SCALES, scale_of
from cwic_training.grids import ACTIVATIONS, BIASES, WEIGHTS, on_grid, start_from, whole
from cwic_training.pass_tensors import pass_tensors
from cwic_training.value_net import interval_bits

__all__ = ["ValueContext"]

_MIDDLE_SCALE = SCALES // 2
_FIRST_OF_SIZES = 1 / 6
_FIRST_SCALE = -1.0
"""Where the place of the scale starts: a deviation of about a third of a step."""

_GRIDS = {
    "own": WEIGHTS,
    "earlier": WEIGHTS,
    "level": ACTIVATIONS,
    "kind": ACTIVATIONS,
    "middle": WEIGHTS,
    "middle_bias": BIASES,
    "last": WEIGHTS,
    "last_bias": BIASES,
    "line": WEIGHTS,
}


class ValueContext(nn.Module):
    """Predicts the kept values of pictures.

    Args:
        sizes: values of each group.
        levels: L.
        hidden: width of both hidden layers.
    """

    def __init__(self, sizes: tuple[int, ...], levels: int, hidden: int = 64) -> None:
        super().__init__()
        self.sizes, self.levels, self.hidden = tuple(sizes), levels, hidden
        firsts = np.cumsum([0, *sizes])[:-1].tolist()
        self.groups = nn.ModuleList(
            _Group(first, size, levels, hidden) for first, size in zip(firsts, sizes, strict=True)
        )
        self.quantised = False

    def forward(self, q: Tensor, kept: Tensor, levels: Tensor) -> Tensor:
        """Bits that coding costs, per kept value: float [N, n, h, w], 0 where masked.

        Args:
            q: whole numbers -127..127, float [N, n, h, w], 0 where not kept.
            kept: zeros and ones of that shape.
            levels: int64 [N, h, w], 0..L.
        """
        count, n, height, width = q.shape
        # One row per position of all pictures, then one of zeros for what lies outside.
        rows = _flat(q)
        rows = torch.cat([rows, rows.new_zeros(1, n)])
        features = torch.floor(FEATURE * rows.abs().add(1).log2() + 0.5) / FEATURE * rows.sign()
        sizes = features[:-1].abs().view(count, height, width, n).permute(0, 3, 1, 2)
        around = _quarter(F.avg_pool2d(sizes, 3, 1, 1, divisor_override=1) - sizes)
        before = torch.cat([features[:-1], features[:-1].abs(), _flat(around)], 1)
        flat = levels.reshape(-1)
        pictures = torch.arange(count)[:, None] * (height * width)
        parts = [q.new_zeros(0, n)]
        order = []
        for scan, positions, neighbours in pass_tensors(height, width, str(q.device)):
            here = (pictures + positions).reshape(-1)
            known = None
            if scan.offsets:
                outside = (neighbours == height * width)[None]
                known = (pictures[:, :, None] + neighbours).masked_fill(outside, len(rows) - 1)
                known = known.reshape(len(here), -1)
            costs = [
                group(scan.kind, rows, features, before, flat, here, known, self.quantised)
                for group in self.groups
            ]
            parts.append(torch.cat(costs, 1))
            order.append(here)
        back = torch.cat(order).argsort()
        cost = torch.cat(parts)[back].view(count, height, width, n)
        return cost.permute(0, 3, 1, 2) * kept

    @torch.no_grad()
    def integers(self) -> dict[str, NDArray[np.integer]]:
        """The arrays of the groups in :mod:`cwic.value_network`, named as there."""
        found: dict[str, NDArray[np.integer]] = {}
        for g, group in enumerate(self.groups):
            if isinstance(group, _Group):
                found |= {f"values.{g}.{name}": array for name, array in group.integers().items()}
        return found

    def start_from(self, tables: Mapping[str, Tensor]) -> None:
        """Set all weights to those that :meth:`integers` made of others.

        Raises:
            CheckpointError: they are of another model.
        """
        for g, group in enumerate(self.groups):
            own = {name: tables.get(f"values.{g}.{name}") for name in _GRIDS}
            start_from(group, _GRIDS, {k: v for k, v in own.items() if v is not None})


def _flat(maps: Tensor) -> Tensor:
    """[N, n, h, w] to a row for each position, [N h w, n]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _quarter(sums: Tensor) -> Tensor:
    """Of sums of features, as their integers are: rounded, half up."""
    return torch.floor((FEATURE * sums + 2) / 4) / FEATURE


class _Group(nn.Module):
    """Predicts values ``first`` to ``first + size - 1``, which are known together."""

    def __init__(self, first: int, size: int, levels: int, hidden: int) -> None:
        super().__init__()
        self.first, self.size = first, size

        def weights(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * std)

        self.own = weights(KINDS - 1, (NEIGHBOURS + 1) * size, hidden, std=0.03)
        self.earlier = weights(3 * first, hidden, std=0.03)
        with torch.no_grad():  # sizes are all of one sign, and sums of them are large
            self.own[:, NEIGHBOURS * size :] *= _FIRST_OF_SIZES
            self.earlier[first:] *= _FIRST_OF_SIZES
        self.level = nn.Parameter(torch.zeros(levels + 1, hidden))
        self.kind = nn.Parameter(torch.zeros(KINDS, hidden))
        self.middle = weights(hidden, hidden, std=1.4 / hidden**0.5)
        self.middle_bias = nn.Parameter(torch.zeros(hidden))
        self.last = weights(hidden, 2 * size, std=0.02)
        start = torch.cat([torch.zeros(size), torch.full((size,), _FIRST_SCALE)])
        self.last_bias = nn.Parameter(start)
        self.line = nn.Parameter(torch.zeros(KINDS - 1, NEIGHBOURS, size))

    def forward(
        self,
        kind: int,
        rows: Tensor,
        features: Tensor,
        before: Tensor,
        levels: Tensor,
        here: Tensor,
        known: Tensor | None,
        quantised: bool,
    ) -> Tensor:
        """Bits of the group's values at M positions, [M, size].

        Args:
            kind: of the pass.
            rows, features: q and f of all positions, [P + 1, n]; the last row is 0.
            before: f, |f| and sums of |f| around of all positions, [P, 3 n].
            levels: of all positions, [P].
            here: the positions, [M].
            known: their known neighbours, [M, 12]; None in the first pass.
            quantised: on the grids of the integers.
        """

        def w(name: str, kind: int | None = None) -> Tensor:
            grid, parameter = _GRIDS[name], self.get_parameter(name)
            weight: Tensor = parameter if kind is None else parameter[kind]
            return on_grid(weight, grid.grid, grid.largest) if quantised else weight

        def a(z: Tensor) -> Tensor:
            z = z.clamp(0, LARGEST_ACTIVATION / ACTIVATION)
            return on_grid(z, ACTIVATION, LARGEST_ACTIVATION) if quantised else z

        own = slice(self.first, self.first + self.size)
        # A product with one-hot rows: the gradient of an index is slow.
        level = F.one_hot(levels[here], len(self.level)).to(rows.dtype)
        z = level @ w("level") + w("kind", kind)
        if self.first:
            earlier = before[here].view(len(here), 3, -1)[:, :, : self.first].flatten(1)
            z = z + earlier @ w("earlier")
        line: Tensor | float = 0.0
        if known is not None:
            seen = features[:, own][known]
            seen = torch.cat([seen.flatten(1), _quarter(seen.abs().sum(1))], 1)
            z = z + seen @ w("own", kind)
            numbers = rows[:, own][known]
            line = (numbers * w("line", kind)).sum(1)
        z = a(z) @ w("middle") + w("middle_bias")
        z = a(z) @ w("last") + w("last_bias")
        mean, place = z.chunk(2, 1)
        mean = mean + line
        place = place * MEANS + _MIDDLE_SCALE
        if quantised:
            # As the integers: what the network says in 1/32 first, then all of the mean in 1/8.
            mean = on_grid(on_grid(z[:, : self.size], ACTIVATION, 1 << 20) + line, MEANS, 1 << 20)
            exact = on_grid(z[:, self.size :], ACTIVATION, 1 << 20)
            place = on_grid(exact * MEANS, 1, 1 << 20) + _MIDDLE_SCALE
        place = place + (place.clamp(0, SCALES - 1) - place).detach()
        return interval_bits(rows[here, own], mean, scale_of(place).log())

    def integers(self) -> dict[str, NDArray[np.integer]]:
        return {name: whole(self.get_parameter(name), grid) for name, grid in _GRIDS.items()}
