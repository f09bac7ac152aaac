"""What a trainer's state (``last.ckpt``) says before a run goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cwic.errors import CheckpointError
from cwic_training.config import ModelConfig
from cwic_training.recipe import Recipe

__all__ = ["check_resumable", "resumed_config"]

_MAY_CHANGE = {"steps", "cooldown", "validate_every", "muon_lr", "adam_lr"}


def check_resumable(path: Path, recipe: Recipe) -> ModelConfig:
    """The model of a trainer state; nothing in the file is executed.

    A resumed run may change its length, its learning rates and its validation interval.

    Raises:
        CheckpointError: missing, not a state written by :mod:`cwic_training.run_folder`, or of
            another recipe.
    """
    config, before = _resumed(path)
    now = recipe.to_dict()
    changed = [k for k in before if k not in _MAY_CHANGE and before[k] != now.get(k)]
    if changed:
        old, new = (", ".join(f"{k}={d.get(k)}" for k in changed) for d in (before, now))
        raise CheckpointError(
            f"{path} was trained with {old}, not {new}; resume with the options it began with"
        )
    return config


def resumed_config(path: Path) -> ModelConfig:
    """The model of a trainer state, as :func:`check_resumable`, whatever its recipe.

    Raises:
        CheckpointError: missing, or not a state written by :mod:`cwic_training.run_folder`.
    """
    return _resumed(path)[0]


def _resumed(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path} does not exist; pass RUN/last.ckpt") from exc
    except Exception as exc:  # torch raises many kinds for damaged files
        raise CheckpointError(f"{path} is not a resumable state; pass RUN/last.ckpt") from exc
    try:
        config = ModelConfig.from_dict(state["cwic"]["config"])
        before = dict(state["cwic"].get("recipe", {}))
        if not all(state[part] for part in ("state_dict", "optimizer_states", "loops")):
            raise ValueError("nothing to restore")
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path} is not a state of cwic train; pass RUN/last.ckpt") from exc
    return config, before
