"""Checkpoints: weights as safetensors, plus a JSON header.

The header has the model's configuration and facts about the training. What a run writes besides
is in :mod:`cwic_training.run_folder`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cwic.errors import CheckpointError, UsageError
from cwic.files import replacing
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

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
