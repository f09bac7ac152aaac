"""The network that predicts code bits from what is already decoded, as training sees it.

The float twin of :mod:`cwic.context`. For the bits of group g at a position::

    u   own group at the 12 known neighbours of the pass, and all earlier groups at the
        position itself; -1, 0 (masked, outside) or 1
    a1  clip(O[kind, g] u_own + E[g] u_earlier + V[g, level], 0, 255 / 32)
    a2  clip(H[g] a1 + b[g], 0, 255 / 32)
    z   C[g] a2 + c[g]                      the logits of the group's n/L bits

With ``quantised`` every weight is on the grid of the integers that it will be frozen to and
activations are rounded, with straight-through gradients; the integers then give exactly the
same logits.

In a progressive stream (:mod:`cwic.layers`) a neighbour's code is known if its layer is no later
one, and a level is what it is taken for at that stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cwic.exact_layers import ACTIVATION, LARGEST_ACTIVATION
from cwic.layers import STAGES, layer_of, prefixes, stage_of, stand_ins
from cwic.scan import KINDS, NEIGHBOURS
from cwic_training.config import ModelConfig
from cwic_training.grids import (
    ACTIVATIONS,
    BIASES,
    WEIGHTS,
    Grid,
    on_grid,
    start_from,
    whole,
)
from cwic_training.pass_tensors import pass_tensors

__all__ = ["ContextNet"]

_LOG2 = float(np.log(2))
_FIRST = Grid(ACTIVATION, 127, np.int8)
_GRIDS = {
    "own": _FIRST,
    "earlier": _FIRST,
    "level": ACTIVATIONS,
    "kind": ACTIVATIONS,
    "middle": WEIGHTS,
    "middle_bias": BIASES,
    "last": WEIGHTS,
    "last_bias": BIASES,
}


class ContextNet(nn.Module):
    """Predicts the kept code bits of pictures.

    Args:
        config: gives n and L.
        hidden: width of both hidden layers.
    """

    def __init__(self, config: ModelConfig, hidden: int = 64) -> None:
        super().__init__()
        self.n, self.levels, self.group = config.n, config.levels, config.n // config.levels
        self.hidden = hidden
        groups, size = self.levels, self.group
        fan = NEIGHBOURS * size

        def weights(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape) * std)

        self.own = weights(KINDS - 1, groups, fan, hidden, std=0.05)
        self.earlier = weights(self.n, groups, hidden, std=0.03)
        self.level = nn.Parameter(torch.zeros(groups, self.levels + 1, hidden))
        self.kind = nn.Parameter(torch.zeros(KINDS, groups, hidden))
        self.middle = weights(groups, hidden, hidden, std=1.4 / hidden**0.5)
        self.middle_bias = nn.Parameter(torch.zeros(groups, hidden))
        self.last = weights(groups, hidden, size, std=0.05)
        self.last_bias = nn.Parameter(torch.zeros(groups, size))
        group_of = torch.arange(self.n) // size
        allowed = group_of[:, None] < torch.arange(groups)[None, :]
        self.allowed: Tensor
        self.register_buffer("allowed", allowed[:, :, None].float(), persistent=False)
        self.quantised = False

    def _w(self, name: str) -> Tensor:
        weight, grid = self.get_parameter(name), _GRIDS[name]
        return on_grid(weight, grid.grid, grid.largest) if self.quantised else weight

    def _a(self, z: Tensor) -> Tensor:
        a = z.clamp(0, LARGEST_ACTIVATION / ACTIVATION)
        return on_grid(a, ACTIVATION, LARGEST_ACTIVATION) if self.quantised else a

    def forward(
        self, bits: Tensor, mask: Tensor, levels: Tensor, *, progressive: bool = False
    ) -> Tensor:
        """Bits that coding costs, per kept code: float [N, n, h, w], 0 where masked.

        Differentiable with respect to ``bits`` both as what is predicted and as what
        predicts.

        Args:
            bits: zeros and ones, float [N, n, h, w].
            mask: zeros and ones of the same shape.
            levels: int64 [N, h, w], 0..L.
            progressive: as a progressive stream has the codes.
        """
        count, _, height, width = mask.shape
        geometry = pass_tensors(height, width, str(mask.device))
        # One row per position of all pictures, then one of zeros for what lies outside.
        signs = ((2 * bits - 1) * mask.detach()).permute(0, 2, 3, 1).reshape(-1, self.n)
        known = torch.cat([signs, signs.new_zeros(1, self.n)])
        target = bits.permute(0, 2, 3, 1).reshape(-1, self.n)
        flat = levels.reshape(-1)
        order = _Order.of(self.levels, str(mask.device)) if progressive else None
        layers = None if order is None else torch.cat([order.layer[flat], order.none])
        pictures = torch.arange(count, device=mask.device)[:, None] * (height * width)
        weights = self._weights()
        parts = []
        for scan, positions, neighbours in geometry:
            rows = (pictures + positions).reshape(-1)
            around = None
            if scan.offsets:
                outside = (neighbours == height * width)[None]
                seen = (pictures[:, :, None] + neighbours).masked_fill(outside, len(signs))
                # An embedding's gradient is one sum over rows; that of slices is slow.
                around = F.embedding(seen.reshape(len(rows), -1), known)
                if layers is not None:
                    there = layers[seen.reshape(len(rows), -1)] <= layers[rows, None]
                    around = around * there.repeat_interleave(self.group, 2)
            bias = self._level_bias(flat[rows], order, weights["level"])
            logits = self._logits(scan.kind, known[rows], bias, around, weights)
            cost = (F.softplus(logits) - target[rows] * logits) / _LOG2
            parts.append(cost.view(count, -1, self.n))
        back = torch.cat([positions for _, positions, _ in geometry]).argsort()
        cost = torch.cat(parts, 1)[:, back].view(count, height, width, self.n)
        return cost.permute(0, 3, 1, 2) * mask

    def _weights(self) -> dict[str, Tensor]:
        """The weights of a forward pass: as they are, or as the integers that they become."""
        found = {name: self._w(name) for name in _GRIDS}
        found["earlier"] = (found["earlier"] * self.allowed).flatten(1)
        found["level"] = found["level"].transpose(0, 1).flatten(1)
        return found

    def _level_bias(self, levels: Tensor, order: _Order | None, weight: Tensor) -> Tensor:
        """What levels [M] add to the first layer, [M, L hidden]."""
        if order is None:
            return F.one_hot(levels, self.levels + 1).to(weight.dtype) @ weight
        total = torch.zeros((), device=levels.device)
        for taken_for, groups in zip(order.taken_for, order.groups, strict=True):
            bias = F.one_hot(taken_for[levels], self.levels + 1).to(weight.dtype) @ weight
            chosen = groups[levels].to(weight.dtype).repeat_interleave(self.hidden, 1)
            total = total + bias * chosen
        return total

    def _logits(
        self, kind: int, here: Tensor, bias: Tensor, around: Tensor | None, w: dict[str, Tensor]
    ) -> Tensor:
        """Logits of all bits at M positions, [M, n].

        Args:
            kind: of the pass.
            here: all codes at the positions, [M, n]; weights of later groups are zero.
            bias: of their levels, [M, L hidden].
            around: all codes at the known neighbours, [M, 12, n]; None in the first pass.
        """
        z = torch.addmm(bias, here, w["earlier"])
        z = z.view(-1, self.levels, self.hidden).transpose(0, 1) + w["kind"][kind][:, None]
        if around is not None:
            groups = around.view(-1, NEIGHBOURS, self.levels, self.group).permute(2, 0, 1, 3)
            z = z + torch.bmm(groups.flatten(2), w["own"][kind])
        a = self._a(torch.baddbmm(w["middle_bias"][:, None], self._a(z), w["middle"]))
        logits = torch.baddbmm(w["last_bias"][:, None], a, w["last"])
        return logits.transpose(0, 1).reshape(-1, self.n)

    @torch.no_grad()
    def integers(self) -> dict[str, NDArray[np.integer]]:
        """The arrays of :mod:`cwic.context`, named as there."""
        found = {f"codes.{name}": whole(getattr(self, name), grid) for name, grid in _GRIDS.items()}
        earlier = (self.earlier * self.allowed).permute(1, 0, 2)
        return {**found, "codes.earlier": whole(earlier, _GRIDS["earlier"])}

    def start_from(self, tables: Mapping[str, Tensor]) -> None:
        """Set all weights to those that :meth:`integers` made of others.

        Raises:
            CheckpointError: they are of another model.
        """
        own = {name: tables[key] for name in _GRIDS if (key := f"codes.{name}") in tables}
        if "earlier" in own and own["earlier"].ndim == 3:
            own["earlier"] = own["earlier"].permute(1, 0, 2)
        start_from(self, _GRIDS, own)


@dataclass(frozen=True)
class _Order:
    """Tables of :mod:`cwic.layers` by level.

    Attributes:
        layer: [L + 1, L], of each group.
        none: [1, L], before all layers: of a position outside, whose codes are 0 anyway.
        taken_for: of each stage, [L + 1].
        groups: of each stage, which groups it has, [L + 1, L].
    """

    layer: Tensor
    none: Tensor
    taken_for: tuple[Tensor, ...]
    groups: tuple[Tensor, ...]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, levels: int, device: str) -> _Order:
        level, layer = np.arange(levels + 1, dtype=np.uint8), layer_of(levels).T.copy()
        stages = range(len(STAGES))
        taken_for = [stand_ins(prefixes(level, k), k, levels).astype(np.int64) for k in stages]
        groups = [stage_of(layer) == k for k in stages]

        def on(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            on(layer),
            on(np.zeros((1, levels), layer.dtype)),
            tuple(map(on, taken_for)),
            tuple(map(on, groups)),
        )
