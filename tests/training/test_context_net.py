"""The context network: causal, differentiable, and the same as its integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cwic.context import LOGITS, CodeModel
from cwic.entropy_model import ContextModel
from cwic.errors import TrainingError
from cwic.layers import STAGES
from cwic.level_model import Intervals, level_contexts
from cwic.scan import PASSES
from cwic_training import losses, ops
from cwic_training.config import ModelConfig
from cwic_training.context_net import ContextNet
from cwic_training.model import Coded
from cwic_training.pass_tensors import pass_tensors
from cwic_training.recipe import Recipe
from cwic_training.symbol_fit import sigmoid_table
from cwic_training.task import CodecTask

HIDDEN = 6


def make_net(tiny: ModelConfig, spread: float = 1.0) -> ContextNet:
    """Random weights, of every part; with more spread more is clipped and saturated."""
    torch.manual_seed(0)
    net = ContextNet(tiny, HIDDEN)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3 * spread)
    return net


def content(
    tiny: ModelConfig, size: tuple[int, int] = (9, 11), count: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Bits and mask [N, n, h, w] and levels [N, h, w], levels of every height."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (count, tiny.n, *size), generator=generator).float()
    levels = torch.randint(0, tiny.levels + 1, (count, *size), generator=generator)
    group = torch.arange(tiny.n).view(1, -1, 1, 1) // (tiny.n // tiny.levels)
    return bits, (group < levels[:, None]).float(), levels


def code_model(net: ContextNet, p1: NDArray[np.uint16]) -> CodeModel:
    tensors: dict[str, NDArray[Any]] = {**net.integers(), "codes.p1": p1}
    return CodeModel(tensors, net.n, net.levels)


def coding_order(levels: Tensor, group: int) -> list[list[tuple[int, int]]]:
    """(channel, flat position) of the kept bits of one picture, pass by pass."""
    flat, size = levels.reshape(-1).tolist(), tuple(levels.shape)
    passes = []
    for g in range(max(flat)):
        for scan in PASSES:
            kept = [p for p in scan.positions(*size).tolist() if flat[p] > g]
            passes.append([(g * group + j, p) for p in kept for j in range(group)])
    return passes


# ---- Cost -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 11), (18, 33)])
def test_masked_codes_cost_nothing(tiny: ModelConfig, size: tuple[int, int]) -> None:
    bits, mask, levels = content(tiny, size, 2)
    net = make_net(tiny)
    cost = net(bits, mask, levels)
    assert cost.shape == bits.shape
    assert (cost[mask == 0] == 0).all()
    assert (cost[mask == 1] > 0).all()
    noise = bits + (1 - mask) * 0.7
    assert torch.equal(net(noise, mask, levels), cost)


def test_a_network_that_knows_nothing_takes_a_bit_per_code(tiny: ModelConfig) -> None:
    bits, mask, levels = content(tiny)
    net = make_net(tiny)
    with torch.no_grad():
        net.last.zero_()
        net.last_bias.zero_()
    torch.testing.assert_close(net(bits, mask, levels), mask)


def test_pictures_of_a_batch_are_coded_by_themselves(tiny: ModelConfig) -> None:
    bits, mask, levels = content(tiny, count=3)
    net = make_net(tiny)
    alone = [net(bits[i : i + 1], mask[i : i + 1], levels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(net(bits, mask, levels), torch.cat(alone))


@pytest.mark.parametrize("size", [(9, 11), (20, 18)])
@pytest.mark.parametrize("quantised", [False, True])
def test_a_bit_changes_only_what_is_coded_in_later_passes(
    tiny: ModelConfig, size: tuple[int, int], quantised: bool
) -> None:
    bits, mask, levels = content(tiny, size)
    net = make_net(tiny, 0.3)
    net.quantised = quantised
    passes = coding_order(levels[0], 2)
    with torch.inference_mode():
        before = net(bits, mask, levels)
        influence = 0
        for number in range(0, len(passes), 5):
            if not passes[number]:
                continue
            channel, position = passes[number][len(passes[number]) // 2]
            changed = bits.clone()
            changed[0, channel, position // size[1], position % size[1]] = (
                1 - bits[0, channel, position // size[1], position % size[1]]
            )
            differs = (net(changed, mask, levels) - before).abs() > 1e-6
            allowed = {(channel, position)}.union(*passes[number + 1 :])
            found = {(c, y * size[1] + x) for _, c, y, x in differs.nonzero().tolist()}
            assert found <= allowed
            assert (channel, position) in found
            influence += len(found) > 1
        assert influence > 5, "nobody looks at these bits"


def test_every_known_neighbour_is_seen(tiny: ModelConfig) -> None:
    """A bit in the middle changes its group's later neighbours, and later groups in place."""
    bits, _, _ = content(tiny, (17, 17))
    levels = torch.full((1, 17, 17), tiny.levels)
    mask = torch.ones_like(bits)
    net = make_net(tiny, 0.1)
    with torch.no_grad():  # so that no activation is clipped
        net.level.add_(4)
        net.middle_bias.add_(4)
        net.middle.div_(4)
    changed = bits.clone()
    changed[0, 0, 8, 8] = 1 - bits[0, 0, 8, 8]
    with torch.inference_mode():
        differs = (net(changed, mask, levels) != net(bits, mask, levels))[0]
    wanted = {(8, 8)}
    for scan in PASSES:
        for position in scan.positions(17, 17).tolist():
            y, x = divmod(position, 17)
            if any((y + dy, x + dx) == (8, 8) for dy, dx in scan.offsets):
                wanted.add((y, x))
    own = {(y, x) for y, x in differs[:2].any(0).nonzero().tolist()}
    assert own == wanted
    assert len(own) > 40
    assert {(y, x) for y, x in differs[2:].any(0).nonzero().tolist()} == {(8, 8)}
    assert differs[2:, 8, 8].sum() > 8


# ---- Gradients ------------------------------------------------------------------------------


def test_gradients_of_bits_are_those_of_the_cost(tiny: ModelConfig) -> None:
    """In float64, against differences; as what is predicted and as what predicts."""
    bits, mask, levels = content(tiny, (5, 6))
    bits = (0.2 + 0.6 * torch.rand(bits.shape, dtype=torch.float64)).requires_grad_()
    mask, net = mask.double(), make_net(tiny, 0.3).double()
    weight = torch.rand_like(bits)
    (gradient,) = torch.autograd.grad((net(bits, mask, levels) * weight).sum(), bits)
    step = 1e-6
    directions = torch.randn(4, *bits.shape, dtype=torch.float64)
    for direction in directions:
        ahead, behind = (
            (net(bits + s * direction, mask, levels) * weight).sum().item() for s in (step, -step)
        )
        wanted = (ahead - behind) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(wanted, rel=1e-5)


def test_a_bit_has_a_gradient_as_target_and_as_context(tiny: ModelConfig) -> None:
    bits, mask, levels = content(tiny)
    levels, mask = torch.full_like(levels, tiny.levels), torch.ones_like(mask)
    bits.requires_grad_()
    cost = make_net(tiny, 0.3)(bits, mask, levels)
    own = torch.autograd.grad(cost[0, 0, 0, 0], bits, retain_graph=True)[0]
    assert own[0, 0, 0, 0] != 0, "the first bit of all has no context"
    assert (own != 0).sum() == 1
    others = torch.autograd.grad(cost.sum() - cost[0, 0, 0, 0], bits)[0]
    assert others[0, 0, 0, 0] != 0


def test_masked_bits_get_no_gradient(tiny: ModelConfig) -> None:
    bits, mask, levels = content(tiny)
    bits.requires_grad_()
    make_net(tiny, 0.3)(bits, mask, levels).sum().backward()
    assert bits.grad is not None
    assert (bits.grad[mask == 0] == 0).all()
    assert (bits.grad[mask == 1] != 0).float().mean() > 0.9


def test_the_gradient_of_the_mask_is_the_price_of_the_code(tiny: ModelConfig) -> None:
    """Also of codes that are left out: what they would cost. None through what others see."""
    bits, mask, levels = content(tiny)
    mask.requires_grad_()
    net = make_net(tiny, 0.3)
    cost = net(bits, mask, levels)
    cost.sum().backward()
    assert mask.grad is not None
    torch.testing.assert_close(mask.grad * mask, cost)
    assert (mask.grad > 0).all()


@pytest.mark.parametrize("quantised", [False, True])
def test_every_weight_learns(tiny: ModelConfig, quantised: bool) -> None:
    bits, mask, levels = content(tiny, (20, 18))
    net = make_net(tiny, 0.3)
    net.quantised = quantised
    net(bits, mask, levels).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
    assert net.earlier.grad is not None
    later = net.allowed[:, :, 0] == 0
    assert (net.earlier.grad[later] == 0).all(), "a group looks at itself or at later ones"
    assert (net.earlier.grad[~later] != 0).any(-1).all()


# ---- Integers -------------------------------------------------------------------------------


def logits(
    net: ContextNet, monkeypatch: pytest.MonkeyPatch, parts: tuple[Tensor, Tensor, Tensor]
) -> NDArray[np.float64]:
    """Of all bits of one picture, [n, h w]."""
    made: list[Tensor] = []
    inner = ContextNet._logits

    def watched(self: ContextNet, *arguments: Any) -> Tensor:
        made.append(inner(self, *arguments))
        return made[-1]

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(ContextNet, "_logits", watched)
        net(*parts)
    height, width = parts[2].shape[1:]
    order = np.concatenate([scan.positions(height, width) for scan in PASSES])
    found = np.empty((net.n, height * width))
    found[:, order] = torch.cat(made).double().numpy().T
    return found


@pytest.mark.parametrize("spread", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("size", [(9, 11), (20, 35)])
def test_quantised_is_exactly_the_integers(
    tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], spread: float
) -> None:
    """Every logit leads to the entry of the table that the integers look up."""
    net = make_net(tiny, spread)
    net.quantised = True
    bits, mask, levels = parts = content(tiny, size)
    whole = np.floor(logits(net, monkeypatch, parts) * 32 + 0.5).clip(-384, 383) + LOGITS // 2
    # A table that never repeats tells the index from the probability.
    model = code_model(net, (1 + 85 * np.arange(LOGITS)).astype(np.uint16))
    codes = np.packbits(bits[0].numpy().astype(np.uint8), axis=0)
    made = model.encode(codes, levels[0].numpy().astype(np.uint8))
    order = [place for part in coding_order(levels[0], 2) for place in part]
    assert len(made.freqs) == len(order) == mask.sum()
    wanted = [whole[place] for place in order]
    ones = [bool(bits[0].reshape(net.n, -1)[place]) for place in order]
    p1 = np.where(ones, made.freqs.astype(int), 65536 - made.freqs.astype(int))
    assert ((p1 - 1) / 85).tolist() == wanted


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_quantised_costs_what_the_coder_pays(
    tiny: ModelConfig, spread: float, progressive: bool
) -> None:
    """Up to the grid of the table; in plain order in each group."""
    net = make_net(tiny, spread)
    net.quantised = True
    bits, mask, levels = content(tiny, (20, 35))
    rows = np.full((level_contexts(tiny.levels), tiny.levels + 1), 65536 // (tiny.levels + 1))
    rows[:, 0] += 65536 - rows.sum(1)
    tensors: dict[str, NDArray[Any]] = {**net.integers(), "codes.p1": sigmoid_table()}
    tensors["levels.frequencies"] = rows.astype(np.uint16)
    model = ContextModel(tensors, net.n, net.levels)
    codes = np.packbits(bits[0].numpy().astype(np.uint8), axis=0)
    made = model.encode(codes, levels[0].numpy().astype(np.uint8), progressive=progressive)
    with torch.inference_mode():
        cost = net(bits, mask, levels, progressive=progressive)
    if progressive:
        chosen = levels[0].numpy().astype(np.uint8)
        parts = [part for k in range(len(STAGES)) for part in model.levels.encode_stage(chosen, k)]
        paid = made.codes.bits + made.levels.bits - Intervals.joined(parts).bits
        assert float(cost.sum()) == pytest.approx(paid, rel=0.005)
        return
    by_group = cost.reshape(tiny.levels, -1).sum(1).numpy()
    symbols = 16 - np.log2(made.codes.freqs.astype(float))
    counts = [2 * int((levels > g).sum()) for g in range(tiny.levels)]
    paid_by_group = [part.sum() for part in np.split(symbols, np.cumsum(counts)[:-1])]
    np.testing.assert_allclose(by_group, paid_by_group, rtol=0.01)


def test_quantised_is_near_what_it_rounds(tiny: ModelConfig) -> None:
    net = make_net(tiny, 0.2)
    parts = content(tiny, (20, 35))
    with torch.inference_mode():
        smooth = net(*parts)
        net.quantised = True
        rough = net(*parts)
    assert not torch.equal(smooth, rough)
    assert float(rough.sum()) == pytest.approx(float(smooth.sum()), rel=0.05)


def test_integers_have_the_forms_that_the_runtime_takes(tiny: ModelConfig) -> None:
    net = make_net(tiny)
    with torch.no_grad():
        net.own[0, 0, 0, 0] = 100.0
        net.middle[0, 0, 0] = -100.0
        net.level[0, 0, 0] = 1e9
        net.last_bias[0, 0] = -1e9
    integers = net.integers()
    code_model(net, sigmoid_table())
    assert integers["codes.own"][0, 0, 0, 0] == 127
    assert integers["codes.middle"][0, 0, 0] == -127
    assert integers["codes.level"][0, 0, 0] == 1 << 15
    assert integers["codes.last_bias"][0, 0] == -(1 << 20)
    for g in range(tiny.levels):
        assert not integers["codes.earlier"][g, 2 * g :].any()
        assert not g or integers["codes.earlier"][g, : 2 * g].any()


def test_the_widest_network_stays_exact(tiny: ModelConfig) -> None:
    """The limits of the integers keep every sum below 2^24, whatever was learnt."""
    net = ContextNet(ModelConfig(n=128, levels=16), 256)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e9)
    code_model(net, sigmoid_table())


# ---- In the loss of the codec ---------------------------------------------------------------


def test_the_coded_rate_is_the_cost_per_pixel(tiny: ModelConfig) -> None:
    task = CodecTask(tiny, Recipe(rate_model="context"))
    assert task.context is not None
    bits, _, _ = content(tiny, count=2)
    levels = torch.randint(0, tiny.levels + 1, (2, 9, 11))
    mask = (torch.arange(16).view(1, -1, 1, 1) < 2 * levels[:, None]).float()
    rate = task._coded_bpp(bits, mask, levels)
    cost = task.context(bits, mask, levels)
    torch.testing.assert_close(rate, cost.sum((1, 2, 3)) / (64 * 9 * 11))


@pytest.mark.parametrize("count", [1, 4, 6])
def test_bits_that_are_sampled_feel_the_cost_of_all(tiny: ModelConfig, count: int) -> None:
    task = CodecTask(tiny, Recipe(rate_model="context"))
    assert task.context is not None
    torch.nn.init.normal_(task.context.last, std=0.3)
    bits, _, _ = content(tiny)
    p, scale = torch.rand(1, 1, 9, 11).expand(count, -1, -1, -1), torch.full((count,), 0.7)
    mask = ops.importance_mask(p, scale, tiny.levels, tiny.n)
    levels = task.network.levels(p, scale)

    def gradient(sampled: bool) -> torch.Tensor:
        own = bits.expand(count, -1, -1, -1).clone().requires_grad_()
        counted = losses.code_bpp(p, scale, tiny.n)
        if sampled:
            rate = task._sampled_bpp(counted, Coded(own, own, mask, p, levels))
        else:
            rate = task._coded_bpp(own, mask, levels)
        (found,) = torch.autograd.grad(rate.sum(), own)
        return found.sum(0)

    whole = gradient(sampled=False)
    assert whole.abs().max() > 0
    torch.testing.assert_close(gradient(sampled=True), whole)


def test_without_a_context_network_there_is_no_coded_rate(tiny: ModelConfig) -> None:
    task = CodecTask(tiny, Recipe())
    assert task.context is None
    bits, mask, levels = content(tiny)
    with pytest.raises(TrainingError, match="; use rate_model='context'$"):
        task._coded_bpp(bits, mask, levels)


def test_the_network_is_the_same_with_either_rate_model(tiny: ModelConfig) -> None:
    """Else two runs of one seed would start from different weights."""
    tasks = []
    for rate_model in ("count", "context"):
        torch.manual_seed(3)
        tasks.append(CodecTask(tiny, Recipe(rate_model=rate_model)).network.state_dict())
    assert all(torch.equal(tasks[0][k], tasks[1][k]) for k in tasks[0])


def test_geometry_has_every_position_once() -> None:
    parts = pass_tensors(19, 21, "cpu")
    positions = torch.cat([positions for _, positions, _ in parts])
    assert sorted(positions.tolist()) == list(range(19 * 21))
    assert all(len(positions) for _, positions, _ in pass_tensors(1, 1, "cpu"))
