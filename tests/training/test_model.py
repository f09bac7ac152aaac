"""The networks: shapes, sizes against a count by hand, folding, and what the mask does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tests.training.conftest import VALUES
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cwic.errors import CheckpointError
from cwic_training.config import PRESETS, STRIDE, ModelConfig
from cwic_training.layers import Conv2d, MixBlock, ResidualBlock
from cwic_training.model import CodecNetwork

CONFIGS = {
    "tiny": ModelConfig(n=16, levels=8, width=32, hidden=32, encoder_blocks=1, decoder_blocks=1),
    "nano": PRESETS["nano"],
    "nano-signs": PRESETS["nano-signs"],
    "base": PRESETS["base"],
}


@pytest.fixture(params=CONFIGS)
def any_network(request: pytest.FixtureRequest) -> CodecNetwork:
    torch.manual_seed(0)
    return CodecNetwork(CONFIGS[request.param])


@pytest.fixture(scope="module")
def picture(photo: NDArray[np.uint8]) -> Tensor:
    """Two details of a photograph, float [2, 3, 64, 96]."""
    cuts = np.stack([photo[200:264, 300:396], photo[100:164, 100:196]])
    return torch.from_numpy(cuts).permute(0, 3, 1, 2).float() / 255


def disturb(network: CodecNetwork) -> None:
    """Random weights everywhere: no block is an identity, no bias zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data.add_(noise, alpha=0.3 / max(1, parameter[0].numel()) ** 0.5)


@pytest.mark.parametrize("size", [(8, 8), (32, 16), (24, 56)])
def test_shapes(any_network: CodecNetwork, size: tuple[int, int]) -> None:
    config = any_network.config
    x = torch.rand(2, 3, *size)
    h, w = size[0] // STRIDE, size[1] // STRIDE
    with torch.no_grad():
        e, p = any_network.eval().encode(x)
        coded = any_network(x, torch.ones(2))
    assert e.shape == coded.codes.shape == coded.kept.shape == (2, config.n, h, w)
    assert p.shape == coded.p.shape == (2, 1, h, w)
    assert coded.levels.shape == (2, h, w)
    assert torch.equal(coded.levels, any_network.levels(p, torch.ones(2)))
    assert coded.picture.shape == x.shape
    if config.codes == "values":
        assert (p == 0.5).all()
    else:
        assert 0 < p.min() < p.max() < 1 or size == (8, 8)


@pytest.mark.parametrize("name", ["tiny", "nano", "nano-signs"])
def test_nano_has_the_parameters_of_its_description(name: str) -> None:
    c = CONFIGS[name]
    block = (9 * c.width + c.width) + (c.width + 1) * c.hidden + (c.hidden + 1) * c.width
    pixels = 3 * STRIDE**2
    network = CodecNetwork(c)
    taps = 9 if c.lapped else 1
    trunk = (taps * pixels + 1) * c.width + c.encoder_blocks * block
    projection = (c.width + 1) * c.n
    head = (9 * c.width + 1) * 64 + (9 * 64 + 1) * 64 + (64 + 1)
    if c.importance == "uniform":
        head = 0
    synthesis = (c.n + 1) * c.width + c.decoder_blocks * block + (taps * c.width + 1) * pixels
    parts = (network.trunk, network.projection, network.importance, network.synthesis)
    counted = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert counted == [trunk, projection, head, synthesis]
    codes = 9 * c.n**2 if c.feedback else 0
    if c.codes == "values":
        codes = c.n  # a gain of each
    assert sum(p.numel() for p in network.parameters()) == sum(counted) + codes


def test_base_has_the_parameters_of_its_description() -> None:
    def conv(c_in: int, c_out: int, k: int) -> int:
        return (c_in * k * k + 1) * c_out

    network = CodecNetwork(PRESETS["base"])
    n = network.config.n
    wide, narrow = 2 * conv(256, 256, 3), 2 * conv(128, 128, 3)
    assert sum(p.numel() for p in network.trunk.parameters()) == (
        conv(3, 128, 8) + narrow + conv(128, 256, 4) + 2 * wide
    )
    assert sum(p.numel() for p in network.projection.parameters()) == conv(256, n, 1)
    assert sum(p.numel() for p in network.importance.parameters()) == (
        conv(256, 128, 3) + conv(128, 128, 3) + conv(128, 1, 1)
    )
    assert sum(p.numel() for p in network.synthesis.parameters()) == (
        conv(n, 256, 1) + 2 * wide + conv(256, 512, 3) + narrow + conv(128, 512, 3) + conv(32, 3, 3)
    )


@pytest.mark.parametrize("name", ["tiny", "nano-signs", "base"])
def test_the_decoder_mirrors_the_encoder(name: str) -> None:
    network = CodecNetwork(CONFIGS[name])
    counts = [
        [sum(isinstance(m, kind) for m in part.modules()) for kind in (MixBlock, ResidualBlock)]
        for part in (network.trunk, network.synthesis)
    ]
    assert counts[0] == counts[1]
    assert sum(counts[0]) == {"tiny": 1, "nano-signs": 4, "base": 3}[name]


@pytest.mark.parametrize(
    ("name", "encode", "decode"),
    [("nano", 26.0, 38.3), ("nano-signs", 29.9, 26.0), ("base", 72.5, 112.0)],
)
def test_cost_in_thousand_multiplications_a_pixel(name: str, encode: float, decode: float) -> None:
    network = CodecNetwork(CONFIGS[name]).eval()
    x = torch.zeros(1, 3, 64, 64)
    costs = []
    with torch.no_grad():
        z = torch.zeros(1, network.config.n, 8, 8)
        for run in (lambda: network.encode(x), lambda: network.decode(z)):
            with FlopCounterMode(display=False) as counter:
                run()
            costs.append(counter.get_total_flops() / 2 / 64**2 / 1000)
    assert costs == pytest.approx([encode, decode], abs=0.1)


@pytest.mark.parametrize("name", ["tiny", "nano-signs", "base"])
def test_folding_the_normalisation_changes_nothing(name: str, picture: Tensor) -> None:
    torch.manual_seed(0)
    network = CodecNetwork(CONFIGS[name])
    disturb(network)
    network.feedback = None
    with torch.no_grad():
        network.train()
        for _ in range(3):
            network.encode(picture)
        network.eval()
        e, _ = network.encode(picture)
        weight, bias = network.folded_projection()
        folded = F.conv2d(network.trunk((picture - 0.5) * 2), weight, bias)
    statistics = network.normalise
    assert statistics is not None
    assert statistics.running_mean is not None
    assert statistics.running_mean.abs().max() > 1e-3  # else there would be nothing to fold
    torch.testing.assert_close(folded, e, rtol=1e-4, atol=1e-4)


def _with_feedback(groups: int) -> CodecNetwork:
    torch.manual_seed(0)
    network = CodecNetwork(replace(CONFIGS["tiny"], feedback=groups))
    disturb(network)
    return network


@pytest.mark.parametrize("groups", [2, 4, 16])
def test_feedback_adds_the_earlier_bits(groups: int, picture: Tensor) -> None:
    network = _with_feedback(groups).eval()
    assert network.feedback is not None
    size = 16 // groups
    with torch.no_grad():
        e, _ = network.encode(picture)
        raw = network.projection(network.trunk((picture - 0.5) * 2))
        signs = 2 * (e > 0).float() - 1
        weight = network.feedback.weight.view(16, 16, 3, 3).clone()
        for k in range(16):
            weight[k, k // size * size :] = 0
        expected = network.normalise(raw + F.conv2d(signs, weight, padding=1))
    torch.testing.assert_close(e, expected, rtol=1e-4, atol=1e-4)
    assert (e - network.normalise(raw)).abs().max() > 0.1


def test_feedback_normalises_each_channel_while_training(picture: Tensor) -> None:
    network = _with_feedback(4).train()
    e, _ = network.encode(picture)
    torch.testing.assert_close(e.mean((0, 2, 3)), torch.zeros(16), rtol=0, atol=1e-5)
    assert network.normalise.running_mean is not None
    assert (network.normalise.running_mean != 0).all()


def test_feedback_learns_from_later_groups(picture: Tensor) -> None:
    network = _with_feedback(4)
    e, _ = network.encode(picture)
    e[:, 12:].square().sum().backward()
    assert network.feedback is not None
    gradient = network.feedback.weight.grad
    assert gradient is not None
    assert gradient[4:8, : 4 * 9].abs().max() > 0  # through the bits of the second group
    assert gradient[:4].abs().max() == 0


@pytest.mark.parametrize("feedback", [-1, 3, 5])
def test_feedback_divides_the_codes(feedback: int) -> None:
    with pytest.raises(CheckpointError, match=r"; (choose|use)"):
        replace(CONFIGS["tiny"], feedback=feedback)


def test_codes_start_balanced(network: CodecNetwork, picture: Tensor) -> None:
    e, _ = network.train().encode(picture)
    torch.testing.assert_close(e.mean((0, 2, 3)), torch.zeros(16), rtol=0, atol=1e-5)
    ones = (e > 0).float().mean((0, 2, 3))
    assert 0.2 < ones.min() < ones.max() < 0.8


def test_a_masked_code_is_zero_for_the_decoder(network: CodecNetwork, picture: Tensor) -> None:
    disturb(network)
    network.eval()
    with torch.no_grad():
        none = network(picture, torch.full((2,), 1e-6))
        nothing = network.decode(torch.zeros(2, 16, 8, 12))
        assert not none.kept.any()
        assert torch.equal(none.picture, nothing)
        most = network(picture, torch.full((2,), 1e6))
        everything = network(picture, None)
    assert most.kept.all()
    assert everything.kept.all()
    assert everything.levels is None
    assert most.p.min() > 0
    assert torch.equal(most.picture, everything.picture)
    assert not torch.equal(most.picture, nothing)


def test_values_without_importance_are_refused(picture: Tensor) -> None:
    with pytest.raises(CheckpointError, match="; use stage importance$"):
        CodecNetwork(VALUES)(picture, None)


def _values_network() -> CodecNetwork:
    torch.manual_seed(0)
    network = CodecNetwork(VALUES)
    disturb(network)
    return network


def test_a_picture_of_values_is_that_of_its_numbers(picture: Tensor) -> None:
    network = _values_network().eval()
    quantiser = network.quantiser
    assert quantiser is not None
    scale = torch.tensor([0.4, 1.7])
    with torch.no_grad():
        y, p = network.encode(picture)
        levels = network.levels(p, scale)
        q = quantiser.quantised(y, levels)
        wanted = network.decode(quantiser.restored(q, levels))
        coded = network(picture, scale)
    assert p.std() > 0
    assert 0 < coded.kept.mean() < 1
    assert q.any()
    assert torch.equal(coded.codes.round(), q)
    assert torch.equal(coded.picture, wanted)


def test_folding_the_gain_changes_nothing(picture: Tensor) -> None:
    network = _values_network().eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with torch.no_grad():
        y, _ = network.encode(picture)
        weight, bias = network.folded_projection()
        assert weight.shape == (VALUES.n, VALUES.width, 1, 1)
        assert bias.any()
        folded = F.conv2d(network.trunk((picture - 0.5) * 2), weight, bias)
        torch.testing.assert_close(folded, y, rtol=1e-4, atol=1e-4)
        restored = (y * 4).round() / 4
        pictures = network.folded_synthesis()(restored) / 2 + 0.5
        torch.testing.assert_close(pictures, network.decode(restored), rtol=1e-4, atol=1e-4)
    assert network.folded_feedback() is None
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert (network.quantiser.gain.log().abs() > 0.1).any()  # type: ignore[union-attr]


@pytest.mark.parametrize("config", [CONFIGS["tiny"], VALUES], ids=["signs", "values"])
def test_every_parameter_learns(config: ModelConfig, picture: Tensor) -> None:
    torch.manual_seed(0)
    network = CodecNetwork(config)
    disturb(network)
    coded = network(picture, torch.full((2,), 0.7))
    ((coded.picture - picture).square().mean() + coded.p.square().mean()).backward()
    idle = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    # A constant before the normalisation, or before a map is centred, is subtracted again.
    assert set(idle) <= {"projection.bias", "importance.conv3.bias"}


@pytest.mark.parametrize("config", [CONFIGS["tiny"], VALUES], ids=["signs", "values"])
def test_autocast_keeps_codes_and_importance_in_float32(
    config: ModelConfig, picture: Tensor
) -> None:
    torch.manual_seed(0)
    network = CodecNetwork(config).eval()
    full = torch.full((2,), 1e6)
    with torch.no_grad():
        wanted = network(picture, full)
        with torch.autocast("cpu", torch.bfloat16):
            e, p = network.encode(picture)
            got = network(picture, full)
    assert {t.dtype for t in (e, p, got.picture, got.kept, got.codes)} == {torch.float32}
    assert (got.picture - wanted.picture).abs().mean() < 0.05


def test_values_are_not_rounded_by_autocast(picture: Tensor) -> None:
    network = _values_network().eval()
    quantiser = network.quantiser
    assert quantiser is not None
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = network.encode(picture)
            features = network.trunk((picture - 0.5) * 2)
        wanted = network.projection(features.float()) * quantiser.gain.view(1, -1, 1, 1)
    torch.testing.assert_close(y, wanted, rtol=1e-5, atol=1e-5)


def test_weights_are_matrices_for_muon(any_network: CodecNetwork) -> None:
    convolutions = [m for m in any_network.modules() if isinstance(m, Conv2d)]
    assert convolutions
    assert all(m.weight.ndim == 2 and m.bias.ndim == 1 for m in convolutions)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_its_record(name: str) -> None:
    assert ModelConfig.from_dict(CONFIGS[name].to_dict()) == CONFIGS[name]


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "large"},
        {"n": 12},
        {"n": 0},
        {"n": -8, "levels": 1},
        {"n": 24, "levels": 16},
        {"levels": 0},
        {"levels": 256, "n": 256},
        {"n": 128.0},
        {"width": "256"},
        {"hidden": -1},
        {"encoder_blocks": 2.5},
        {"importance": "none"},
        {"codes": "words"},
        {"codes": "planes"},
        {"codes": "values"},  # with feedback
        {"codes": "values", "feedback": 0, "arch": "base"},
        {"codes": "values", "feedback": 0, "n": 200},
        {"codes": "values", "feedback": 0, "n": 12},
        {"codes": "values", "feedback": 0, "n": 0},
        {"codes": "values", "feedback": 0, "levels": 0},
        {"codes": "values", "feedback": 0, "levels": 256},
        {"codes": "values", "feedback": 0, "n": 128.0},
    ],
)
def test_an_impossible_configuration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="; (use|choose)") as caught:
        replace(PRESETS["nano-signs"], **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"n": 192}, {"n": 8}, {"levels": 255}, {"levels": 1}])
def test_levels_need_not_divide_values(change: dict[str, Any]) -> None:
    config = replace(VALUES, **change)
    e, _ = CodecNetwork(config).encode(torch.rand(1, 3, 8, 8))
    assert e.shape == (1, config.n, 1, 1)


@pytest.mark.parametrize("values", [{"depth": 3}, ["nano"], None, {1: 2}])
def test_a_foreign_record_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match="use a checkpoint of this release"):
        ModelConfig.from_dict(values)
