"""The network that predicts values: causal, differentiable, and the same as its integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cwic import value_network
from cwic.scan import PASSES
from cwic.value_model import ValueModel
from cwic_training import value_context
from cwic_training.symbol_fit import feature_table, logistic_table
from cwic_training.value_context import ValueContext

SIZES = (1, 2, 3)
FIRST_LEVELS = (1, 1, 3)
LEVELS, HIDDEN = 5, 6
N = sum(SIZES)
CHANNELS = [np.arange(sum(SIZES[:g]), sum(SIZES[: g + 1])).tolist() for g in range(len(SIZES))]


def make_net(spread: float = 1.0) -> ValueContext:
    """Random weights, of every part; with more spread more is clipped and saturated."""
    torch.manual_seed(0)
    net = ValueContext(SIZES, LEVELS, HIDDEN)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            by = 0.02 if name.endswith("line") else 0.2
            parameter.add_(torch.randn_like(parameter) * by * spread)
    return net


def content(
    size: tuple[int, int] = (9, 11), count: int = 1, spread: float = 2.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Values and which are kept [N, n, h, w], and levels [N, h, w] of every height."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, LEVELS + 1, (count, *size), generator=generator)
    first = torch.tensor(FIRST_LEVELS).repeat_interleave(torch.tensor(SIZES)).view(1, -1, 1, 1)
    kept = (levels[:, None] >= first).float()
    q = torch.randn((count, N, *size), generator=generator).mul(spread).round().clamp(-127, 127)
    return q * kept, kept, levels


def model_of(net: ValueContext) -> ValueModel:
    tables: dict[str, NDArray[Any]] = {
        **net.integers(),
        "values.sizes": np.array(SIZES, np.uint16),
        "values.first_levels": np.array(FIRST_LEVELS, np.uint8),
        "values.steps": np.array([0, 4, 3, 2, 1, 0.5], np.float32),
        "values.bits": np.arange(LEVELS + 1, dtype=np.float32),
        "values.features": feature_table(),
        "values.cumulative": logistic_table(),
    }
    return ValueModel(tables, N, LEVELS)


def as_bytes(q: Tensor, levels: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Of the first picture, as the coder takes them."""
    return (q[0] + 128).numpy().astype(np.uint8), levels[0].numpy().astype(np.uint8)


def coding_order(kept: Tensor) -> list[list[tuple[int, int]]]:
    """(channel, flat position) of the kept values of one picture, pass by pass."""
    flat = kept.flatten(1).bool()
    passes = []
    for channels in CHANNELS:
        for scan in PASSES:
            positions = scan.positions(*kept.shape[1:]).tolist()
            passes.append([(c, p) for p in positions for c in channels if flat[c, p]])
    return passes


# ---- Cost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 11), (18, 33)])
def test_only_what_is_kept_costs(size: tuple[int, int]) -> None:
    q, kept, levels = content(size, 2)
    cost = make_net()(q, kept, levels)
    assert cost.shape == q.shape
    assert (cost[kept == 0] == 0).all()
    assert (cost[kept == 1] > 0).all()


def test_pictures_of_a_batch_are_coded_by_themselves() -> None:
    q, kept, levels = content(count=3)
    net = make_net()
    alone = [net(q[i : i + 1], kept[i : i + 1], levels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(net(q, kept, levels), torch.cat(alone))


@pytest.mark.parametrize("size", [(9, 11), (20, 18)])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_value_changes_only_what_is_coded_in_later_passes(
    size: tuple[int, int], quantised: bool
) -> None:
    q, kept, levels = content(size)
    net = make_net()
    net.quantised = quantised
    passes = coding_order(kept[0])
    with torch.inference_mode():
        before = net(q, kept, levels)
        influence = 0
        for number, coded in enumerate(passes):
            if not coded:
                continue
            channel, position = coded[len(coded) // 2]
            changed = q.clone()
            changed[0, channel].view(-1)[position] += 9
            differs = (net(changed, kept, levels) - before).abs() > 1e-6
            allowed = {(channel, position)}.union(*passes[number + 1 :])
            found = {(c, y * size[1] + x) for _, c, y, x in differs.nonzero().tolist()}
            assert found <= allowed
            assert (channel, position) in found
            influence += len(found) > 1
        assert influence > 10, "nobody looks at these values"


def test_every_known_neighbour_is_seen() -> None:
    """A value in the middle changes its group's later neighbours, and later groups around."""
    q, _, _ = content((17, 17))
    levels, kept = torch.full((1, 17, 17), LEVELS), torch.ones_like(q)
    net = make_net(0.3)
    changed = q.clone()
    changed[0, 1, 8, 8] += 20
    with torch.inference_mode():
        differs = (net(changed, kept, levels) != net(q, kept, levels))[0]
    wanted = {(8, 8)}
    for scan in PASSES:
        for position in scan.positions(17, 17).tolist():
            y, x = divmod(position, 17)
            if any((y + dy, x + dx) == (8, 8) for dy, dx in scan.offsets):
                wanted.add((y, x))
    own = {(y, x) for y, x in differs[1].nonzero().tolist()}
    assert own == wanted
    assert len(own) > 40
    assert not differs[0].any(), "an earlier group"
    around = {(y, x) for y in (7, 8, 9) for x in (7, 8, 9)}
    assert {(y, x) for y, x in differs[3:].any(0).nonzero().tolist()} == around


# ---- Learning -------------------------------------------------------------------------------


@pytest.mark.parametrize("quantised", [False, True])
def test_every_weight_learns(quantised: bool) -> None:
    q, kept, levels = content((20, 18), 2)
    net = make_net()
    net.quantised = quantised
    net(q, kept, levels).sum().backward()
    for name, parameter in net.named_parameters():
        if not parameter.numel():
            continue  # the first group has no earlier values
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_the_gradient_is_that_of_the_cost() -> None:
    """In float64, along some directions of all weights together."""
    q, kept, levels = content((7, 9))
    net = make_net(0.3).double()
    weight = torch.rand(q.shape, dtype=torch.float64)

    def total() -> Tensor:
        return (net(q.double(), kept.double(), levels) * weight).sum()

    parameters = [p for p in net.parameters() if p.numel()]
    gradients = torch.autograd.grad(total(), parameters)
    step = 1e-6
    for seed in range(4):
        torch.manual_seed(seed)
        directions = [torch.randn_like(p) for p in parameters]
        found = []
        for by in (step, -2 * step):
            with torch.no_grad():
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(by * direction)
                found.append(float(total()))
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(step * direction)
        wanted = (found[0] - found[1]) / (2 * step)
        own = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        assert own == pytest.approx(wanted, rel=1e-4)


def planted(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Value 1 repeats value 0; 2 is smooth; 3 is 0 but at level 5; the others are noise."""
    rng = np.random.default_rng(seed)
    q = rng.integers(-3, 4, (4, N, 18, 18)).astype(np.float32)
    q[:, 1] = q[:, 0]
    coarse = torch.from_numpy(rng.uniform(-30, 30, (4, 1, 4, 4)).astype(np.float32))
    q[:, 2] = F.interpolate(coarse, (18, 18), mode="bilinear")[:, 0].round().numpy()
    levels = rng.integers(3, LEVELS + 1, (4, 18, 18))
    q[:, 3] = rng.integers(-20, 21, levels.shape) * (levels == 5)
    return torch.from_numpy(q), torch.ones(q.shape), torch.from_numpy(levels)


def test_what_predicts_a_value_is_found() -> None:
    """In the group before, around and in the level; noise costs what it must, and little more."""
    torch.manual_seed(0)
    net = ValueContext(SIZES, LEVELS, 16)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(250):
        net.quantised = step >= 200
        loss = net(*planted(step)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    with torch.inference_mode():
        cost = net(*planted(1000)).mean((0, 2, 3)).tolist()
    noise = np.log2(7)
    assert noise - 0.1 < cost[0] < noise + 0.4
    assert cost[1] < 1.3, "the same value of the group before"
    assert cost[2] < 3.8, "of log2(40) bits, in what is around"
    assert cost[3] < 2.6, "of log2(41) bits at one level of three"
    assert noise - 0.1 < min(cost[4:]) <= max(cost[4:]) < noise + 0.4


# ---- Integers -------------------------------------------------------------------------------


def predictions(
    net: ValueContext, monkeypatch: pytest.MonkeyPatch, parts: tuple[Tensor, Tensor, Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and place of the scale of every value of one picture, [n, h w]."""
    made: list[tuple[Tensor, Tensor]] = []
    inner = value_context.interval_bits

    def watched(value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        made.append((mean, log_scale))
        return inner(value, mean, log_scale)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(value_context, "interval_bits", watched)
        net(*parts)
    height, width = parts[2].shape[1:]
    found = np.empty((2, N, height * width))
    at = iter(made)
    for scan in PASSES:
        positions = scan.positions(height, width)
        if len(positions):
            whole = [torch.cat(both, 1) for both in zip(*(next(at) for _ in SIZES), strict=True)]
            for row, values in zip(found, whole, strict=True):
                row[:, positions] = values.double().numpy().T
    return found[0], (found[1] - np.log(0.05)) / np.log(1.108)


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("size", "values"), [((9, 11), 2.0), ((20, 35), 2.0), ((20, 35), 60.0)])
def test_quantised_is_exactly_the_integers(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], values: float, spread: float
) -> None:
    """Every value is coded with the row and the centre that its mean and scale lead to."""
    net = make_net(spread)
    net.quantised = True
    q, kept, levels = parts = content(size, spread=values)
    mean, place = predictions(net, monkeypatch, parts)
    eighths = np.rint(8 * mean).astype(int)
    assert np.allclose(eighths / 8, mean)
    rows = 8 * np.rint(place).astype(int) + eighths % 8
    centres = np.clip(eighths // 8, -127, 127)
    made: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    inner = value_network.GroupNetwork.predicted

    def watched(self: Any, *arguments: Any) -> Any:
        made.append(inner(self, *arguments))
        return made[-1]

    monkeypatch.setattr(value_network.GroupNetwork, "predicted", watched)
    model_of(net).encode(*as_bytes(q, levels))
    order = [place for part in coding_order(kept[0]) for place in part]
    found_rows = np.concatenate([part.reshape(-1) for part, _ in made])
    found_centres = np.concatenate([part.reshape(-1) for _, part in made])
    assert len(order) == len(found_rows) == int(kept.sum())
    assert found_rows.tolist() == [int(rows[at]) for at in order]
    assert found_centres.tolist() == [int(centres[at]) for at in order]
    assert len(set(found_rows.tolist())) > 10


@pytest.mark.parametrize("size", [(9, 11), (20, 35)])
@pytest.mark.parametrize("values", [0.3, 2.0, 8.0])
def test_quantised_costs_what_the_coder_pays(size: tuple[int, int], values: float) -> None:
    """Up to the grid of the table, at each position."""
    net = make_net(0.5)
    # Scales as of such values: those far from likely are told apart from others, at a price.
    place = np.log(0.55 * values / 0.05) / np.log(1.108)
    with torch.no_grad():
        for group in net.groups:
            group.last_bias[group.size :] = (place - 32) / 8
    net.quantised = True
    q, kept, levels = content(size, spread=values)
    with torch.inference_mode():
        cost = net(q, kept, levels)[0].sum(0)
    model = model_of(net)
    data = as_bytes(q, levels)
    made = model.encode(*data)
    paid = model.position_bits(*data)
    assert paid.sum() == pytest.approx(made.bits, rel=1e-6)
    assert float(cost.sum()) == pytest.approx(made.bits, rel=0.01)
    assert np.abs(paid - cost.numpy().reshape(-1)).mean() < 0.03 * paid.mean()


def test_quantised_is_near_what_it_rounds() -> None:
    net = make_net(0.5)
    parts = content((20, 35))
    with torch.inference_mode():
        smooth = net(*parts)
        net.quantised = True
        rough = net(*parts)
    assert not torch.equal(smooth, rough)
    assert float(rough.sum()) == pytest.approx(float(smooth.sum()), rel=0.05)


def test_the_widest_network_stays_exact() -> None:
    """The limits of the integers keep every sum below 2^24, whatever was learnt."""
    net = ValueContext((9, 21, 30, 36, 45, 51), 255, 256)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e9)
    integers = net.integers()
    for g, size in enumerate(net.sizes):
        assert integers[f"values.{g}.own"].max() == 127
        tensors = {
            name: array for name, array in integers.items() if name.startswith(f"values.{g}.")
        }
        tensors["values.features"] = feature_table()
        value_network.GroupNetwork(tensors, g, size)


def test_integers_have_the_forms_that_the_runtime_takes() -> None:
    net = make_net()
    first = net.groups[1]
    with torch.no_grad():
        first.own[0, 0, 0] = 100.0
        first.line[0, 0, 0] = -100.0
        first.level[0, 0] = 1e9
        first.last_bias[0] = -1e9
    integers = net.integers()
    model_of(net)
    assert integers["values.1.own"][0, 0, 0] == 127
    assert integers["values.1.line"][0, 0, 0] == -127
    assert integers["values.1.level"][0, 0] == 1 << 15
    assert integers["values.1.last_bias"][0] == -(1 << 20)
