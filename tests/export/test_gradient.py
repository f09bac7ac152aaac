"""The gradient graph against automatic differentiation of the network itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cwic import packaged
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.errors import ExportError
from cwic_export.adjoint import with_adjoint
from cwic_export.graphs import DecoderGraph, GradientGraph
from cwic_training.checkpoint import load_checkpoint
from cwic_training.model import CodecNetwork

ROOT = Path(__file__).parents[2]


def _differentiated(
    network: CodecNetwork, codes: Tensor, levels: Tensor, image: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient, of values by whole numbers, and error by autograd; the clip is passed through."""
    graph = DecoderGraph(network)
    z = graph.packing.unpack(codes, levels).requires_grad_(True)
    y = 255 * (graph.synthesis(z) / 2 + 0.5)
    target = image.permute(0, 3, 1, 2).float()
    off = y.detach().clamp(0, 255) - target
    (gradient,) = torch.autograd.grad((2 * off * y).sum(), z)
    if network.quantiser is not None:
        gradient = gradient * network.quantiser.steps[levels.long()][:, None]
    error = off.square().sum(1).unflatten(2, (-1, 8)).unflatten(1, (-1, 8)).sum((2, 4))
    return gradient, error


@pytest.mark.parametrize("kind", ["network", "base_network"])
def test_it_is_the_gradient(
    request: pytest.FixtureRequest, kind: str, codes_and_levels: tuple[Tensor, Tensor]
) -> None:
    network: CodecNetwork = request.getfixturevalue(kind)
    codes, levels = codes_and_levels
    torch.manual_seed(4)
    image = torch.randint(0, 256, (len(codes), 40, 56, 3), dtype=torch.uint8)
    gradient, error = GradientGraph(network)(codes, levels, image)
    own_gradient, own_error = _differentiated(network, codes, levels, image)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient, own_gradient, rtol=1e-4, atol=1e-4 * gradient.std())
    torch.testing.assert_close(error, own_error, rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("name", packaged.names())
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (9, 4)])
def test_the_package_has_that_of_the_checkpoint(name: str, size: tuple[int, int]) -> None:
    bundle = Bundle.load(name)
    network = load_checkpoint(ROOT / "models" / f"{name}.safetensors").network().eval()
    rng = np.random.default_rng(7)
    height, width = size
    codes = rng.integers(0, 256, (2, bundle.decoder_channels, *size), np.uint8)
    levels = rng.integers(0, bundle.levels + 1, (2, *size), np.uint8)
    image = rng.integers(0, 256, (2, 8 * height, 8 * width, 3), np.uint8)
    gradient, error = OnnxRuntimeRunner(bundle).gradient(codes, levels, image)
    assert gradient.shape == (2, bundle.n, *size)
    own_gradient, own_error = _differentiated(
        network, *(torch.from_numpy(part) for part in (codes, levels, image))
    )
    np.testing.assert_allclose(gradient, own_gradient, rtol=1e-3, atol=1e-3 * gradient.std())
    np.testing.assert_allclose(error, own_error.detach(), rtol=1e-4)


def test_a_layer_without_an_adjoint_is_named() -> None:
    with pytest.raises(ExportError, match="no adjoint of Tanh is known"):
        with_adjoint(nn.Sequential(nn.ReLU(), nn.Tanh()), torch.zeros(1, 1, 2, 2))
