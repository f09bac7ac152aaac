"""Muon and Adam behind one interface, and the schedule."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cwic_training.config import PRESETS, ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.optim import MuonAdam, split_parameters, warmup_stable_decay


def names(network: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    ids = {id(p) for p in parameters}
    return {name for name, p in network.named_parameters() if id(p) in ids}


@pytest.mark.parametrize("preset", PRESETS)
def test_matrices_go_to_muon_and_the_rest_to_adam(preset: str) -> None:
    network = CodecNetwork(PRESETS[preset])
    matrices, others = split_parameters(network)
    assert len(matrices) + len(others) == len(list(network.parameters()))
    muon, adam = names(network, matrices), names(network, others)
    assert not muon & adam
    assert all(name.endswith(".weight") for name in muon)
    vectors = (".bias", ".depthwise.weight", ".log_gain")
    assert all(name.endswith(vectors) for name in adam)
    learned = {"importance.conv3.weight"} if network.config.importance == "learned" else set()
    assert {"projection.weight"} | learned <= muon


@pytest.fixture
def gradients(network: CodecNetwork) -> Callable[[CodecNetwork, int], None]:
    """Fill in the gradients of a step; the same step gives the same ones."""

    def fill(target: CodecNetwork, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in target.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)

    return fill


def copy_of(network: CodecNetwork) -> CodecNetwork:
    twin = CodecNetwork(network.config)
    twin.load_state_dict(network.state_dict())
    return twin


def weights(network: CodecNetwork) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def equal(a: CodecNetwork, b: CodecNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_a_step_is_a_step_of_each_optimiser(network: CodecNetwork, gradients: Any) -> None:
    twin = copy_of(network)
    both = MuonAdam(*split_parameters(network), muon_lr=0.01, adam_lr=0.002)
    matrices, others = split_parameters(twin)
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.01)
    adam = torch.optim.Adam(others, lr=0.002, betas=(0.9, 0.99))
    start = weights(network)
    for step in range(3):
        for target in (network, twin):
            gradients(target, step)
        both.step()
        muon.step()
        adam.step()
    assert equal(network, twin)
    moved = [not torch.equal(a, b) for a, b in zip(start, weights(network), strict=True)]
    assert all(moved)


def test_a_restored_state_continues_identically(network: CodecNetwork, gradients: Any) -> None:
    optimizer = MuonAdam(*split_parameters(network))
    for step in range(2):
        gradients(network, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    twin = copy_of(network)
    fresh = copy_of(network)
    restored = MuonAdam(*split_parameters(twin))
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    forgetful = MuonAdam(*split_parameters(fresh))
    for step in range(2, 4):
        for target, chosen in ((network, optimizer), (twin, restored), (fresh, forgetful)):
            gradients(target, step)
            chosen.step()
    assert equal(network, twin)
    assert not equal(network, fresh)  # there was a state to restore


def test_learning_rates_change_through_the_groups(network: CodecNetwork, gradients: Any) -> None:
    """Also after a state was loaded, which replaces the inner groups."""
    optimizer = MuonAdam(*split_parameters(network))
    optimizer.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == [0.005, 0.0008]
    for frozen in (0, 1):
        before = [[p.detach().clone() for p in g["params"]] for g in optimizer.param_groups]
        for index, group in enumerate(optimizer.param_groups):
            group["lr"] = 0.0 if index == frozen else 0.01
        gradients(network, 9)
        optimizer.step()
        for index, group in enumerate(optimizer.param_groups):
            same = [torch.equal(a, b) for a, b in zip(before[index], group["params"], strict=True)]
            assert all(same) if index == frozen else not any(same)


def test_a_closure_runs_once_with_gradients(tiny: ModelConfig) -> None:
    network = CodecNetwork(tiny)
    optimizer = MuonAdam(*split_parameters(network))
    calls = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = network.decode(torch.ones(1, tiny.n, 2, 2)).square().mean()
        loss.backward()
        calls.append(loss.item())
        return loss

    with torch.no_grad():
        first = optimizer.step(closure)
        second = optimizer.step(closure)
    assert [first.item(), second.item()] == calls
    assert calls[1] < calls[0]


def test_schedule_warms_up_stays_and_falls_to_zero() -> None:
    factor = warmup_stable_decay(1000, cooldown=0.2)
    values = [factor(step) for step in range(1001)]
    assert values[:100] == pytest.approx([(k + 1) / 100 for k in range(100)])
    assert set(values[100:801]) == {1.0}
    assert values[800:] == pytest.approx([1 - k / 200 for k in range(201)])
    assert values[999] > 0 == values[1000]


@pytest.mark.parametrize("steps", [1, 5, 50, 150])
@pytest.mark.parametrize("cooldown", [0.0, 0.3, 1.0])
def test_short_schedules_stay_within_bounds(steps: int, cooldown: float) -> None:
    factor = warmup_stable_decay(steps, cooldown)
    values = [factor(step) for step in range(steps)]
    assert 0 < min(values) <= max(values) <= 1
    assert factor(steps) == 0
    assert factor(steps + 1) == 0


def test_more_steps_prolong_the_constant_part() -> None:
    short, long = (warmup_stable_decay(steps, 0.25) for steps in (400, 4000))
    assert all(short(step) == long(step) for step in range(301))
    assert short(399) < long(399) == 1.0
