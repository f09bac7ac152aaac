"""The two operators: their definition by brute force, their gradients, their registrations."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cwic_training import ops

SHAPES = [(1, 1, 1, 1), (2, 1, 3, 5), (3, 1, 4, 2)]
GRIDS = [(1, 8), (8, 16), (16, 128), (32, 128), (5, 40)]  # levels, n
SCALES = [0.0, 0.08, 0.5, 1.0, 3.0]


def importance(shape: tuple[int, ...], seed: int = 0, dtype: Any = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scales(count: int, around: float = 1.0, dtype: Any = torch.float64) -> Tensor:
    return around * torch.linspace(0.5, 1.5, count, dtype=dtype)


def by_definition(p: Tensor, scale: Tensor, levels: int, n: int) -> Tensor:
    """Code k is kept where k < level * n / L, position by position, in whole numbers."""
    mask = torch.zeros(p.shape[0], n, *p.shape[2:])
    for i, y, x in itertools.product(range(p.shape[0]), range(p.shape[2]), range(p.shape[3])):
        value = min(max(float(p[i, 0, y, x]) * float(scale[i]), 0.0), 1.0)
        level = round(value * levels)  # half to even, as torch.round
        mask[i, :, y, x] = torch.tensor([k * levels < level * n for k in range(n)])
    return mask


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 5), ()])
def test_binarize_is_a_step_at_zero(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    wanted = torch.tensor([float(v > 0) for v in x.reshape(-1)]).reshape(shape)
    assert torch.equal(ops.binarize(x), wanted)


def test_binarize_of_special_values() -> None:
    x = torch.tensor([0.0, -0.0, 1e-45, -1e-45, float("inf"), -float("inf"), float("nan")])
    assert ops.binarize(x).tolist() == [0, 0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("levels", "n"), GRIDS)
@pytest.mark.parametrize("around", SCALES)
def test_the_mask_is_its_definition(
    shape: tuple[int, ...], levels: int, n: int, around: float
) -> None:
    p, scale = importance(shape), scales(shape[0], around)
    mask = ops.importance_mask(p, scale, levels, n)
    assert torch.equal(mask.float(), by_definition(p, scale, levels, n))


@pytest.mark.parametrize(("levels", "n"), GRIDS)
def test_the_mask_of_every_level(levels: int, n: int) -> None:
    p = (torch.arange(levels + 1, dtype=torch.float64) / levels).view(1, 1, 1, -1)
    mask = ops.importance_mask(p, torch.ones(1, dtype=torch.float64), levels, n)
    assert mask.sum(1).flatten().tolist() == [g * n // levels for g in range(levels + 1)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("levels", "n"), [(16, 128), (64, 512)])
def test_the_mask_is_exact_in_every_type(dtype: torch.dtype, levels: int, n: int) -> None:
    """Channel numbers above 256 do not fit into a bfloat16."""
    p = (torch.arange(levels + 1) / levels).view(1, 1, 1, -1).to(dtype)
    mask = ops.importance_mask(p, torch.ones(1, dtype=dtype), levels, n)
    assert mask.dtype == dtype
    assert torch.equal(mask.float(), by_definition(p, torch.ones(1), levels, n))


def surrogate_grads(
    p: Tensor, scale: Tensor, levels: int, n: int, weight: Tensor
) -> tuple[Tensor, ...]:
    m = ops.importance_mask_surrogate(p, scale, levels, n)
    return torch.autograd.grad((m * weight).sum(), (p, scale))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_binarize_backward_is_the_surrogates(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-2, 2, 41), torch.tensor([-1.0, 1.0, 0.0])]).to(dtype)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=dtype)
    x.requires_grad_()
    (wanted,) = torch.autograd.grad((ops.binarize_surrogate(x) * weight).sum(), x)
    (got,) = torch.autograd.grad((ops.binarize(x) * weight).sum(), x)
    assert torch.equal(got, wanted)
    inside = x.detach().abs() <= 1
    assert (got[inside] != 0).all()
    assert (got[~inside] == 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("levels", "n"), GRIDS)
@pytest.mark.parametrize("around", SCALES)
def test_mask_backward_is_the_surrogates(
    shape: tuple[int, ...], levels: int, n: int, around: float
) -> None:
    p = importance(shape, 3).requires_grad_()
    scale = scales(shape[0], around).requires_grad_()
    weight = torch.randn(
        shape[0], n, *shape[2:], generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    wanted = surrogate_grads(p, scale, levels, n, weight)
    got = torch.autograd.grad((ops.importance_mask(p, scale, levels, n) * weight).sum(), (p, scale))
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("needs", ["p", "scale"])
def test_mask_backward_for_one_input_alone(needs: str) -> None:
    p, scale = importance((2, 1, 3, 3), 5), scales(2)
    wanted = surrogate_grads(
        p.clone().requires_grad_(), scale.clone().requires_grad_(), 8, 16, torch.ones(())
    )
    chosen = {"p": p, "scale": scale}[needs].requires_grad_()
    (got,) = torch.autograd.grad(ops.importance_mask(p, scale, 8, 16).sum(), chosen)
    torch.testing.assert_close(got, wanted[needs == "scale"])


def test_surrogates_pass_gradcheck() -> None:
    x = torch.linspace(-1.9, 1.9, 12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(ops.binarize_surrogate, x)
    p = (importance((2, 1, 2, 3), 6) * 0.9 + 0.02).requires_grad_()
    scale = torch.tensor([0.6, 1.05], dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, scale: ops.importance_mask_surrogate(p, scale, 8, 16), (p, scale)
    )


def test_the_masks_gradient_is_real() -> None:
    """A known reimplementation returns ones: it then knows neither scale nor saturation."""
    p = torch.tensor([0.05, 0.5, 0.99], dtype=torch.float64).view(1, 1, 1, 3).requires_grad_()
    for s in (0.5, 1.0):
        mask = ops.importance_mask(p, torch.tensor([s], dtype=torch.float64), 16, 128)
        (grad,) = torch.autograd.grad(mask.sum(), p)
        # In the middle the number of codes grows by n * s per unit of importance.
        assert grad[0, 0, 0, 1].item() == pytest.approx(128 * s, rel=1e-4)
        assert not torch.allclose(grad, torch.ones_like(grad))
    mask = ops.importance_mask(p, torch.tensor([3.0], dtype=torch.float64), 16, 128)
    (grad,) = torch.autograd.grad(mask.sum(), p)
    assert grad.flatten()[1:].tolist() == [0, 0]  # every code is kept: more importance is idle


def samples() -> list[Any]:
    rows = []
    for shape, dtype, grad in zip(
        SHAPES, (torch.float32, torch.float64, torch.float32), (False, True, True), strict=True
    ):
        p = importance(shape, dtype=dtype)
        rows.append((p.requires_grad_(grad), scales(shape[0], dtype=dtype).requires_grad_(grad)))
    rows.append((importance((2, 1, 3, 5)).to(memory_format=torch.channels_last), scales(2)))
    rows.append((importance((2, 1, 5, 3)).transpose(2, 3), scales(2)))
    return rows


@pytest.mark.parametrize("inputs", samples())
def test_opcheck(inputs: tuple[Tensor, Tensor]) -> None:
    p, scale = inputs
    torch.library.opcheck(torch.ops.cwic.importance_mask.default, (p, scale, 8, 16))
    x = (p.detach() - 0.5).requires_grad_(p.requires_grad)
    torch.library.opcheck(torch.ops.cwic.binarize.default, (x,))


@pytest.mark.parametrize(("levels", "n"), GRIDS)
def test_decomposed_forms_are_the_operators(levels: int, n: int) -> None:
    p, scale = importance((3, 1, 4, 4), 7), scales(3)
    assert torch.equal(
        ops.importance_mask_decomposed(p, scale, levels, n),
        ops.importance_mask(p, scale, levels, n),
    )
    assert torch.equal(ops.binarize_decomposed(p - 0.5), ops.binarize(p - 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fake_kernels_give_shapes_and_types(dtype: torch.dtype) -> None:
    with FakeTensorMode():
        p = torch.empty(3, 1, 5, 7, dtype=dtype)
        mask = ops.importance_mask(p, torch.empty(3), 8, 24)
        bits = ops.binarize(torch.empty(3, 24, 5, 7, dtype=dtype))
    assert (mask.shape, mask.dtype) == ((3, 24, 5, 7), dtype)
    assert (bits.shape, bits.dtype) == ((3, 24, 5, 7), dtype)


def test_compiled_is_eager_forward_and_backward() -> None:
    """Without a graph break, and for shapes that the compiler has not seen."""

    def kept(e: Tensor, p: Tensor, scale: Tensor) -> Tensor:
        return (2 * ops.binarize(e) - 1) * ops.importance_mask(p, scale, 8, 16)

    torch._dynamo.reset()
    compiled = torch.compile(kept, backend="aot_eager", fullgraph=True, dynamic=True)
    for count, height, width in ((2, 3, 5), (4, 6, 2)):
        e = torch.randn(count, 16, height, width, dtype=torch.float64).requires_grad_()
        p = importance((count, 1, height, width)).requires_grad_()
        scale = scales(count).requires_grad_()
        weight = torch.rand(count, 16, height, width, dtype=torch.float64)
        results = []
        for function in (kept, compiled):
            y = function(e, p, scale)
            results.append((y, *torch.autograd.grad((y * weight).sum(), (e, p, scale))))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_autocast_leaves_the_operators_alone() -> None:
    e, p, scale = torch.randn(2, 16, 3, 3), importance((2, 1, 3, 3), dtype=torch.float32), scales(2)
    e.requires_grad_()
    scale = scale.float()
    plain = ops.binarize(e), ops.importance_mask(p, scale, 8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = ops.binarize(e), ops.importance_mask(p, scale, 8, 16)
        (grad,) = torch.autograd.grad(cast[0].sum(), e)
    for a, b in zip(plain, cast, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)
    assert grad.dtype == torch.float32
    assert torch.equal(grad, 0.5 * (e.abs() <= 1))
