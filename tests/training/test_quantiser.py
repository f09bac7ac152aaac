"""Values in steps: the quantiser against its definition, its gradients, and where it starts."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tests.training.conftest import VALUES
from torch import Tensor

from cwic.errors import CheckpointError
from cwic_training.config import PRESETS
from cwic_training.dct import dct_basis, deviations
from cwic_training.model import CodecNetwork
from cwic_training.quantiser import Quantiser

N, LEVELS = 16, 8
SLOPE = 5.4 / (LEVELS - 1)


@pytest.fixture
def quantiser() -> Quantiser:
    return Quantiser(N, LEVELS)


@pytest.fixture
def values() -> Tensor:
    """[2, n, 3, 5], heavy-tailed, of either sign; some beyond 127 of the smallest steps."""
    torch.manual_seed(2)
    return 40 * torch.randn(2, N, 3, 5) * torch.rand(2, N, 3, 5) ** 4


@pytest.fixture
def levels() -> Tensor:
    """All of 0..L, [2, 3, 5]."""
    return (torch.arange(30) % (LEVELS + 1)).view(2, 3, 5)


def importance(levels: Tensor) -> Tensor:
    """That of which a rate factor of 1 makes the levels, [N, 1, h, w]."""
    return (levels[:, None] / LEVELS).clone().requires_grad_()


def spread() -> Tensor:
    """Many values evenly over many steps, [1, n, 1, 5000], within 127 of the smallest."""
    torch.manual_seed(3)
    return 24 * torch.rand(1, N, 1, 5000) - 12


# ---- Tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(8, 193, 8))
def test_groups_have_all_values(n: int) -> None:
    quantiser = Quantiser(n, 32)
    assert len(quantiser.sizes) == 6
    assert min(quantiser.sizes) >= 1
    assert sum(quantiser.sizes) == len(quantiser.rows) == len(set(quantiser.rows)) == n
    found = deviations()[list(quantiser.rows)]
    assert (found.diff() <= 0).all()
    left = [value for row, value in enumerate(deviations()) if row not in quantiser.rows]
    assert all(value <= found[-1] for value in left)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [(128, (6, 14, 20, 24, 30, 34)), (8, (1, 1, 1, 1, 2, 2)), (64, (3, 7, 10, 12, 15, 17))],
)
def test_groups_by_hand(n: int, sizes: tuple[int, ...]) -> None:
    assert Quantiser(n, 32).sizes == sizes


@pytest.mark.parametrize(("n", "levels"), [(128, 32), (16, 8), (192, 255), (8, 1), (192, 4)])
def test_a_group_exists_where_steps_are_not_too_large(n: int, levels: int) -> None:
    quantiser = Quantiser(n, levels)
    start, before = 0, 1
    for size, first in zip(quantiser.sizes, quantiser.first_levels, strict=True):
        reach = 6 * float(deviations()[quantiser.rows[start]])
        enough = [x for x in range(1, levels + 1) if float(quantiser.steps[x]) <= reach]
        assert first == max(before, enough[0] if enough else levels)
        start, before = start + size, first
    exists = quantiser.kept(torch.arange(levels + 1).view(1, 1, -1))[0, :, 0]
    assert not exists[:, 0].any()
    firsts = [
        f for s, f in zip(quantiser.sizes, quantiser.first_levels, strict=True) for _ in range(s)
    ]
    assert exists.sum(1).tolist() == [levels + 1 - first for first in firsts]
    assert (exists.diff(dim=1) >= 0).all()


def test_the_groups_of_the_preset() -> None:
    c = PRESETS["nano"]
    assert Quantiser(c.n, c.levels).first_levels == (1, 2, 8, 13, 16, 23)


@pytest.mark.parametrize("levels", [1, 2, 32, 255])
def test_steps_fall_by_as_much_from_level_to_level(levels: int) -> None:
    steps = Quantiser(8, levels).steps
    assert (steps.dtype, steps.shape) == (torch.float32, (levels + 1,))
    assert steps[0] == 0
    assert steps[1] == pytest.approx(4.4)
    if levels > 1:
        assert steps[-1] == pytest.approx(4.4 * 2**-5.4)
    ratios = (steps[2:] / steps[1:-1]).tolist()
    assert ratios == pytest.approx([2 ** (-5.4 / max(1, levels - 1))] * (levels - 1))


def test_the_reference_is_the_step_of_mean_importance(quantiser: Quantiser) -> None:
    scales = torch.tensor([0.25, 1.0, 2.0])
    wanted = quantiser.steps[(scales * LEVELS / 2).long()]
    torch.testing.assert_close(quantiser.reference_steps(scales), wanted)


@pytest.mark.parametrize(("n", "levels"), [(7, 8), (193, 8), (16, 0), (16, 256)])
def test_impossible_sizes_are_refused(n: int, levels: int) -> None:
    with pytest.raises(CheckpointError, match="; choose"):
        Quantiser(n, levels)


def test_only_gains_are_weights(quantiser: Quantiser) -> None:
    assert quantiser.state_dict().keys() == {"log_gain"}
    torch.testing.assert_close(quantiser.gain, deviations()[list(quantiser.rows)])


# ---- Numbers --------------------------------------------------------------------------------


def test_numbers_are_those_of_the_definition(
    quantiser: Quantiser, values: Tensor, levels: Tensor
) -> None:
    q, back = quantiser.quantised(values, levels), None
    back = quantiser.restored(q, levels)
    firsts = np.repeat(quantiser.first_levels, quantiser.sizes)
    for (i, k, y, x), value in np.ndenumerate(values.numpy()):
        level = int(levels[i, y, x])
        step = quantiser.steps[level].numpy()
        exists = level >= firsts[k]
        wanted = np.clip(np.rint(value / step), -127, 127) if exists else 0
        assert q[i, k, y, x] == wanted
        assert back[i, k, y, x] == np.float32(wanted) * step
    assert q.abs().max() == 127, "else the range was not tried"


def test_finer_steps_are_nearer(quantiser: Quantiser) -> None:
    y = spread()
    errors = []
    for level in range(quantiser.first_levels[-1], LEVELS + 1):
        levels = torch.full((1, 1, 5000), level)
        off = quantiser.restored(quantiser.quantised(y, levels), levels) - y
        assert off.abs().max() <= quantiser.steps[level] / 2 + 1e-5
        errors.append(float(off.square().mean()))
    assert len(errors) > 2
    assert all(b < 0.5 * a for a, b in pairwise(errors))


# ---- What training sees ---------------------------------------------------------------------


@pytest.mark.parametrize("autocast", [False, True])
def test_training_sees_what_is_coded(
    quantiser: Quantiser, values: Tensor, levels: Tensor, autocast: bool
) -> None:
    p, ones = importance(levels), torch.ones(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        restored, u, kept, found = quantiser.straight_through(values, p, ones)
        q = quantiser.quantised(values, levels)
        back = quantiser.restored(q, levels)
    assert {t.dtype for t in (restored, u, kept, q, back)} == {torch.float32}
    assert torch.equal(found, levels)
    assert torch.equal(kept, quantiser.kept(levels))
    assert torch.equal(u.detach().round(), q)
    assert torch.equal(restored.detach(), back)


def test_levels_follow_the_rate_factor(quantiser: Quantiser, values: Tensor) -> None:
    p = torch.rand(2, 1, 3, 5)
    *_, levels = quantiser.straight_through(values, p, torch.tensor([0.5, 1.7]))
    wanted = (p[:, 0] * torch.tensor([0.5, 1.7]).view(2, 1, 1)).clamp(0, 1).mul(LEVELS).round()
    assert torch.equal(levels, wanted.long())


def test_rounding_has_the_gradient_of_the_identity(
    quantiser: Quantiser, values: Tensor, levels: Tensor
) -> None:
    y = values.clone().requires_grad_()
    restored, u, kept, _ = quantiser.straight_through(y, importance(levels), torch.ones(2))
    step = quantiser.steps[levels][:, None]
    inside = kept * (y.abs() <= 127 * step)
    assert 0 < inside.sum() < kept.sum() < kept.numel()
    (got,) = torch.autograd.grad(restored.sum(), y, retain_graph=True)
    torch.testing.assert_close(got, inside)
    (got,) = torch.autograd.grad(u.sum(), y)
    torch.testing.assert_close(got, torch.where(inside > 0, 1 / step, 0.0))


@pytest.mark.parametrize("level", [3, 5, 7])
def test_the_error_has_the_slope_of_the_mean_error(quantiser: Quantiser, level: int) -> None:
    """Of many values, over t: the slope at a level against that between its neighbours."""
    y = spread()
    first = quantiser.first_levels
    own = slice(0, sum(s for s, f in zip(quantiser.sizes, first, strict=True) if f < level))

    def error(at: int) -> tuple[Tensor, Tensor]:
        p = importance(torch.full((1, 1, 5000), at))
        restored, *_ = quantiser.straight_through(y, p, torch.ones(1))
        return (restored - y)[:, own].square().mean(), p

    mean, p = error(level)
    (gradient,) = torch.autograd.grad(mean, p)
    slope = float(gradient.sum() / LEVELS / mean.detach())  # of the logarithm; p = t / L
    with torch.no_grad():
        between = math.log(error(level + 1)[0] / error(level - 1)[0]) / 2
    assert slope == pytest.approx(between, rel=0.05)
    assert slope == pytest.approx(-2 * SLOPE * math.log(2), rel=0.01)


def test_values_in_steps_grow_with_the_level(quantiser: Quantiser) -> None:
    y = spread()
    p = importance(torch.full((1, 1, 5000), 6))
    _, u, kept, _ = quantiser.straight_through(y, p, torch.ones(1))
    sizes = (u.abs() + 1e-30).log2() * kept
    (gradient,) = torch.autograd.grad(sizes.sum(), p)
    torch.testing.assert_close(
        gradient / LEVELS / kept.sum(1, keepdim=True), torch.full_like(gradient, SLOPE)
    )


@pytest.mark.parametrize(("p", "moves"), [(0.0, False), (0.02, False), (0.4, True), (0.9, False)])
def test_where_importance_has_a_gradient(
    quantiser: Quantiser, values: Tensor, p: float, moves: bool
) -> None:
    """Not where nothing is sent, and not beyond the highest level; nowhere is it no number."""
    given = torch.full((2, 1, 3, 5), p, requires_grad=True)
    y = values.clone().requires_grad_()
    restored, u, *_ = quantiser.straight_through(y, given, torch.full((2,), 1.5))
    ((restored - 1).square().sum() + u.square().sum()).backward()
    assert given.grad is not None
    assert y.grad is not None
    assert torch.isfinite(given.grad).all()
    assert torch.isfinite(y.grad).all()
    assert bool(given.grad.all()) == bool(given.grad.any()) == moves


# ---- In a network ---------------------------------------------------------------------------


def test_the_basis_is_orthonormal() -> None:
    basis = dct_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(192), rtol=0, atol=1e-5)
    grey = basis[0].reshape(3, 64)
    assert torch.allclose(grey, torch.full((3, 64), 192**-0.5), atol=1e-6)


def test_deviations_are_those_of_a_photograph(photo: NDArray[np.uint8]) -> None:
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    blocks = F.pixel_unshuffle((x - 0.5) * 2, 8).flatten(2)[0]
    found = (dct_basis() @ blocks).std(1)
    both = torch.stack([found.log(), deviations().log()])
    assert torch.corrcoef(both)[0, 1] > 0.95


def _picture(photo: NDArray[np.uint8], height: int, width: int) -> Tensor:
    return torch.from_numpy(photo[:height, :width].copy()).permute(2, 0, 1)[None].float() / 255


def test_a_new_network_is_a_codec(photo: NDArray[np.uint8]) -> None:
    """It starts as a DCT: higher levels, better pictures, before any training."""
    network = CodecNetwork(PRESETS["nano"]).eval()
    x = _picture(photo, 128, 192)
    found = []
    with torch.no_grad():
        raw, p = network.analysed(x)
        assert torch.equal(p, torch.full_like(p, 0.5))
        for scale in (0.25, 0.5, 1.0, 1.5, 2.0):
            coded = network.coded(raw, p, torch.tensor([scale]))
            assert coded.levels is not None
            assert (coded.levels == 16 * scale).all()
            found.append(float(-10 * torch.log10((coded.picture - x).square().mean())))
        q = network.quantiser
        assert q is not None
        wanted = dct_basis()[list(q.rows)] @ F.pixel_unshuffle((x - 0.5) * 2, 8).flatten(2)[0]
    torch.testing.assert_close(raw.flatten(2)[0], wanted, rtol=1e-4, atol=1e-4)
    assert found == sorted(found)
    assert found[-1] > 38


def test_a_learned_map_is_centred(photo: NDArray[np.uint8]) -> None:
    torch.manual_seed(7)
    network = CodecNetwork(VALUES).train()
    torch.nn.init.normal_(network.importance.conv3.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    torch.nn.init.constant_(network.importance.conv3.bias, 2.0)  # type: ignore[union-attr, arg-type]
    x = _picture(photo, 64, 96)
    with torch.no_grad():
        for _ in range(400):  # the running mean follows
            _, p = network.encode(x)
        assert p.logit().mean().abs() < 1e-5
        _, evaluated = network.eval().encode(x)
    assert p.std() > 0.01
    torch.testing.assert_close(evaluated, p, rtol=0, atol=2e-3)
