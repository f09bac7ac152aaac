"""One network from several of the same kind: the mean of their weights.

Networks that one was trained into by further runs, each ending at a low learning rate, can lie
around a better one (Wortsman et al., "Model soups", ICML 2022). It costs no training, and needs
an entropy stage of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cwic.errors import CheckpointError
from cwic_training.checkpoint import Checkpoint

__all__ = ["averaged"]


def averaged(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """The mean of all weights, as a checkpoint of a run.

    Args:
        checkpoints: two or more of one model and stage. Their entropy models are left out.

    Returns:
        The mean, with the facts of the last one and the steps of each.

    Raises:
        CheckpointError: fewer than two, or of different models or stages.
    """
    if len(checkpoints) < 2:
        raise CheckpointError("a mean takes two checkpoints or more; name the others too")
    last = checkpoints[-1]
    for other in checkpoints:
        if other.config != last.config or _shapes(other) != _shapes(last):
            raise CheckpointError("the checkpoints are of different models; name runs of one model")
        if other.training.get("stage") != last.training.get("stage"):
            raise CheckpointError("the checkpoints are of different stages; name runs of one stage")
    tensors = {name: _mean([c.tensors[name] for c in checkpoints]) for name in last.tensors}
    facts = {k: v for k, v in last.training.items() if k in ("stage", "steps", "recipe")}
    facts["averaged_steps"] = [c.training.get("steps") for c in checkpoints]
    return Checkpoint(last.config, tensors, facts)


def _shapes(checkpoint: Checkpoint) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in checkpoint.tensors.items()}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Of numbers; what counts something is that of the last."""
    if not tensors[-1].is_floating_point():
        return tensors[-1]
    return torch.stack([t.double() for t in tensors]).mean(0).to(tensors[-1].dtype)
