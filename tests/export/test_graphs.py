"""The reference itself: bits, masks and folding, checked against the network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_training.model import CodecNetwork


@pytest.fixture(params=["network", "base_network"])
def any_network(request: pytest.FixtureRequest) -> CodecNetwork:
    network: CodecNetwork = request.getfixturevalue(request.param)
    return network


def test_codes_are_the_packed_signs_of_the_network(
    any_network: CodecNetwork, image: Tensor
) -> None:
    graph = EncoderGraph(any_network)
    with torch.no_grad():
        e, p = any_network.encode(image.permute(0, 3, 1, 2).float() / 255)
        own_e, _ = graph.analyse(image)
        codes, importance = graph(image)
    assert codes.dtype == importance.dtype == torch.uint8
    assert codes.shape == (2, 2, 12, 16)
    assert 0.3 < (e > 0).float().mean() < 0.7
    assert torch.allclose(own_e, e, atol=1e-4)
    np.testing.assert_array_equal(codes, np.packbits(own_e.numpy() > 0, axis=1))
    np.testing.assert_allclose(importance, p[:, 0].numpy() * 255, atol=0.51)


def test_decoder_is_the_network_on_masked_codes(
    any_network: CodecNetwork, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    codes, levels = codes_and_levels
    bits = np.unpackbits(codes.numpy(), axis=1).astype(np.float32)
    mask = np.arange(16)[None, :, None, None] < 2 * levels.numpy()[:, None]
    with torch.no_grad():
        x = any_network.decode(torch.from_numpy((2 * bits - 1) * mask))
        image = DecoderGraph(any_network)(codes, levels)
    assert image.dtype == torch.uint8
    assert image.shape == (2, 40, 56, 3)
    expected = 255 * x.clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(image, expected, atol=0.51)


def test_masked_codes_have_no_influence(
    network: CodecNetwork, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    codes, levels = codes_and_levels
    kept = np.arange(16)[None, :, None, None] < 2 * levels.numpy()[:, None]
    flipped = torch.from_numpy(codes.numpy() ^ np.packbits(~kept, axis=1))
    graph = DecoderGraph(network)
    image = graph(codes, levels)
    assert not torch.equal(flipped, codes)
    assert torch.equal(graph(flipped, levels), image)
    assert not torch.equal(graph(codes ^ 0x80, levels), image)


def test_decomposed_graphs_are_the_same_functions(
    network: CodecNetwork, image: Tensor, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    plain, custom = (EncoderGraph(network, decomposed=d)(image) for d in (True, False))
    assert all(torch.equal(a, b) for a, b in zip(plain, custom, strict=True))
    plain, custom = (DecoderGraph(network, decomposed=d)(*codes_and_levels) for d in (True, False))
    assert torch.equal(plain, custom)
