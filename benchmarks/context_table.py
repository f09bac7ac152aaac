"""How predictable code bits are, by what a model may look at.

``python -m benchmarks.context_table CKPT --train 'photos/*' --test 'kodak/*.png' -o OUT.json``

The network in CKPT is frozen. For each kind of context a small network (one hidden layer of
context, one per group, both of the same width for all) learns the kept bits of random crops
at random rates for the same number of steps, and is measured on the test pictures at three
rates. What is compared is what can be seen, not how well it can be fitted: longer training
lowers every line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import command, environment
from cwic.errors import TrainingError
from cwic.rate import levels_from_importance
from cwic.scan import PASSES
from cwic_training.checkpoint import load_checkpoint
from cwic_training.coded_pictures import as_tensors, coded_pictures, random_crops
from cwic_training.config import ModelConfig
from cwic_training.symbol_fit import SignFit

__all__ = ["CONTEXTS", "measure"]

_HIDDEN = 32
_SCALES = {"low": 0.12, "middle": 0.3, "high": 1.0}
_Offsets = tuple[tuple[int, int], ...]

_CAUSAL: _Offsets = tuple(
    (dy, dx) for dy in (-2, -1, 0) for dx in range(-2, 3) if (dy, dx) < (0, 0)
)
_STRAIGHT: _Offsets = ((-1, 0), (0, -1), (0, 1), (1, 0))

CONTEXTS: dict[str, dict[str, Any]] = {
    "a  none": {"levels": False},
    "b  levels 3x3": {},
    "c  earlier groups, same position": {"earlier": 1},
    "d  earlier groups 3x3": {"earlier": 3},
    "e  earlier groups 5x5": {"earlier": 5},
    "f  d and the other half of a checkerboard": {"earlier": 3, "own": "checkerboard"},
    "g  d and own group, causal 5x5 (sequential)": {"earlier": 3, "own": "causal"},
    "h  c and own group, nine passes, 4 neighbours": {"earlier": 1, "own": "passes", "near": 4},
    "i  c and own group, nine passes, 12 neighbours": {"earlier": 1, "own": "passes", "near": 12},
    "j  own group alone, nine passes, 12 neighbours": {"own": "passes", "near": 12},
}
"""What each line of the table lets the model see."""


class _Predictor(nn.Module):
    allowed: Tensor

    def __init__(
        self,
        config: ModelConfig,
        levels: bool = True,
        earlier: int = 0,
        own: str = "",
        near: int = 4,
    ) -> None:
        super().__init__()
        self.config, self.kernel, self.own, self.near = config, earlier, own, near
        groups, size = config.levels, config.n // config.levels
        wide = groups * _HIDDEN
        self.bias = nn.Parameter(torch.zeros(wide))
        self.levels = nn.Conv2d(3, wide, 3, padding=1) if levels else None
        if earlier:
            self.earlier = nn.Parameter(torch.randn(wide, config.n, earlier, earlier) * 0.02)
            target = torch.arange(groups).repeat_interleave(_HIDDEN)[:, None]
            allowed = target > torch.arange(groups).repeat_interleave(size)[None]
            self.register_buffer("allowed", allowed.float()[:, :, None, None])
        parts = {"": 0, "checkerboard": 1, "causal": 1, "passes": len(PASSES)}[own]
        self.around = nn.ParameterList(
            nn.Parameter(torch.randn(groups, self._neighbours * size, _HIDDEN) * 0.03)
            for _ in range(parts)
        )
        self.middle = nn.Conv2d(wide, wide, 1, groups=groups)
        self.last = nn.Conv2d(wide, config.n, 1, groups=groups)

    @property
    def _neighbours(self) -> int:
        return {"causal": len(_CAUSAL), "passes": self.near}.get(self.own, len(_STRAIGHT))

    def forward(self, bits: Tensor, mask: Tensor, levels: Tensor) -> Tensor:
        """Bits each code costs, [N, n, h, w]; 0 where masked."""
        known = (2 * bits - 1) * mask
        count, _, height, width = known.shape
        z = self.bias.view(1, -1, 1, 1).expand(count, -1, height, width)
        if self.levels is not None:
            f = levels[:, None].float() / self.config.levels
            z = z + self.levels(torch.cat([f, f.sqrt(), torch.ones_like(f)], 1))
        if self.kernel:
            z = z + F.conv2d(known, self.earlier * self.allowed, padding=self.kernel // 2)
        for where, offsets, weight in self._own_parts(height, width):
            z = z + self._own(known, where, offsets, weight)
        logits = self.last(F.relu(self.middle(F.relu(z))))
        nats = F.binary_cross_entropy_with_logits(logits, bits, reduction="none")
        return nats / math.log(2) * mask

    def _own_parts(self, height: int, width: int) -> list[tuple[Tensor, _Offsets, Tensor]]:
        """Positions (flat), the offsets known there, and the weights used."""
        flat = torch.arange(height * width)
        if self.own == "causal":
            return [(flat, _CAUSAL, self.around[0])]
        if self.own == "checkerboard":
            second = flat[(flat // width + flat % width) % 2 == 1]
            return [(second, _STRAIGHT, self.around[0])]
        if self.own == "passes":
            return [
                (torch.from_numpy(p.positions(height, width)), p.offsets[: self.near], w)
                for p, w in zip(PASSES, self.around, strict=True)
                if p.offsets
            ]
        return []

    def _own(self, known: Tensor, where: Tensor, offsets: _Offsets, weight: Tensor) -> Tensor:
        count, _, height, width = known.shape
        reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
        padded = F.pad(known, (reach,) * 4).flatten(2)
        rows, columns = where // width + reach, where % width + reach
        seen = [
            padded[:, :, (rows + dy) * (width + 2 * reach) + columns + dx] for dy, dx in offsets
        ]
        groups = torch.stack(seen, 2).view(count, self.config.levels, -1, len(offsets), len(where))
        inputs = groups.permute(1, 0, 4, 3, 2).reshape(self.config.levels, count * len(where), -1)
        out = torch.bmm(inputs, weight).view(self.config.levels, count, len(where), _HIDDEN)
        z = known.new_zeros(count, self.config.levels * _HIDDEN, height * width)
        z[:, :, where] = out.permute(1, 0, 3, 2).reshape(count, -1, len(where))
        return z.view(count, -1, height, width)


def _bits(sent: Tensor) -> Tensor:
    return torch.from_numpy(np.unpackbits(sent.numpy(), axis=1)).float()


def measure(
    checkpoint: Path, train: list[Path], test: list[Path], steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Bits per kept code of every context at every rate, with where it was measured."""
    frozen = load_checkpoint(checkpoint).rounded_to_half()
    network, config = frozen.network(), frozen.config
    if config.codes != "signs":
        raise TrainingError("the codes of this model are no signs; use for example nano-signs")
    fit = SignFit(config, 1)  # its network is not used
    train_codes = list(coded_pictures(network, fit, train, 512))
    test_codes = list(coded_pictures(network, fit, test, 768))
    large = [p for p in train_codes if min(p.importance.shape) >= 32]
    table: dict[str, dict[str, float]] = {}
    for name, options in CONTEXTS.items():
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        predictor = _Predictor(config, **options)
        optimiser = torch.optim.Adam(predictor.parameters(), 4e-3)
        started = time.perf_counter()
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = 4e-3 * min(1.0, (steps - step) / (0.6 * steps))
            sent, levels = random_crops(fit, large, config.levels, (0.06, 1.5), 32, 4, rng)
            bits, mask = _bits(sent), fit.kept(levels)
            loss = predictor(bits, mask, levels).sum() / mask.sum().clamp(min=1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        line: dict[str, float] = {}
        for rate, scale in _SCALES.items():
            cost = codes = 0.0
            for picture in test_codes:
                chosen = levels_from_importance(picture.importance, scale, config.levels)
                sent, levels = as_tensors(picture.codes[None], chosen[None])
                bits, mask = _bits(sent), fit.kept(levels)
                with torch.inference_mode():
                    cost += float(predictor(bits, mask, levels).sum())
                codes += float(mask.sum())
            line[rate] = round(cost / codes, 4)
        table[name] = line
        say(f"{name:48} {line}  {time.perf_counter() - started:.0f} s")
    return {**environment.describe(), "scales": _SCALES, "steps": steps, "bits_per_code": table}


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@command.matching("--train", "Glob of photographs to learn from.")
@command.matching("--test", "Glob of pictures to measure on.")
@click.option("--steps", default=400, show_default=True)
@command.output
def main(checkpoint: Path, train: list[Path], test: list[Path], steps: int, output: Path) -> None:
    """Measure every kind of context and write JSON."""
    result = measure(checkpoint, train, test, steps, click.echo)
    command.write(output, result)


if __name__ == "__main__":
    main()
