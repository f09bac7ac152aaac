"""Checkpoints: weights as safetensors, and the callback that writes them while training.

A run folder holds ``last.safetensors`` and ``best.safetensors`` (weights plus a JSON
header: model configuration and facts about the training) and ``last.ckpt``, the trainer's
whole state to resume from. Each is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cwic.errors import CheckpointError, TrainingError, UsageError
from cwic.files import replacing
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.recipe import Recipe

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "check_resumable",
    "load_checkpoint",
    "resumed_config",
    "save_checkpoint",
]

_FORMAT = "cwic-checkpoint/1"


@dataclass
class Checkpoint:
    """Weights and facts of one model.

    Attributes:
        config: shape of the network.
        tensors: the network's state dict.
        training: facts worth keeping (stage, steps, recipe, validation), plain JSON values.
        entropy: tables of the entropy model by name; empty before stage `entropy`.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    entropy: dict[str, Tensor] = field(default_factory=dict)

    def rounded_to_half(self) -> Checkpoint:
        """The same model with its weights rounded to half precision: a release's weights.

        Running statistics stay as they are: variances may exceed the range of halves.
        """
        tensors = {
            k: v if k.startswith("normalise.") or not v.is_floating_point() else v.half().float()
            for k, v in self.tensors.items()
        }
        return replace(self, tensors=tensors)

    def network(self) -> CodecNetwork:
        """A network with these weights, in evaluation mode."""
        try:
            network = CodecNetwork(self.config)
            network.load_state_dict(self.tensors)
        except RuntimeError as exc:
            raise CheckpointError(
                f"the weights do not fit the model {self.config}; use a checkpoint of this release"
            ) from exc
        return network.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path`` (safetensors), whole or not at all.

    Raises:
        UsageError: the folder cannot be made or written.
    """
    tensors = {f"network.{k}": _stored(v) for k, v in checkpoint.tensors.items()}
    tensors |= {f"entropy.{k}": v.contiguous() for k, v in checkpoint.entropy.items()}
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "training": json.dumps(checkpoint.training),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"cannot make {path.parent} ({exc}); choose another output") from exc
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        CheckpointError: missing, not safetensors, or not a cwic checkpoint.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path} does not exist; check the path") from exc
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(
            f"{path} is not a safetensors file ({exc}); pass the .safetensors of a run"
        ) from exc
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is not a {_FORMAT} file; pass one written by cwic train")
    try:
        config = ModelConfig.from_dict(json.loads(metadata["config"]))
        training = dict(json.loads(metadata["training"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise CheckpointError(f"{path} has a damaged header; use another copy") from exc
    network = _with_prefix(tensors, "network.")
    return Checkpoint(
        config=config,
        tensors={k: v.float() if v.is_floating_point() else v for k, v in network.items()},
        training=training,
        entropy=_with_prefix(tensors, "entropy."),
    )


def _stored(tensor: Tensor) -> Tensor:
    """``tensor`` in half precision where that loses nothing, which halves the file."""
    if not tensor.is_floating_point():
        return tensor.contiguous()
    half = tensor.half()
    return (half if torch.equal(half.float(), tensor) else tensor).contiguous()


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class CheckpointWriter(pl.Callback):
    """Writes the best weights after a validation, and the last state by the clock and at the end.

    An exception writes nothing: in the middle of a step the state is no longer one that an
    uninterrupted run passes through, so the last good one stays.

    Args:
        folder: run folder.
        minutes: time between two writes of the last state.
    """

    def __init__(self, folder: Path, minutes: float = 5.0) -> None:
        self.folder, self.interval_s = folder, minutes * 60
        self.best = float("inf")
        self.written_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if time.monotonic() - self.written_at >= self.interval_s:
            self.write_last(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        score = float(trainer.callback_metrics["val/loss"])
        if not math.isfinite(score):
            raise TrainingError(
                f"training diverged before step {trainer.global_step} (loss {score}); "
                "start again with smaller --muon-lr and --adam-lr"
            )
        if score < self.best:
            self.best = score
            save_checkpoint(self.folder / "best.safetensors", pl_module.checkpoint())

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.write_last(trainer, pl_module)

    def write_last(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write ``last.ckpt`` and ``last.safetensors`` now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        save_checkpoint(self.folder / "last.safetensors", pl_module.checkpoint())
        self.written_at = time.monotonic()


_MAY_CHANGE = {"steps", "cooldown", "validate_every", "muon_lr", "adam_lr"}


def check_resumable(path: Path, recipe: Recipe) -> ModelConfig:
    """The model of a trainer state; nothing in the file is executed.

    A resumed run may change its length, its learning rates and its validation interval.

    Raises:
        CheckpointError: missing, not a state written by :class:`CheckpointWriter`, or of
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
        CheckpointError: missing, or not a state written by :class:`CheckpointWriter`.
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
