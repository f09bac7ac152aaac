"""A larger network starts as the function of the smaller one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.training.conftest import VALUES

from cwic.errors import CheckpointError
from cwic_training.checkpoint import Checkpoint
from cwic_training.config import ModelConfig
from cwic_training.grow import grown
from cwic_training.model import CodecNetwork


def _checkpoint(config: ModelConfig) -> Checkpoint:
    torch.manual_seed(3)
    network = CodecNetwork(config)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    network.train()
    with torch.no_grad():
        network.encode(torch.rand(2, 3, 64, 64))
    return Checkpoint(config, network.state_dict(), {})


@pytest.mark.parametrize("more", [{}, {"encoder_blocks": 2}, {"decoder_blocks": 3}])
def test_growing_values_changes_nothing(more: dict[str, Any]) -> None:
    test_growing_changes_nothing(VALUES, more)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"encoder_blocks": 3},
        {"decoder_blocks": 4},
        {"feedback": 4},
        {"encoder_blocks": 2, "decoder_blocks": 2, "feedback": 2},
    ],
)
def test_growing_changes_nothing(tiny: ModelConfig, more: dict[str, Any]) -> None:
    start = _checkpoint(tiny)
    small, large = start.network().eval(), grown(start, replace(tiny, **more)).eval()
    x, scale = torch.rand(1, 3, 64, 64), torch.full((1,), 0.7)
    with torch.no_grad():
        before, after = vars(small(x, scale)), vars(large(x, scale))
    assert before["kept"].any()
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert large.config == replace(tiny, **more)


def test_feedback_is_kept(tiny: ModelConfig) -> None:
    start = _checkpoint(replace(tiny, feedback=4))
    large = grown(start, replace(tiny, feedback=4, decoder_blocks=2))
    assert large.feedback is not None
    assert torch.equal(large.feedback.weight, start.tensors["feedback.weight"])


def test_uniform_importance_keeps_the_rest(tiny: ModelConfig) -> None:
    start = _checkpoint(tiny)
    learned, uniform = start.network(), grown(start, replace(tiny, importance="uniform")).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        codes, importance = uniform.encode(x)
        torch.testing.assert_close(codes, learned.encode(x)[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(importance, torch.full((1, 1, 8, 8), 0.5))


def test_a_map_does_not_come_back(tiny: ModelConfig) -> None:
    with pytest.raises(CheckpointError, match="cannot grow"):
        grown(_checkpoint(replace(tiny, importance="uniform")), tiny)


@pytest.mark.parametrize(
    "other",
    [
        {"width": 64},
        {"n": 32},
        {"encoder_blocks": 0},
        {"decoder_blocks": 0},
        {"levels": 4},
        {"codes": "values"},
    ],
)
def test_another_shape_is_refused(tiny: ModelConfig, other: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="cannot grow.*leave out --model"):
        grown(_checkpoint(tiny), replace(tiny, **other))


def test_feedback_of_another_number_of_groups_is_refused(tiny: ModelConfig) -> None:
    with pytest.raises(CheckpointError, match="cannot grow"):
        grown(_checkpoint(replace(tiny, feedback=4)), replace(tiny, feedback=8))
