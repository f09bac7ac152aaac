"""Stage `entropy`: train the entropy model of a frozen network and freeze it to integers.

The network's weights are rounded to half precision, as a release stores them, and run over
photographs once. Then a network (:mod:`cwic_training.context_net`, or
:mod:`cwic_training.value_context` where codes are values) learns to predict the kept codes of
random crops at random rates, at last with the integers that it is frozen to; and a table of level
frequencies is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cwic.entropy_model import ContextModel
from cwic.errors import CheckpointError, TrainingError
from cwic_training.checkpoint import Checkpoint
from cwic_training.coded_pictures import (
    CodedPicture,
    as_tensors,
    coded_pictures,
    random_crops,
    spread_levels,
)
from cwic_training.entropy_report import EntropyReport, measured
from cwic_training.level_table import level_table
from cwic_training.quality import quality_scales
from cwic_training.recipe import Recipe
from cwic_training.symbol_fit import SignFit, SymbolFit, ValueFit

__all__ = ["fit_entropy_model"]

_LOWEST_SCALE = 0.05
"""Below that of quality 1: small budgets need smaller ones."""
_CROP = 32
_TYPICAL_PICTURES = 16
_NEXT_TO_NOTHING = 0.1
"""Bits of a position below which pictures count as equal."""
_PROGRESSIVE = 4
"""Each such step is taken in the order of a progressive stream."""


@dataclass(frozen=True)
class _Schedule:
    """What changes from step to step.

    Attributes:
        steps: of the optimiser.
        highest: learning rate of the first steps.
        decay: last part of the steps over which it falls to zero.
        quantised: last part of the steps that train the integers.
    """

    steps: int
    highest: float
    decay: float
    quantised: float

    @classmethod
    def from_noise(cls, steps: int) -> _Schedule:
        return cls(steps, 4e-3, decay=0.7, quantised=0.3)

    @classmethod
    def further(cls, steps: int) -> _Schedule:
        """Of a network that was read back from its integers: it fits them, not the numbers."""
        return cls(steps, 2e-3, decay=1.0, quantised=1.0)

    def rate(self, step: int) -> float:
        return self.highest * min(1.0, (self.steps - step) / (self.steps * self.decay))

    def trains_integers(self, step: int) -> bool:
        return step >= self.steps * (1 - self.quantised)


def fit_entropy_model(
    checkpoint: Checkpoint,
    train: Sequence[Path],
    valid: Sequence[Path],
    *,
    initial: Checkpoint | None = None,
    steps: int = 3000,
    batch: int = 8,
    hidden: int = 64,
    seed: int = 0,
    largest_px: int = 512,
    progress: Callable[[int], None] | None = None,
) -> tuple[Checkpoint, EntropyReport]:
    """Train the entropy model and measure it.

    Args:
        checkpoint: a network trained with an importance map.
        train: pictures to train on; their codes are held in memory, 33 kB for 512 x 512.
        valid: pictures to measure on.
        initial: a release whose entropy network is trained further; `checkpoint` may be another
            network of its shape. Default: from noise.
        steps: optimiser steps of the context network.
        batch: crops of 32 x 32 positions per step.
        hidden: width of the context network.
        seed: of rates, crops and initial weights.
        largest_px: longer sides are cropped to this, centred.
        progress: called with the number of steps done since it was last called.

    Returns:
        The release checkpoint (weights rounded to half, integers inside) and the costs.

    Raises:
        CheckpointError: the network's importance map was never trained, or the entropy network of
            `initial` is of another model.
        TrainingError: a picture is unreadable; the message names it.
    """
    if checkpoint.training.get("stage") == "main":
        raise CheckpointError(
            "the checkpoint is of stage main, without an importance map; "
            "run cwic train importance with --init first"
        )
    if min(steps, batch, hidden) < 1:
        raise TrainingError("steps, batch and width must be at least 1; use the defaults")
    release = checkpoint.rounded_to_half()
    network, config = release.network(), release.config
    scales = _scales(checkpoint)
    torch.manual_seed(seed)
    fit: SymbolFit = (
        SignFit(config, hidden) if config.codes == "signs" else ValueFit(network, hidden)
    )
    if initial is not None:
        fit.start_from(initial.entropy)
    pictures = list(coded_pictures(network, fit, train, largest_px))
    schedule = _Schedule.from_noise(steps) if initial is None else _Schedule.further(steps)
    _train_context(fit, pictures, config.levels, scales, schedule, batch, seed, progress)
    tables = fit.tables(lambda: _typical_bits(fit, pictures, config.levels))
    tables["levels.frequencies"] = level_table(
        spread_levels(pictures, config.levels, scales, seed), config.levels
    )
    model = ContextModel(tables, config.n, config.levels)
    held_out = list(coded_pictures(network, fit, valid, largest_px))
    report = measured(model, fit, held_out, scales, seed + 1)
    release.entropy = {name: torch.from_numpy(table) for name, table in tables.items()}
    release.training = {**release.training, "entropy": {**asdict(report), "steps": steps}}
    qualities = quality_scales(network, valid, scales[1])
    if qualities is not None:
        release.training["quality_scales"] = qualities
    return release, report


def _scales(checkpoint: Checkpoint) -> tuple[float, float]:
    """Rate factors that pictures will be coded at: the range, or the one of a fixed rate."""
    recipe = checkpoint.training.get("recipe", {})
    highest = float(recipe.get("scale_max", Recipe.scale_max))
    return (highest if recipe.get("scale_min") == highest else _LOWEST_SCALE), highest


def _train_context(
    fit: SymbolFit,
    pictures: list[CodedPicture],
    levels: int,
    scales: tuple[float, float],
    schedule: _Schedule,
    batch: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> None:
    rng = np.random.default_rng([seed, 4])
    optimiser = torch.optim.Adam(fit.net.parameters())
    side = min(_CROP, max(min(p.importance.shape) for p in pictures))
    large = [p for p in pictures if min(p.importance.shape) >= side]
    for step in range(schedule.steps):
        fit.net.quantised = schedule.trains_integers(step)
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        sent, chosen = random_crops(fit, large, levels, scales, side, batch, rng)
        progressive = fit.progressive and step % _PROGRESSIVE == 0
        loss = fit.loss(fit.cost(sent, chosen, progressive=progressive), chosen)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if progress is not None:
            progress(1)


def _typical_bits(fit: SymbolFit, pictures: list[CodedPicture], levels: int) -> NDArray[np.float64]:
    """Bits of a position in parts of some pictures that are all of one level, [L + 1].

    The geometric mean of the pictures: one takes twice as much as another at every level, and
    what is expected of a third should be as likely too much as too little.
    """
    some = pictures[:: max(1, len(pictures) // _TYPICAL_PICTURES)][:_TYPICAL_PICTURES]
    side = min(_CROP, *(min(picture.importance.shape) for picture in some))
    parts = [picture.codes[:, :side, :side] for picture in some]
    typical = np.zeros(levels + 1)
    for level in range(1, levels + 1):
        chosen = np.full((len(parts), side, side), level, np.uint8)
        sent = np.stack([fit.sent(part, chosen[0]) for part in parts])
        with torch.inference_mode():
            bits = fit.cost(*as_tensors(sent, chosen)).sum((1, 2, 3)) / side**2
        typical[level] = float((bits + _NEXT_TO_NOTHING).log().mean().exp()) - _NEXT_TO_NOTHING
    rising: NDArray[np.float64] = np.maximum.accumulate(typical) + 1e-3 * np.arange(levels + 1)
    return rising
