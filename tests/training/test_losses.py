"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from cwic_training import losses, ops


def test_mse_is_on_the_8_bit_scale() -> None:
    x = torch.zeros(2, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), 1 / 255), torch.full((3, 4, 4), -2 / 255)])
    torch.testing.assert_close(losses.mse255(x, y), torch.tensor([1.0, 4.0]))


@pytest.mark.parametrize(
    ("p", "scale", "n", "bpp"),
    [(0.5, 1.0, 128, 1.0), (1.0, 1.0, 64, 1.0), (0.5, 4.0, 128, 2.0), (0.25, 0.5, 128, 0.25)],
)
def test_code_rate_by_hand(p: float, scale: float, n: int, bpp: float) -> None:
    rate = losses.code_bpp(torch.full((1, 1, 3, 5), p), torch.tensor([scale]), n)
    assert rate.tolist() == pytest.approx([bpp])


def test_code_rate_counts_what_the_mask_keeps() -> None:
    """On whole levels the smooth count and the mask agree, picture by picture."""
    levels, n = 8, 16
    p = torch.randint(0, levels + 1, (3, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    p, scale = p / levels, torch.ones(3)
    kept = ops.importance_mask(p, scale, levels, n).sum((1, 2, 3))
    pixels = 4 * 6 * losses.PIXELS_PER_CODE
    torch.testing.assert_close(losses.code_bpp(p, scale, n), kept / pixels)


def test_code_rate_has_a_gradient_until_it_saturates() -> None:
    p = torch.tensor([0.2, 0.9]).view(1, 1, 1, 2).requires_grad_()
    (grad,) = torch.autograd.grad(losses.code_bpp(p, torch.tensor([2.0]), 128).sum(), p)
    assert grad.flatten().tolist() == pytest.approx([2.0 * 128 / 2 / 64, 0])


def test_level_price_is_zero_on_constant_maps() -> None:
    for value in (0.0, 0.3, 1.0):
        p = torch.full((2, 1, 4, 5), value)
        assert losses.level_bpp(p, torch.tensor([1.0, 0.5]), 16).tolist() == [0, 0]


@pytest.mark.parametrize("across", [False, True])
def test_level_price_by_hand(across: bool) -> None:
    """A step of 4 levels in one of three gaps costs log2(5) in a third of them."""
    p = torch.tensor([0.0, 0.0, 0.5, 0.5]).repeat(4, 1).view(1, 1, 4, 4)
    p = p if across else p.transpose(2, 3)
    wanted = math.log2(1 + 0.5 * 8) / 3 / 64
    assert losses.level_bpp(p, torch.ones(1), 8).item() == pytest.approx(wanted)


def test_level_price_grows_with_the_step_and_the_rate() -> None:
    edge = torch.tensor([0.0, 1.0]).repeat(2, 1).view(1, 1, 2, 2)
    prices = [losses.level_bpp(edge * h, torch.ones(1), 16).item() for h in (0.1, 0.3, 0.6, 1.0)]
    assert prices == sorted(prices)
    assert len(set(prices)) == 4
    by_scale = [losses.level_bpp(edge * 0.3, torch.tensor([s]), 16).item() for s in (0.5, 1, 2)]
    assert by_scale == sorted(by_scale)
    assert by_scale[0] < by_scale[2]


def test_variable_rate_loss_by_hand() -> None:
    distortion, bpp = torch.tensor([100.0, 10.0]), torch.tensor([0.25, 2.0])
    scale = torch.tensor([0.1, 2.0])
    # 0.1 * 100 + 20 / 0.1 * 0.25 = 60;  2 * 10 + 20 / 2 * 2 = 40
    loss = losses.variable_rate_loss(distortion, bpp, scale, 20.0)
    assert loss.item() == pytest.approx((60 + 40) / 2)


def test_step_loss_by_hand() -> None:
    distortion, bpp = torch.tensor([100.0, 10.0]), torch.tensor([0.25, 2.0])
    step = torch.tensor([2.0, 0.5])
    # lambda = 9 * 4 = 36: (100 + 36 * 0.25) / 6;  9 / 4: (10 + 9 / 4 * 2) / 1.5
    loss = losses.step_loss(distortion, bpp, step, 9.0)
    assert loss.item() == pytest.approx((109 / 6 + 14.5 / 1.5) / 2)


def test_variable_rate_trades_by_the_square_of_the_scale() -> None:
    """One bit per pixel is worth weight / s^2 of distortion."""
    for s in (0.1, 0.5, 2.0):
        distortion, bpp = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
        losses.variable_rate_loss(distortion, bpp, torch.tensor([s]), 20.0).backward()
        assert distortion.grad is not None
        assert bpp.grad is not None
        assert (bpp.grad / distortion.grad).item() == pytest.approx(20 / s**2)


def test_the_hinge_is_flat_below_its_target_and_a_slope_above() -> None:
    bpp = torch.tensor([0.1, 0.4, 0.6, 1.5], requires_grad=True)
    loss = losses.fixed_rate_loss(torch.full((4,), 7.0), bpp, 0.5, 30.0)
    assert loss.item() == pytest.approx(7 + 30 * (0.1 + 1.0) / 4)
    loss.backward()
    assert bpp.grad is not None
    assert bpp.grad.tolist() == pytest.approx([0, 0, 30 / 4, 30 / 4])


# ---- MS-SSIM --------------------------------------------------------------------------------


def pictures(count: int, side: int = 192) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    x = torch.rand(count, 3, 1, 1) + 0.3 * torch.rand(count, 3, side, side)
    return x.clamp(0, 1), (x + 0.1 * torch.randn_like(x)).clamp(0, 1)


@pytest.mark.parametrize(("share", "structural"), [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 4)])
def test_the_first_pictures_are_judged_by_ms_ssim(share: float, structural: int) -> None:
    """Against torchmetrics, which measures the models that are trained so."""
    x, y = pictures(4)
    found = losses.distortion(x, y, share)
    similarity = [
        multiscale_structural_similarity_index_measure(y[i : i + 1], x[i : i + 1], data_range=1.0)
        for i in range(structural)
    ]
    wanted = [1300 * (1 - value) for value in similarity]
    torch.testing.assert_close(
        found[:structural], torch.tensor(wanted), rtol=0.02, atol=0
    )  # it pads
    assert torch.equal(found[structural:], losses.mse255(x, y)[structural:])


def test_ms_ssim_has_a_gradient_under_autocast() -> None:
    x, y = pictures(1)
    y.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        (value,) = losses.distortion(x, y, 1.0)
    value.backward()
    assert value.dtype == torch.float32
    assert y.grad is not None
    assert y.grad.abs().max() > 0
    better = (y - 50 * y.grad.sign() * 1e-4).detach()
    assert losses.distortion(x, better, 1.0) < value
