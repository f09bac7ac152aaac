"""The price of values: a proper code, causal, smooth, and felt by the codec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.conftest import PLANES, Photos
from tests.training.runs import FAST, Train, same, validation_losses
from torch import Tensor

from cwic.errors import TrainingError
from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.entropy import fit_entropy_model
from cwic_training.model import CodecNetwork, ModelConfig
from cwic_training.recipe import Recipe
from cwic_training.task import CodecTask
from cwic_training.value_net import ValueNet

VALUES, LEVELS = 13, 8
UNIFORM = replace(PLANES, importance="uniform")


@pytest.fixture
def net() -> ValueNet:
    """With weights that let everything that is known matter."""
    torch.manual_seed(1)
    found = ValueNet(VALUES, LEVELS, 16)
    with torch.no_grad():
        found.level.weight.normal_()
        for group in found.groups:
            group.predicted.weight.normal_(std=0.3)
    return found


def content(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Values, ones and levels."""
    torch.manual_seed(2)
    w = 3 * torch.randn(count, VALUES, 7, 9)
    return w, torch.ones_like(w), torch.randint(0, LEVELS + 1, (count, 7, 9))


def test_all_intervals_together_are_as_likely_as_can_be(net: ValueNet) -> None:
    """Of one value, given all that is known before: probabilities sum to 1."""
    w, kept, levels = content(1)
    total = torch.zeros(VALUES)
    for q in range(-60, 61):
        w[0, :, 6, 8] = q  # the last position; of each group given the groups before
        with torch.no_grad():
            total += 2 ** -net(w, kept, levels)[0, :, 6, 8] * (q == w[0, :, 6, 8])
    own = net.groups[0]
    torch.testing.assert_close(total[: own.last], torch.ones(own.last), rtol=0, atol=1e-3)


def test_a_value_is_priced_by_what_is_known_before(net: ValueNet) -> None:
    w, kept, levels = content(1)
    with torch.no_grad():
        before = net(w, kept, levels)[0]
        for group in net.groups:
            changed = w.clone()
            changed[0, group.first, 3, 4] += 5
            differs = (net(changed, kept, levels)[0] - before).abs() > 0
            assert differs[group.first, 3, 4]
            others = differs[: group.last].clone()
            others[group.first, 3, 4] = False
            assert not others[: group.first].any(), "an earlier group knew"
            assert not others[:, :3].any(), "a row above knew"
            assert not others[:, 3, :5].any(), "a position before, or one of the group, knew"
            assert others[group.first : group.last].any()
            if group.last < VALUES:
                assert differs[group.last :, 2:5, 3:6].any()


def test_what_is_not_kept_costs_nothing_and_says_nothing(net: ValueNet) -> None:
    w, kept, levels = content()
    kept[:, 4:7] = 0
    with torch.no_grad():
        found = net(w, kept, levels)
        assert not found[:, 4:7].any()
        assert (found[:, :4] > 0).all()
        w[:, 4:7] += 9
        assert torch.equal(net(w, kept, levels), found)


def test_noise_is_around_the_value_and_the_interval_around_none(net: ValueNet) -> None:
    w, kept, levels = content()
    with torch.no_grad():
        exact = net(w, kept, levels)
        assert torch.equal(net(w, kept, levels, w.round() - w), exact)
        assert not torch.equal(net(w, kept, levels, torch.zeros_like(w)), exact)


def test_the_price_falls_towards_what_is_likely(net: ValueNet) -> None:
    w, kept, levels = content()
    w[:, 0] = 40.0
    w.requires_grad_()
    net(w, kept, levels, torch.zeros_like(w)).sum().backward()
    assert w.grad is not None
    assert (w.grad[:, 0] > 0).all()
    assert torch.isfinite(w.grad).all()


# ---- In the loss of the codec ---------------------------------------------------------------


def test_the_rate_is_that_of_values_per_pixel() -> None:
    task = CodecTask(UNIFORM, Recipe(rate_model="values"))
    assert task.values is not None
    assert task.network.planes is not None
    raw = torch.randn(2, task.network.planes.values, 4, 5)
    p, scale = torch.full((2, 1, 4, 5), 0.5), torch.tensor([0.5, 2.0])
    rate = task._valued_bpp(raw, p, scale, noisy=False)
    levels = torch.tensor([2, 8])[:, None, None].expand(2, 4, 5)
    w, kept = task.network.planes.intervals(raw, levels, LEVELS)
    torch.testing.assert_close(rate, task.values(w, kept, levels).sum((1, 2, 3)) / (64 * 20))


def test_signs_have_no_values(tiny: ModelConfig) -> None:
    with pytest.raises(TrainingError, match="use rate_model='context' or a model of bit planes$"):
        CodecTask(tiny, Recipe(rate_model="values"))
    task = CodecTask(UNIFORM, Recipe())
    with pytest.raises(TrainingError, match="; use rate_model='values'$"):
        task._valued_bpp(
            torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1), noisy=True
        )


def test_a_run_learns_and_goes_on(tmp_path: Path, train: Train) -> None:
    options = {"config": UNIFORM, "rate_model": "values", "rate_weight": 90.0, "batch": 4, **FAST}
    train(tmp_path / "whole", steps=24, validate_every=12, cooldown=0.0, **options)
    losses = list(validation_losses(tmp_path / "whole").values())
    assert losses[1] < losses[0]
    train(tmp_path / "part", steps=12, validate_every=12, cooldown=0.0, **options)
    state = tmp_path / "part" / "last.ckpt"
    train(tmp_path / "part", steps=24, validate_every=12, cooldown=0.0, resume=state, **options)
    assert same(tmp_path / "whole", tmp_path / "part")
    facts = load_checkpoint(tmp_path / "whole" / "last.safetensors")
    assert not any("groups" in name for name in facts.tensors), "the price is not the release's"


def test_the_entropy_stage_knows_the_digits(photos: Photos) -> None:
    torch.manual_seed(3)
    network = CodecNetwork(UNIFORM).eval()
    start = Checkpoint(UNIFORM, network.state_dict(), {"stage": "importance"})
    paths = photos.train_paths, photos.valid_paths
    release, report = fit_entropy_model(start, *paths, steps=2, batch=1, hidden=8)
    assert network.planes is not None
    assert release.entropy["planes.values"].tolist() == list(network.planes.schedule.value)
    assert 0 < report.bits_per_code < 1
