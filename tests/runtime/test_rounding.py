"""Rounding bit planes: against its definition, and tables that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic
from cwic import rounding
from cwic.errors import BundleError
from cwic.rounding import LIFT, Rounding

# Digits of five values in the order in which levels keep them: 4, 4, 2, 1 and 1 of them.
VALUES = [0, 0, 1, 0, 1, 2, 0, 1, 3, 4, 1, 2]
N, LEVELS = 2 * len(VALUES), 6


def tensors(values: Any = VALUES, kind: type = np.uint16) -> dict[str, NDArray[Any]]:
    return {"planes.values": np.array(values, kind)}


def defined(numbers: NDArray[np.int64], level: int) -> list[list[int]]:
    """Codes of one position by the definition, digit after digit: pairs of A and B."""
    kept = N // LEVELS * level // 2
    seen: dict[int, int] = {}
    found = []
    for j, v in enumerate(VALUES):
        place = VALUES.count(v) - seen.get(v, 0) - 1
        seen[v] = seen.get(v, 0) + 1
        out = VALUES.count(v) - VALUES[:kept].count(v)
        size = abs(int(numbers[v])) / 2**out + LIFT[min(out, 2)]
        size = min(int(size), 2 ** (VALUES.count(v) - out) - 1) * 2**out
        bit = (size >> place) & 1 if j < kept else 0
        found.append([bit * (numbers[v] > 0), bit * (numbers[v] < 0)])
    return found


def codes_of(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """All digits of numbers [5, h, w], uint8 [3, h, w]."""
    bits = np.zeros((N, *numbers.shape[1:]), np.uint8)
    for j, v in enumerate(VALUES):
        place = VALUES.count(v) - VALUES[:j].count(v) - 1
        digit = np.abs(numbers[v]) >> place & 1
        bits[2 * j], bits[2 * j + 1] = digit * (numbers[v] > 0), digit * (numbers[v] < 0)
    return np.packbits(bits, axis=0)


@pytest.fixture
def numbers() -> NDArray[np.int64]:
    """Values [5, 9, 11], all that their digits can say."""
    rng = np.random.default_rng(1)
    most = [2 ** VALUES.count(v) - 1 for v in range(5)]
    return np.stack([rng.integers(-m, m + 1, (9, 11)) for m in most])


@pytest.mark.parametrize("level", range(LEVELS + 1))
def test_codes_are_those_of_the_definition(numbers: NDArray[np.int64], level: int) -> None:
    levels = np.full((9, 11), level, np.uint8)
    found = Rounding(tensors(), N, LEVELS).codes(codes_of(numbers), levels)
    bits = np.unpackbits(found, axis=0).reshape(-1, 2, 9, 11)
    for y in range(9):
        for x in range(11):
            assert bits[:, :, y, x].tolist() == defined(numbers[:, y, x], level)


def test_each_position_by_its_level(
    numbers: NDArray[np.int64], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, codes = Rounding(tensors(), N, LEVELS), codes_of(numbers)
    levels = np.random.default_rng(2).integers(0, LEVELS + 1, (9, 11)).astype(np.uint8)
    whole = model.codes(codes, levels)
    for level in range(LEVELS + 1):
        same = model.codes(codes, np.full((9, 11), level, np.uint8))
        assert np.array_equal(whole[:, levels == level], same[:, levels == level])
    assert np.array_equal(model.codes(whole, levels), whole), "once rounded, they stay"
    monkeypatch.setattr(rounding, "_POSITIONS", 7)
    assert np.array_equal(model.codes(codes, levels), whole)


def test_rounding_is_nearer_than_cutting(numbers: NDArray[np.int64]) -> None:
    """Of values with digits left out, on average."""
    levels = np.full((9, 11), 3, np.uint8)
    rounded = Rounding(tensors(), N, LEVELS).codes(codes_of(numbers), levels)
    kept = np.arange(N)[:, None, None] < N // 2
    cut = np.unpackbits(codes_of(numbers), axis=0) & kept

    def off(bits: NDArray[Any]) -> float:
        digits = bits[::2].astype(int) - bits[1::2]
        total = np.zeros_like(numbers)
        for j, v in enumerate(VALUES):
            total[v] += digits[j] << VALUES.count(v) - VALUES[:j].count(v) - 1
        return float(np.abs(total - numbers)[:2].mean())

    assert off(np.unpackbits(rounded, axis=0)) < 0.9 * off(cut)


@pytest.mark.parametrize("height", [0, 1])
def test_small_maps(height: int) -> None:
    codes, levels = np.zeros((3, height, 1), np.uint8), np.zeros((height, 1), np.uint8)
    assert Rounding(tensors(), N, LEVELS).codes(codes, levels).shape == codes.shape


@pytest.mark.parametrize(
    ("table", "n", "levels"),
    [
        (tensors(kind=np.int32), N, LEVELS),
        (tensors(VALUES[:-1]), N, LEVELS),
        (tensors([VALUES]), N, LEVELS),
        (tensors([0] * 12), N, 8),  # groups of three codes
        (tensors([0] * 16), 32, 8),  # one number of 16 digits
        (tensors([65_535, *VALUES[1:]]), N, LEVELS),
    ],
)
def test_tables_that_do_not_fit(table: dict[str, NDArray[Any]], n: int, levels: int) -> None:
    with pytest.raises(BundleError, match="; export the model again$"):
        Rounding.of(table, n, levels)


def test_other_models_round_nothing(codec: cwic.Codec) -> None:
    assert Rounding.of({}, 128, 16) is None
    codes = np.full((16, 2, 3), 255, np.uint8)
    assert not codec.context.rounds
    assert codec.context.rounded(codes, np.zeros((2, 3), np.uint8)) is codes
