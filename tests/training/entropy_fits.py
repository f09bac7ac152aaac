"""What the tests of the entropy stage share: small fits, and a network of either kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cwic_training import coded_pictures, entropy
from cwic_training.checkpoint import Checkpoint
from cwic_training.entropy import fit_entropy_model
from cwic_training.entropy_report import EntropyReport
from cwic_training.model import CodecNetwork

from .conftest import VALUES

Fitted = tuple[Checkpoint, EntropyReport]

STEPS = 60
HIGH = (3.0, 30.0)
"""Rate factors at which a network that hardly learnt keeps hundreds of codes."""
RATES = (0.06, 1.5)
FAST = {"steps": STEPS, "batch": 2, "hidden": 16}


def fit_signs(trained: Checkpoint, train: Sequence[Path], valid: Sequence[Path]) -> Fitted:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "_scales", lambda _: HIGH)
        return fit_entropy_model(trained, train, valid, **FAST)


def valued() -> Checkpoint:
    """A new network, which is a DCT, whose importance is not the same everywhere."""
    torch.manual_seed(0)
    network = CodecNetwork(VALUES).eval()
    torch.nn.init.normal_(network.importance.get_parameter("conv3.weight"), std=0.3)
    recipe = {"scale_min": 0.15, "scale_max": 2.0}
    facts = {"stage": "importance", "steps": 0, "recipe": recipe}
    return Checkpoint(VALUES, network.state_dict(), facts)


def synthetic(bits: NDArray[np.uint8]) -> coded_pictures.CodedPicture:
    """Every code kept, at every rate factor from 1 on."""
    return coded_pictures.CodedPicture(
        np.packbits(bits, axis=0), np.full(bits.shape[1:], 255, np.uint8)
    )
