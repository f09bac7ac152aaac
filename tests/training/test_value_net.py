"""The price of values: a proper code, causal, smooth, and felt by the codec."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.training.conftest import VALUES
from tests.training.runs import Train, same, validation_losses
from torch import Tensor

from cwic.errors import TrainingError
from cwic_training import losses
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.recipe import Recipe
from cwic_training.task import VALUES_VALIDATION_SCALES, CodecTask
from cwic_training.value_net import ValueNet, interval_bits

SIZES, LEVELS = (1, 2, 2, 2, 2, 4), 8
COUNT = sum(SIZES)


@pytest.fixture
def net() -> ValueNet:
    """With weights that let everything that is known matter."""
    torch.manual_seed(1)
    found = ValueNet(SIZES, LEVELS, 16)
    with torch.no_grad():
        found.level.weight.normal_()
        for group in found.groups:
            group.predicted.weight.normal_(std=0.3)
    return found


def content(count: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Values, ones and levels."""
    torch.manual_seed(2)
    w = 3 * torch.randn(count, COUNT, 7, 9)
    return w, torch.ones_like(w), torch.randint(0, LEVELS + 1, (count, 7, 9))


def test_all_intervals_together_are_as_likely_as_can_be(net: ValueNet) -> None:
    """Of one value, given all that is known before: probabilities sum to 1."""
    w, kept, levels = content(1)
    total = torch.zeros(COUNT)
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
            if group.last < COUNT:
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


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.4, 7.0])
@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (2.5, 0.3), (-4.0, 20.0)])
def test_bits_of_an_interval_by_hand(value: float, mean: float, scale: float) -> None:
    def below(x: float) -> float:
        return 1 / (1 + math.exp(-(x - mean) / scale))

    bits = interval_bits(torch.tensor(value), torch.tensor(mean), torch.tensor(math.log(scale)))
    share = below(value + 0.5) - below(value - 0.5)
    assert float(bits) == pytest.approx(-math.log2(share), rel=1e-3)


# ---- In the loss of the codec ---------------------------------------------------------------

RECIPE = Recipe(rate_model="values", rate_weight=253.0, scale_min=0.15, scale_max=2.0)


def _task(recipe: Recipe = RECIPE) -> CodecTask:
    torch.manual_seed(0)
    return CodecTask(VALUES, recipe)


def _picture(photo: NDArray[np.uint8]) -> Tensor:
    cuts = np.stack([photo[200:264, 300:396], photo[100:164, 100:196]])
    return torch.from_numpy(cuts).permute(0, 3, 1, 2).float() / 255


def test_groups_are_those_of_the_quantiser() -> None:
    task = _task()
    assert task.values is not None
    assert task.network.quantiser is not None
    sizes = tuple(group.last - group.first for group in task.values.groups)
    assert sizes == task.network.quantiser.sizes
    names = {name.split(".", 2)[-1] for name in task.values.state_dict() if "groups.1" in name}
    parts = ("own", "earlier", "middle", "predicted")
    assert names == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert task.values.level.weight.shape == (VALUES.levels + 1, 6 * 96)


def test_the_rate_is_that_of_numbers_per_pixel(photo: NDArray[np.uint8]) -> None:
    task = _task().eval()
    x, scale = _picture(photo), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        coded = task.network(x, scale)
        codes, levels = task._bpp(coded, scale, training=False)
        assert task.values is not None
        bits = task.values(coded.codes.round(), coded.kept, coded.levels)
    torch.testing.assert_close(codes, bits.sum((1, 2, 3)) / (64 * 96))
    assert codes[0] < codes[1]
    assert torch.equal(levels, losses.level_bpp(coded.p, scale, VALUES.levels))


def test_training_prices_noisy_values(photo: NDArray[np.uint8]) -> None:
    """The gradient of the rate reaches values and the map; the noise is that of the step."""
    task = _task()
    task._trainer = SimpleNamespace(global_step=3)  # type: ignore[assignment]
    x, scale = _picture(photo), torch.tensor([0.5, 2.0])
    coded = task.network(x, scale)
    coded.codes.retain_grad()
    noisy, _ = task._bpp(coded, scale, training=True)
    exact, _ = task._bpp(coded, scale, training=False)
    assert not torch.equal(noisy, exact)
    assert torch.equal(noisy, task._bpp(coded, scale, training=True)[0])
    noisy.sum().backward()
    assert coded.codes.grad is not None
    assert coded.codes.grad.any()
    assert not coded.codes.grad[coded.kept == 0].any()
    map_gradient = task.network.importance.conv3.weight.grad  # type: ignore[union-attr]
    assert isinstance(map_gradient, Tensor)
    assert map_gradient.any()


@pytest.mark.parametrize("scale", [0.2, 1.0, 1.9])
def test_the_loss_by_hand(scale: float) -> None:
    step = 4.4 * 2 ** (-5.4 * (scale * VALUES.levels / 2 - 1) / (VALUES.levels - 1))
    price = 253 * step**2
    found = _task()._loss(torch.tensor([80.0]), torch.tensor([0.3]), torch.tensor([scale]))
    assert float(found) == pytest.approx((80 + price * 0.3) / math.sqrt(price), rel=1e-5)


@pytest.mark.parametrize("kind", ["values", "signs"])
def test_rate_factors_are_uniform_for_values(tiny: ModelConfig, kind: str) -> None:
    task = _task() if kind == "values" else CodecTask(tiny, replace(RECIPE, rate_model="count"))
    task._trainer = SimpleNamespace(global_step=0)  # type: ignore[assignment]
    scales = task._scales(4000)
    assert scales is not None
    assert 0.15 <= scales.min() < 0.16
    assert 1.9 < scales.max() <= 2
    middle = 0.5 * (0.15 + 2) if kind == "values" else math.sqrt(0.15 * 2)
    assert float(scales.median()) == pytest.approx(middle, rel=0.05)


def test_a_task_without_a_price_is_refused(tiny: ModelConfig) -> None:
    with pytest.raises(TrainingError, match="; use --rate-model context, or --model nano$"):
        CodecTask(tiny, RECIPE)
    for rate_model in ("count", "context"):
        with pytest.raises(TrainingError, match="; use --rate-model values$"):
            _task(replace(RECIPE, rate_model=rate_model))
    with pytest.raises(TrainingError, match="; use stage importance$"):
        _task(Recipe(stage="main"))


OPTIONS: dict[str, Any] = {
    "config": VALUES,
    "rate_model": "values",
    "rate_weight": 253.0,
    "batch": 4,
    "scale_min": 0.15,
    "scale_max": 2.0,
    "steps": 24,
    "validate_every": 12,
    "cooldown": 0.0,
    "muon_lr": 0.02,
    "adam_lr": 0.02,
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_learns_and_goes_on(tmp_path: Path, train: Train, precision: str) -> None:
    options = {**OPTIONS, "precision": precision}
    train(tmp_path / "whole", **options)
    found = list(validation_losses(tmp_path / "whole").values())
    assert found[1] < found[0]
    train(tmp_path / "part", **{**options, "steps": 12})
    state = tmp_path / "part" / "last.ckpt"
    kept = torch.load(state, weights_only=True)["state_dict"]
    assert kept["values.level.weight"].any()  # it begins at 0
    train(tmp_path / "part", resume=state, **options)
    assert same(tmp_path / "whole", tmp_path / "part")
    last = load_checkpoint(tmp_path / "whole" / "last.safetensors")
    assert not any("groups" in name for name in last.tensors), "the price is not the release's"
    logged = last.training["validation"]
    assert logged.keys() == {"val/loss"} | {
        f"val/{what}_{s:g}" for what in ("psnr", "bpp") for s in VALUES_VALIDATION_SCALES
    }
    rates = [logged[f"val/bpp_{s:g}"] for s in VALUES_VALIDATION_SCALES]
    assert rates == sorted(rates)


def test_the_codec_learns_and_not_only_its_price(tmp_path: Path, train: Train) -> None:
    """From a start that is no DCT any more: that one is hard to better in a few steps."""
    torch.manual_seed(0)
    network = CodecNetwork(VALUES)
    with torch.no_grad():
        network.synthesis[1].weight.add_(torch.randn(VALUES.width, VALUES.n), alpha=0.1)
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, Checkpoint(VALUES, network.state_dict(), {}))
    found = []
    for rates in ({}, {"muon_lr": 0.0, "adam_lr": 0.0}):
        folder = tmp_path / f"run{len(found)}"
        train(folder, initial=start, **{**OPTIONS, "crop": 64, **rates})
        found.append(validation_losses(folder)[24])
    assert found[0] < 0.9 * found[1]
