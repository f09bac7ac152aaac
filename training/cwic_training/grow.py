"""Starting a larger `nano` from a trained smaller one, as the same function.

New blocks end in zeros and feedback is all zeros, so the larger network computes what the
smaller one did until it is trained further.
"""

from __future__ import annotations

from typing import Any

from cwic.errors import CheckpointError
from cwic_training.checkpoint import Checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork

__all__ = ["grown"]

_BEFORE_BLOCKS = 2
"""Modules of the decoder before its first block."""


def grown(start: Checkpoint, config: ModelConfig) -> CodecNetwork:
    """A network of the shape ``config`` that computes what ``start`` does.

    Args:
        start: a trained `nano`.
        config: the same shape, or one with more blocks, or with feedback where ``start`` has
            none; or one of uniform importance, which does not compute the same.

    Raises:
        CheckpointError: ``config`` differs in another way.
    """
    old = start.config

    def fixed(c: ModelConfig) -> dict[str, Any]:
        may_change = {"encoder_blocks", "decoder_blocks", "feedback", "importance"}
        return {name: value for name, value in c.to_dict().items() if name not in may_change}

    if (
        fixed(old) != fixed(config)
        or old.encoder_blocks > config.encoder_blocks
        or old.decoder_blocks > config.decoder_blocks
        or old.feedback not in (0, config.feedback)
        or old.importance not in ("learned", config.importance)
    ):
        raise CheckpointError(
            "the checkpoint cannot grow into this model, whose width, codes or levels differ "
            "or which has fewer blocks; leave out --model"
        )
    network = CodecNetwork(config)
    state = network.state_dict()
    for name, value in start.network().state_dict().items():
        if config.importance == "learned" or not name.startswith("importance."):
            state[_renamed(name, old, config)] = value
    network.load_state_dict(state)
    return network


def _renamed(name: str, old: ModelConfig, new: ModelConfig) -> str:
    """Where a tensor goes: what follows the blocks of the decoder moves back."""
    part, _, rest = name.partition(".")
    if part != "synthesis":
        return name
    index, _, tail = rest.partition(".")
    moved = int(index)
    if moved >= _BEFORE_BLOCKS + old.decoder_blocks:
        moved += new.decoder_blocks - old.decoder_blocks
    return f"{part}.{moved}.{tail}"
