"""Byte budgets and PSNR targets: never missed, nearly used, from one encoder pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic
from cwic import rate, targets
from cwic.errors import RateError, UsageError

_LEVELS, _GROUP = 16, 8
_HIGHEST = 1.5


def _map(kind: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    if kind == "saturated":  # a third of all positions share one importance
        return np.where(rng.random((64, 96)) < 0.3, 255, rng.integers(0, 256, (64, 96))).astype(
            np.uint8
        )
    if kind == "flat":
        return np.full((64, 96), 90, np.uint8)
    if kind == "empty":
        return np.zeros((64, 96), np.uint8)
    return rng.integers(0, 256, (64, 96)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["even", "saturated", "flat", "empty"])
def test_refined_importance_has_no_equals_and_stays_where_it_was(kind: str) -> None:
    importance = _map(kind)
    fine = targets.refined(importance)
    assert fine.shape == importance.shape
    assert len(np.unique(fine)) == fine.size
    assert np.abs(fine * 255 - importance).max() < 0.5
    for scale in (0.1, 0.4, 1.5):
        wide, whole = (rate.levels_from_importance(p, scale, 16) for p in (fine, importance))
        assert np.abs(wide.astype(int) - whole).max() <= 1


_SIGNS = 6.24 * np.arange(_LEVELS + 1)
_VALUES = {
    "smooth": 300 * (np.arange(33) / 32) ** 3,
    "in jumps": np.cumsum(np.where(np.arange(33) % 5, 1e-3, 0.7 * np.arange(33) ** 1.5)),
    "doubling": 2.0 ** (np.arange(33) / 4) - 1,
}
Make: TypeAlias = Callable[[float], targets.Measured]


def _files(importance: NDArray[np.float64], bits: NDArray[np.float64], rest: int = 200) -> Make:
    """Files of a picture as sizes, where a position of each level takes so many bits."""

    def make(scale: float) -> targets.Measured:
        levels = rate.levels_from_importance(importance, scale, len(bits) - 1)
        code_bits = float(bits[levels].sum())
        return targets.Measured(rest + round(code_bits / 8), code_bits)

    return make


def _reached(
    make: Make, share: float, fine: NDArray[np.float64], typical_bits: NDArray[np.float64]
) -> int:
    """Asks for a share of what there is between smallest and largest file; says of how many."""
    smallest, largest = (make(scale).size_bytes for scale in (targets.SMALLEST_SCALE, _HIGHEST))
    budget = smallest + 50 + round(share * (largest - smallest - 50))
    asked: list[float] = []

    def counted(scale: float) -> targets.Measured:
        asked.append(scale)
        return make(scale)

    scale = targets.scale_for_budget(counted, budget, fine, typical_bits, _HIGHEST)
    assert scale in asked
    assert 0.99 * budget <= make(scale).size_bytes <= budget
    return len(asked)


@pytest.mark.parametrize("kind", ["even", "saturated", "flat"])
@pytest.mark.parametrize("bits", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_budget_is_kept_and_used(kind: str, bits: float, share: float) -> None:
    """Of signs, whose later groups cost more."""
    fine = targets.refined(_map(kind))
    costs = np.append(0, np.cumsum(_GROUP * bits * np.linspace(0.8, 1.1, _LEVELS)))
    assert _reached(_files(fine, costs), share, fine, _SIGNS) <= 4


@pytest.mark.parametrize("kind", ["even", "saturated", "flat"])
@pytest.mark.parametrize("typical", _VALUES)
@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_typical_bits_may_be_wrong_by_a_factor(
    kind: str, typical: str, factor: float, share: float
) -> None:
    """Of values, whose bits rise ever faster."""
    fine = targets.refined(_map(kind))
    bits = _VALUES[typical]
    assert _reached(_files(fine, factor * bits), share, fine, bits) <= (9 if kind == "flat" else 5)


@pytest.mark.parametrize("kind", ["even", "saturated", "flat"])
@pytest.mark.parametrize("power", [0.25, 0.6, 1.5, 3.0])
@pytest.mark.parametrize("rest", [40, 3000])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_typical_bits_may_be_of_another_form(
    kind: str, power: float, rest: int, share: float
) -> None:
    """Up to eight times as many at low levels: that costs files, and no budget."""
    fine = targets.refined(_map(kind))
    typical = _VALUES["smooth"]
    bits = typical[-1] * (typical / typical[-1]) ** power
    assert _reached(_files(fine, bits, rest), share, fine, typical) <= 9


@pytest.mark.parametrize("kind", ["even", "saturated"])
@pytest.mark.parametrize("typical", _VALUES)
def test_predictions_that_creep_are_given_up(kind: str, typical: str) -> None:
    """Most of the bits in the first levels, where they were typical in the last."""
    fine = targets.refined(_map(kind))
    bits = 300 * np.sqrt(np.arange(33) / 32)
    assert _reached(_files(fine, bits), 0.6, fine, _VALUES[typical]) <= 9


def test_levels_that_are_free_where_it_was_typical() -> None:
    """Typical bits say nothing of where levels rise; the levels themselves do."""
    fine = targets.refined(_map("saturated"))
    typical = np.minimum(5.0 * np.arange(33), 20)
    for share in (0.1, 0.5, 0.9):
        assert _reached(_files(fine, 2.0 * np.arange(33)), share, fine, typical) <= 9


def test_no_file_is_made_twice_where_none_lies_between() -> None:
    """One position of two costs more than is left: files are few, and the smaller one is taken."""
    importance = np.array([[0.3, 0.6]])
    make = _files(importance, 1000.0 * np.arange(2))
    asked: list[float] = []

    def counted(scale: float) -> targets.Measured:
        asked.append(scale)
        return make(scale)

    typical = 900.0 * np.arange(2)
    scale = targets.scale_for_budget(counted, 400, importance, typical, _HIGHEST)
    assert make(scale).size_bytes == 325
    assert len(asked) < 12


def test_a_budget_beyond_the_largest_file_takes_the_largest() -> None:
    fine = targets.refined(_map("even"))
    scale = targets.scale_for_budget(_files(fine, _SIGNS), 10**9, fine, _SIGNS, _HIGHEST)
    assert scale == pytest.approx(_HIGHEST, rel=1e-3)


@pytest.mark.parametrize("budget", [0, 1, 199])
@pytest.mark.parametrize("typical", [_SIGNS, *_VALUES.values()])
def test_an_impossible_budget_names_the_smallest(budget: int, typical: NDArray[np.float64]) -> None:
    fine = targets.refined(_map("even"))
    message = f"^{budget} bytes are too few.*smallest possible is 200 bytes"
    with pytest.raises(RateError, match=message):
        targets.scale_for_budget(_files(fine, typical), budget, fine, typical, _HIGHEST)


@pytest.mark.parametrize("target_db", [20.0, 25.0, 31.4, 33.99])
def test_psnr_is_reached_and_hardly_exceeded(target_db: float) -> None:
    fine = targets.refined(_map("even"))
    make = _files(fine, _SIGNS)
    most = make(_HIGHEST).code_bits

    def psnr_db(scale: float) -> float:
        rate = np.log((make(scale).code_bits + 1) / most)
        return float(34 + 3.3 * rate - 0.3 * rate**2)

    found = psnr_db(targets.scale_for_psnr(psnr_db, target_db, fine, _SIGNS, _HIGHEST))
    assert target_db <= found <= target_db + 0.05


def test_a_psnr_out_of_reach_names_the_best() -> None:
    fine = targets.refined(_map("even"))
    with pytest.raises(RateError, match=r"^40 dB cannot.*at most 32\.12 dB$"):
        targets.scale_for_psnr(lambda scale: 32.129 * scale / _HIGHEST, 40, fine, _SIGNS, _HIGHEST)


@pytest.mark.parametrize("budget", [300, 700, 2000, 5000])
def test_real_files_keep_their_budget(
    either: cwic.Codec, photo: NDArray[np.uint8], budget: int
) -> None:
    picture = photo[100:356, 200:520]
    size = len(either.encode(picture, max_bytes=budget))
    assert 0.99 * budget <= size <= budget


def test_bpp_is_a_budget(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    picture = photo[100:356, 200:520]
    assert 0.99 * 0.3 <= codec.encode_detailed(picture, bpp=0.3).bpp <= 0.3


@pytest.mark.parametrize("target_db", [24.0, 29.0])
def test_real_pictures_reach_their_psnr(
    either: cwic.Codec,
    photo: NDArray[np.uint8],
    target_db: float,
) -> None:
    picture = photo[100:356, 200:523]
    restored = np.asarray(either.decode(either.encode(picture, psnr_db=target_db)))
    error = np.square(restored.astype(float) - picture).mean()
    assert target_db <= 10 * np.log10(255**2 / error) <= target_db + 0.05 + 1e-3


@pytest.mark.parametrize("psnr_db", [0, -3, 100, float("nan")])
def test_psnr_out_of_range(codec: cwic.Codec, psnr_db: float) -> None:
    with pytest.raises(UsageError, match=r"outside 0\.\.100; use"):
        codec.encode(np.zeros((16, 16, 3), np.uint8), psnr_db=psnr_db)


def test_one_target_at_a_time(codec: cwic.Codec) -> None:
    with pytest.raises(UsageError, match="exclude each other; give one"):
        codec.encode(np.zeros((16, 16, 3), np.uint8), psnr_db=30, bpp=1)
