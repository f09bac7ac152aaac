"""What the tests of whole runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cwic_training.checkpoint import load_checkpoint
from cwic_training.fit import FitResult

Train = Callable[..., FitResult]

FAST = {"muon_lr": 0.1, "adam_lr": 0.02}
"""Rates with which a few steps of the warm-up already learn."""


def same(a: Path, b: Path, name: str = "last.safetensors") -> bool:
    mine, theirs = (load_checkpoint(folder / name).tensors for folder in (a, b))
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[k], theirs[k]) for k in mine)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def validation_losses(folder: Path) -> dict[int, float]:
    """By steps done."""
    return {event.step: event.value for event in events(folder).Scalars("val/loss")}
