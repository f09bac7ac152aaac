"""Building blocks: sizes, starts, and the flat weights that Muon needs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cwic_training.layers import ChannelsLast, Conv2d, ImportanceHead, MixBlock, ResidualBlock


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (4, 2), (8, 4), (2, 2), (5, 1)])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_a_convolution_keeps_size_over_stride(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    y = Conv2d(3, 6, kernel, stride)(torch.randn(2, 3, *size))
    assert y.shape == (2, 6, size[0] // stride, size[1] // stride)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (8, 4)])
def test_a_convolution_is_torchs_with_a_flat_weight(kernel: int, stride: int) -> None:
    ours = Conv2d(5, 7, kernel, stride)
    nn.init.normal_(ours.bias)
    theirs = nn.Conv2d(5, 7, kernel, stride, padding=(kernel - stride + 1) // 2)
    theirs.load_state_dict(
        {"weight": ours.weight.detach().reshape(7, 5, kernel, kernel), "bias": ours.bias.detach()}
    )
    x = torch.randn(2, 5, 16, 16)
    assert ours.weight.ndim == 2
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("block", [MixBlock(8, 12), ResidualBlock(8)])
def test_a_new_block_is_the_identity_and_can_learn(block: nn.Module) -> None:
    x = torch.randn(2, 8, 5, 6)
    y = block(x)
    assert torch.equal(y, x)
    (y * torch.randn_like(y)).sum().backward()
    last = [m for m in block.modules() if isinstance(m, Conv2d)][-1]
    assert last.weight.grad is not None
    assert last.weight.grad.abs().max() > 0


def test_a_mix_block_is_its_formula() -> None:
    block = MixBlock(4, 6)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, 4, 5, 5)
    y = F.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=1, groups=4)
    y = F.relu(torch.einsum("oc,nchw->nohw", block.up.weight, y) + block.up.bias.view(-1, 1, 1))
    y = torch.einsum("oc,nchw->nohw", block.down.weight, y) + block.down.bias.view(-1, 1, 1)
    torch.testing.assert_close(block(x), x + y, rtol=1e-4, atol=1e-4)


def test_the_importance_head_stays_in_float32_under_autocast() -> None:
    """In bfloat16 values above 0.5 come in steps of 1/256: some of 255 levels would merge."""
    head = ImportanceHead(8, 8)
    nn.init.normal_(head.conv3.weight, std=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        p = head(torch.randn(4, 8, 16, 16))
    assert (p.shape, p.dtype) == ((4, 1, 16, 16), torch.float32)
    assert 0 <= p.min() < p.max() <= 1
    assert not torch.equal(p, p.bfloat16().float())


def test_channels_last_changes_layout_not_values() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = ChannelsLast()(x)
    assert torch.equal(x, y)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert not x.is_contiguous(memory_format=torch.channels_last)
