"""Bit planes: the quantiser against its definition, its gradient, and what exports fold."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tests.training.conftest import PLANES
from torch import Tensor

from cwic.errors import CheckpointError
from cwic.rounding import Rounding
from cwic_training import ops
from cwic_training.digits import dct_basis, schedule
from cwic_training.model import PRESETS, CodecNetwork, ModelConfig
from cwic_training.planes import BitPlanes


@pytest.fixture
def planes() -> BitPlanes:
    torch.manual_seed(1)
    found = BitPlanes(64, 8)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    return found


@pytest.fixture
def values(planes: BitPlanes) -> Tensor:
    """Values [2, m, 3, 5], heavy-tailed, of either sign."""
    torch.manual_seed(2)
    return torch.randn(2, planes.values, 3, 5) * torch.rand(2, planes.values, 3, 5) * 2


def digits_of(planes: BitPlanes, value: float, index: int) -> list[int]:
    """A and B of a value by the definition, one digit after the other."""
    found: list[int] = []
    y = value * planes.gain[index].item()
    rest = {1: y, -1: -y}
    for j, owner in enumerate(planes.schedule.value):
        if owner == index:
            threshold = planes.schedule.threshold[j]
            for side in (1, -1):
                bit = int(rest[side] > threshold)
                rest[side] -= threshold * bit
                found.append(bit)
    return found


def masks(planes: BitPlanes, kept: int) -> Tensor:
    """The first ``kept`` codes, [1, n, 1, 1]."""
    return (torch.arange(2 * len(planes.index)) < kept).float().view(1, -1, 1, 1)


def test_codes_are_those_of_the_definition(planes: BitPlanes, values: Tensor) -> None:
    bits = (planes(values) > 0).int()
    for index in range(planes.values):
        own = [2 * j + k for j, v in enumerate(planes.schedule.value) if v == index for k in (0, 1)]
        rows = bits[:, own].movedim(1, -1).flatten(0, 2)
        for y, found in zip(values[:, index].flatten(), rows, strict=True):
            assert found.tolist() == digits_of(planes, float(y), index)


@pytest.mark.parametrize("together", [4, 8])
def test_a_group_has_no_value_twice(together: int) -> None:
    order = schedule(128, 64 // together)
    for first in range(0, 64, together):
        assert max(Counter(order.value[first : first + together]).values()) == 1
    for value in set(order.value):
        falling = [t for v, t in zip(order.value, order.threshold, strict=True) if v == value]
        assert all(a == 2 * b for a, b in pairwise(falling))


def test_the_basis_is_orthonormal() -> None:
    basis = dct_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(192), rtol=0, atol=1e-5)
    grey = basis[0].reshape(3, 64)
    assert torch.allclose(grey, torch.full((3, 64), 192**-0.5), atol=1e-6)


def test_restored_is_within_the_last_threshold() -> None:
    """As it starts, and inside the range of the first digit."""
    fresh = BitPlanes(384, 24)
    last = torch.full((fresh.values,), torch.inf)
    last = last.scatter_reduce(0, fresh.index, fresh.threshold, "amin")
    top = torch.zeros(fresh.values).scatter_reduce(0, fresh.index, fresh.threshold, "amax")
    torch.manual_seed(3)
    quantised = (2 * torch.rand(4, fresh.values, 6, 6) - 1) * 2 * top.view(1, -1, 1, 1)
    y = quantised / fresh.gain.view(1, -1, 1, 1)
    z = 2 * ops.binarize(fresh(y)) - 1
    off = (fresh.restored(z) - y) * fresh.gain.view(1, -1, 1, 1)
    assert (off.abs() <= last.view(1, -1, 1, 1) * 1.001).all()


def test_each_digit_that_is_kept_brings_values_nearer() -> None:
    fresh = BitPlanes(384, 24)
    torch.manual_seed(4)
    y = torch.randn(8, fresh.values, 8, 8)
    z = 2 * ops.binarize(fresh(y)) - 1
    errors = [
        (fresh.restored(z * masks(fresh, kept)) - y).square().mean().item()
        for kept in range(0, 385, 48)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize("level", range(9))
def test_intervals_are_what_kept_digits_say(planes: BitPlanes, values: Tensor, level: int) -> None:
    y = values * torch.linspace(0.1, 30, 15).view(3, 5)  # beyond the range of some
    levels = torch.full((2, 3, 5), level)
    digits = ops.binarize(planes(planes.lifted(y, levels, 8))).view(2, -1, 2, 3, 5)[:, : 4 * level]
    signed = digits[:, :, 0] - digits[:, :, 1]
    last = [0.0] * planes.values
    wanted = torch.zeros_like(y)
    for j in range(4 * level):
        value, threshold = planes.schedule.value[j], planes.schedule.threshold[j]
        wanted[:, value] += signed[:, j] * threshold
        last[value] = threshold
    w, kept = planes.intervals(y, levels, 8)
    assert torch.equal(kept, torch.tensor(last).gt(0).float().view(1, -1, 1, 1).expand_as(y))
    step = torch.tensor(last).clamp(min=1e-9).view(1, -1, 1, 1)
    assert torch.equal(w.round(), wanted / step)


def test_an_encoder_that_learns_levels_later_rounds_alike(
    planes: BitPlanes, values: Tensor
) -> None:
    """The runtime has all codes and no values; what it sends is what training saw."""
    table = {"planes.values": np.array(planes.schedule.value, np.uint16)}
    rounding = Rounding(table, 64, 8)
    torch.manual_seed(8)
    levels = torch.randint(0, 9, (2, 3, 5))
    with torch.no_grad():
        everything = ops.binarize(planes(values)).numpy()
        wanted = ops.binarize(planes(planes.lifted(values, levels, 8))).numpy()
    for codes, known, level in zip(everything, wanted, levels.numpy(), strict=True):
        kept = np.arange(64)[:, None, None] < 8 * level
        found = rounding.codes(np.packbits(codes > 0, axis=0), level.astype(np.uint8))
        assert np.array_equal(np.unpackbits(found, axis=0), kept * known)


def test_kept_values_come_through_the_gradient(planes: BitPlanes, values: Tensor) -> None:
    y = (0.01 * values).requires_grad_(True)  # inside the range of every value
    bits = ops.binarize(planes(y)).detach()
    mask = masks(planes, 24).expand_as(bits)
    got = planes.straight_through(y, bits, mask)
    torch.testing.assert_close(got, planes.restored((2 * bits - 1) * mask))
    got.sum().backward()
    kept = {planes.schedule.value[j] for j in range(12)}
    wanted = torch.tensor([float(k in kept) for k in range(planes.values)])
    assert 0 < wanted.sum() < planes.values
    assert y.grad is not None
    torch.testing.assert_close(y.grad, wanted.view(1, -1, 1, 1).expand_as(y))


def test_a_value_out_of_range_is_not_pushed_further(planes: BitPlanes) -> None:
    y = torch.full((1, planes.values, 1, 1), 1e3, requires_grad=True)
    bits = ops.binarize(planes(y)).detach()
    planes.straight_through(y, bits, torch.ones_like(bits)).sum().backward()
    assert y.grad is not None
    assert not y.grad.any()


def test_the_cost_of_a_code_reaches_values(planes: BitPlanes, values: Tensor) -> None:
    y = values.clone().requires_grad_(True)
    ops.binarize(planes(y))[:, ::2].sum().backward()
    assert y.grad is not None
    assert (y.grad >= 0).all()
    assert y.grad.any()


def test_folding_gives_the_same_codes(planes: BitPlanes, values: Tensor) -> None:
    torch.manual_seed(5)
    features = torch.randn(2, 24, 3, 5)
    weight, bias = torch.randn(planes.values, 24), torch.randn(planes.values) / 4
    y = F.conv2d(features, weight[:, :, None, None], bias)
    wanted = planes(y)
    with torch.no_grad():
        folded, offset = planes.folded_projection(weight, bias)
        signs = 2 * (wanted > 0).float() - 1
        e = F.conv2d(features, folded, offset) + F.conv2d(signs, planes.folded_feedback())
    torch.testing.assert_close(e, wanted.detach(), rtol=1e-4, atol=1e-4)


def test_feedback_looks_at_earlier_groups_only(planes: BitPlanes) -> None:
    kernel = planes.folded_feedback()[:, :, 0, 0]
    group = torch.arange(64) // 8
    assert kernel[group[:, None] > group[None, :]].any()
    assert not kernel[group[:, None] <= group[None, :]].any()


def test_the_mask_is_that_of_the_op_with_a_wider_gradient(planes: BitPlanes) -> None:
    torch.manual_seed(6)
    p, scale = torch.rand(2, 1, 3, 4, requires_grad=True), torch.tensor([0.7, 1.4])
    mask = planes.mask(p, scale, 8)
    assert torch.equal(mask.round(), ops.importance_mask(p.detach(), scale, 8, 64))
    torch.testing.assert_close(mask, mask.round())
    weight = torch.randn_like(mask)
    (got,) = torch.autograd.grad((mask * weight).sum(), p)
    soft = torch.sigmoid(
        ((p * scale.view(-1, 1, 1, 1)).clamp(0, 1) * 64 - torch.arange(64).view(1, -1, 1, 1) - 0.5)
        / 32
    )
    (wanted,) = torch.autograd.grad((soft * weight).sum(), p)
    torch.testing.assert_close(got, wanted)


def test_a_learned_map_is_centred(photo: NDArray[np.uint8]) -> None:
    torch.manual_seed(7)
    network = CodecNetwork(PLANES).train()
    x = torch.from_numpy(photo[:64, :96].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        for _ in range(400):  # the running mean follows
            _, p = network.encode(x)
        assert p.logit().mean().abs() < 1e-5
        _, evaluated = network.eval().encode(x)
    assert p.std() > 0
    torch.testing.assert_close(evaluated, p, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kept", [0, 6, 30, 64])
def test_restoring_as_convolutions(planes: BitPlanes, values: Tensor, kept: int) -> None:
    z = (2 * ops.binarize(planes(values)) - 1) * masks(planes, kept)
    with torch.no_grad():
        torch.testing.assert_close(planes.restoring()(z), planes.restored(z), rtol=1e-4, atol=1e-5)


def test_a_new_network_is_a_codec(photo: NDArray[np.uint8]) -> None:
    """It starts as a DCT: more levels, better pictures, before any training."""
    network = CodecNetwork(PRESETS["nano-planes"]).eval()
    x = torch.from_numpy(photo[:128, :192].copy()).permute(2, 0, 1)[None].float() / 255
    found = []
    with torch.no_grad():
        signs = 2 * ops.binarize(network.encode(x)[0]) - 1
        for kept in (32, 96, 192, 384):
            mask = (torch.arange(384) < kept).float().view(1, -1, 1, 1)
            error = (network.decode(signs * mask) - x).square().mean()
            found.append(float(-10 * torch.log10(error)))
    assert found == sorted(found)
    assert found[-1] > 32


@pytest.mark.parametrize("priced", [False, True])
def test_pictures_have_a_gradient_without_that_of_codes(
    photo: NDArray[np.uint8], priced: bool
) -> None:
    network = CodecNetwork(PLANES)
    x = torch.from_numpy(photo[:64, :96].copy()).permute(2, 0, 1)[None].float() / 255
    y, bits, *_ = network(x, torch.ones(1), codes_are_priced=priced)
    assert bits.requires_grad == priced
    (y - x).square().mean().backward()
    assert network.projection.weight.grad is not None
    assert network.projection.weight.grad.any()


@pytest.mark.parametrize(
    "change",
    [{"arch": "base"}, {"feedback": 0}, {"feedback": 64}, {"codes": "words"}],
)
def test_a_configuration_without_pairs_is_refused(change: dict[str, object]) -> None:
    values = {**PLANES.to_dict(), **change}
    with pytest.raises(CheckpointError, match="use|choose"):
        ModelConfig.from_dict(values)
