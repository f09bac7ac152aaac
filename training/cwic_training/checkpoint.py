"""Checkpoints: weights as safetensors, and the callback that writes them while training.

A run folder holds ``last.safetensors`` and ``best.safetensors`` (weights plus a JSON
header: model configuration and facts about the training) and ``last.ckpt``, the trainer's
whole state to resume from. Each is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cwic.errors import CheckpointError
from cwic_training.model import CodecNetwork, ModelConfig

__all__ = ["Checkpoint", "CheckpointWriter", "load_checkpoint", "load_network", "save_checkpoint"]

_FORMAT = "cwic-checkpoint/1"


@dataclass
class Checkpoint:
    """Weights and facts of one model.

    Attributes:
        config: shape of the network.
        tensors: the network's state dict.
        training: facts worth keeping (steps, data, recipe, validation), plain JSON values.
        entropy: tables of the entropy model by name; empty before stage `entropy`.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    training: dict[str, Any] = field(default_factory=dict)
    entropy: dict[str, Tensor] = field(default_factory=dict)

    def network(self) -> CodecNetwork:
        """A network with these weights, in evaluation mode."""
        network = CodecNetwork(self.config)
        try:
            network.load_state_dict(self.tensors)
        except RuntimeError as exc:
            raise CheckpointError(
                f"the weights do not fit the model {self.config}; use a checkpoint of this release"
            ) from exc
        return network.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path`` (safetensors), whole or not at all."""
    tensors = {f"network.{k}": v.contiguous() for k, v in checkpoint.tensors.items()}
    tensors |= {f"entropy.{k}": v.contiguous() for k, v in checkpoint.entropy.items()}
    metadata = {
        "format": _FORMAT,
        "config": json.dumps(checkpoint.config.to_dict()),
        "training": json.dumps(checkpoint.training),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary:
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
        training = json.loads(metadata["training"])
    except (KeyError, ValueError) as exc:
        raise CheckpointError(f"{path} has a damaged header; use another copy") from exc
    return Checkpoint(
        config=config,
        tensors=_with_prefix(tensors, "network."),
        training=training,
        entropy=_with_prefix(tensors, "entropy."),
    )


def load_network(path: str | Path) -> CodecNetwork:
    """The network of a checkpoint, in evaluation mode."""
    return load_checkpoint(path).network()


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class _replacing:
    """Context: a temporary path beside ``path`` that takes its place on success."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Path:
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if kind is None:
            # mkstemp makes files private; a checkpoint is read like any other file.
            self.temporary.chmod(0o644)
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink(missing_ok=True)


class CheckpointWriter(pl.Callback):
    """Writes last and best checkpoints; saves once more when training is interrupted.

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
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val/loss"])
        if score < self.best:
            self.best = score
            save_checkpoint(self.folder / "best.safetensors", pl_module.checkpoint())

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.write_last(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.write_last(trainer, pl_module)

    def write_last(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write ``last.ckpt`` and ``last.safetensors`` now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _replacing(self.folder / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        save_checkpoint(self.folder / "last.safetensors", pl_module.checkpoint())
        self.written_at = time.monotonic()


def check_resumable(path: Path) -> None:
    """Refuse a trainer state that cannot be read without executing it.

    Raises:
        CheckpointError: missing or not a state written by :class:`CheckpointWriter`.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as exc:
        raise CheckpointError(f"{path} does not exist; pass RUN/last.ckpt") from exc
    except Exception as exc:  # torch raises many kinds for damaged files
        raise CheckpointError(f"{path} is not a resumable state; pass RUN/last.ckpt") from exc
    if not isinstance(state, dict) or "cwic" not in state:
        raise CheckpointError(f"{path} is not a state of cwic train; pass RUN/last.ckpt")
