"""Short trainings from nothing that differ in one setting: what each is worth.

``python -m benchmarks.trials --train 'photos/train/*' --valid 'photos/valid/*' -o RESULT.json``

Every trial trains `nano-signs` on one seed for the same number of pixels, and is judged by the
validation loss of the variable rate (pictures that training does not see, mean squared error). One
short run each says which settings deserve a longer one, not more. Trials that are in RESULT.json
already are kept, so that the command can be stopped and called again.
"""

from __future__ import annotations

import gc
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch import Tensor, nn

from benchmarks import command, environment
from benchmarks.trials_table import table
from cwic.errors import CwicError, TrainingError
from cwic_training import losses, ops, optim
from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import PRESETS, ModelConfig
from cwic_training.fit import fit
from cwic_training.losses import variable_rate_loss
from cwic_training.recipe import Recipe
from cwic_training.task import CodecTask

__all__ = ["TRIALS", "Trial", "run"]


@dataclass(frozen=True)
class Trial:
    """What differs from the first trial.

    Attributes:
        recipe: fields of :class:`~cwic_training.recipe.Recipe`.
        model: fields of :class:`~cwic_training.config.ModelConfig`.
        pixels: how many times the pixels of a step; the steps are as many times fewer.
        callbacks: makes more callbacks of the trainer.
        patched: opened around the training.
    """

    recipe: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    pixels: float = 1.0
    callbacks: Callable[[], Sequence[Callback]] = tuple
    patched: Callable[[], AbstractContextManager[Any]] = nullcontext


def _surrogate(width: float) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: patch.object(ops, "MASK_SURROGATE_WIDTH", width)


def _unweighted(distortion: Tensor, bpp: Tensor, scale: Tensor, weight: float) -> Tensor:
    """``D + weight / s**2 R``: the same trade-off at each s, but high rates count less."""
    if not distortion.requires_grad:  # validation judges all trials alike
        return variable_rate_loss(distortion, bpp, scale, weight)
    return (distortion + weight / scale.square() * bpp).mean()


def _uniform_scales(task: CodecTask, count: int) -> Tensor:
    recipe = task.recipe
    rng = np.random.default_rng([recipe.seed, 2, task.trainer.global_step])
    low, high = recipe.scale_min, recipe.scale_max
    return torch.from_numpy(rng.uniform(low, high, count).astype(np.float32))


def _random_branch(weight: Tensor) -> Tensor:
    """Where a residual branch would start at zero."""
    return nn.init.normal_(weight, std=0.5 / math.sqrt(weight[0].numel()))


TRIALS = {
    "the first: 8 crops of 128², Muon 0.005, cooldown half": Trial(),
    "Muon 0.0025": Trial({"muon_lr": 0.0025}),
    "Muon 0.01": Trial({"muon_lr": 0.01}),
    "Muon's weight decay 0.1": Trial(patched=lambda: patch.object(optim, "WEIGHT_DECAY", 0.1)),
    "Muon's weight decay 0": Trial(patched=lambda: patch.object(optim, "WEIGHT_DECAY", 0.0)),
    "Adam 0.0016": Trial({"adam_lr": 0.0016}),
    "cooldown over all steps": Trial({"cooldown": 1.0}),
    "cooldown over a fifth": Trial({"cooldown": 0.2}),
    "weights averaged (EMA 0.98)": Trial(callbacks=lambda: [EMAWeightAveraging(decay=0.98)]),
    "16 crops, half the steps": Trial({"batch": 16}, pixels=2),
    "4 crops of 176²": Trial({"crop": 176, "batch": 4}, pixels=(176 / 128) ** 2 / 2),
    "surrogate of the mask a third as wide": Trial(patched=_surrogate(1.0)),
    "surrogate of the mask three times as wide": Trial(patched=_surrogate(9.0)),
    "D + λ/s² R instead of s D + λ/s R": Trial(
        patched=lambda: patch.object(losses, "variable_rate_loss", _unweighted)
    ),
    "s uniform instead of log-uniform": Trial(
        patched=lambda: patch.object(CodecTask, "_scales", _uniform_scales)
    ),
    "residual branches not zero at the start": Trial(
        patched=lambda: patch.object(nn.init, "zeros_", _random_branch)
    ),
    "no decision feedback": Trial(model={"feedback": 0}),
    "nano-signs-deep": Trial(model=asdict(PRESETS["nano-signs-deep"])),
    "base, the paper's network": Trial(model=asdict(PRESETS["base"])),
}


def _recipe(steps: int) -> Recipe:
    """Of the first trial."""
    return Recipe(steps=steps, batch=8, cooldown=0.5, validate_every=steps)


def run(trial: Trial, train: str, valid: str, steps: int) -> dict[str, float]:
    """Validation of one trial after ``steps`` steps of the first trial's size.

    Raises:
        TrainingError: it was stopped before.
    """
    recipe = _recipe(round(steps / trial.pixels))
    config: ModelConfig = replace(PRESETS["nano-signs"], **trial.model)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, trial.patched():
        folder = Path(name)
        ended = fit(
            config,
            replace(recipe, **trial.recipe),
            train_glob=train,
            valid_glob=valid,
            folder=folder,
            progress=False,
            callbacks=trial.callbacks(),
        )
        if ended.stopped:
            raise TrainingError("the trial was stopped; call the command again for the others")
        found = load_checkpoint(folder / "last.safetensors").training["validation"]
    seconds = time.perf_counter() - start
    gc.collect()  # the trainer's cycles hold all the photographs, and the next trial loads them
    return {
        **{k.removeprefix("val/"): round(v, 4) for k, v in found.items()},
        "time_s": round(seconds, 1),
    }


@click.command()
@click.option("--train", required=True, help="Glob of photographs.")
@click.option("--valid", required=True, help="Glob of held-out pictures.")
@click.option("--steps", default=600, show_default=True)
@command.output
def main(train: str, valid: str, steps: int, output: Path) -> None:
    """Train what is not there yet, write JSON after each, print the table."""
    done = json.loads(output.read_text())["validation"] if output.exists() else {}
    for name, trial in TRIALS.items():
        if name in done:
            continue
        try:
            done[name] = run(trial, train, valid, steps)
        except CwicError as exc:
            raise click.ClickException(str(exc)) from exc
        facts = {
            "steps": steps,
            "recipe": asdict(Recipe(batch=8, cooldown=0.5)),
            "validation": {each: done[each] for each in TRIALS if each in done},
        }
        command.write(output, {**environment.describe(), **facts})
        click.echo(f"{name}: {done[name]['loss']:.2f}")
    click.echo(table(json.loads(output.read_text())))


if __name__ == "__main__":
    main()
