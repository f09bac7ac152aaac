"""Values to whole numbers: the formulas, and what a level leaves out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cwic import quantiser
from cwic.quantiser import LARGEST, ZERO, Quantiser

STEPS = np.array([0, 4.4, 1, 0.3, 1 / 1024], np.float32)
FIRST_LEVELS = np.array([1, 1, 2, 2, 2, 4], np.uint8)


@pytest.fixture(scope="module")
def model() -> Quantiser:
    return Quantiser(STEPS, FIRST_LEVELS)


def in_bytes(whole: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Fixed point [n, h, w], 0 for y = 0, as an encoder network gives it."""
    shifted = whole + 32768
    return np.concatenate([shifted >> 8, shifted & 255]).astype(np.uint8)


def some_content(size: tuple[int, int], seed: int = 0) -> tuple[NDArray[np.int64], ...]:
    """Fixed point, of values of every size, and levels."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(-32768, 32768, (6, *size))
    return wide >> rng.integers(0, 16, wide.shape), rng.integers(0, 5, size)


def test_the_formula(model: Quantiser) -> None:
    whole, levels = some_content((40, 50))
    found = model.quantised(in_bytes(whole), levels.astype(np.uint8))
    steps = np.append(np.inf, STEPS[1:].astype(float))[levels]
    exact = whole / 1024 / steps
    expected = np.rint(exact).clip(-LARGEST, LARGEST)
    expected[FIRST_LEVELS[:, None, None] > levels] = 0
    # Half-way between two numbers float32 may go to the other one.
    sure = np.abs(exact - np.floor(exact) - 0.5) > 1e-4
    assert found.dtype == np.uint8
    assert np.array_equal(found[sure], (expected + ZERO)[sure])
    assert np.abs(found - (expected + ZERO)).max() <= 1
    assert sure.mean() > 0.95
    assert {1, ZERO, 255} <= set(found.reshape(-1).tolist())


@pytest.mark.parametrize(
    ("whole", "level", "expected"),
    [
        (0, 2, 0),
        (1024, 2, 1),
        (1535, 2, 1),
        (1537, 2, 2),
        (-1537, 2, -2),
        (32767, 2, 32),
        (-32768, 2, -32),
        (32767, 3, 107),
        (32767, 4, 127),
        (-32768, 4, -127),
        (126, 4, 126),
        (-128, 4, -127),
        (32767, 1, 0),
        (-32768, 0, 0),
    ],
)
def test_by_hand(model: Quantiser, whole: int, level: int, expected: int) -> None:
    codes = in_bytes(np.full((6, 1, 1), whole))
    found = model.quantised(codes, np.full((1, 1), level, np.uint8))
    assert found[2, 0, 0] == ZERO + expected  # from level 2 on


def test_level_0_has_nothing(model: Quantiser) -> None:
    whole, levels = some_content((5, 7))
    assert (model.quantised(in_bytes(whole), np.zeros(levels.shape, np.uint8)) == ZERO).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (8, 8), (3, 11)])
def test_parts_are_as_the_whole(
    model: Quantiser, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    whole, levels = some_content(size)
    codes, levels = in_bytes(whole), levels.astype(np.uint8)
    expected = model.quantised(codes, levels)
    monkeypatch.setattr(quantiser, "_POSITIONS", 8)
    assert expected.shape == (6, *size)
    assert np.array_equal(model.quantised(codes, levels), expected)
