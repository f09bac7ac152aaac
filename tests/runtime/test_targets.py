"""Byte budgets and PSNR targets: never missed, nearly used, from one encoder pass."""

from __future__ import annotations

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


def _files(importance: NDArray[np.float64], bits_per_code: float) -> object:
    """Files of a picture whose later groups cost more, as sizes."""
    costs = bits_per_code * np.linspace(0.8, 1.1, _LEVELS)

    def make(scale: float) -> targets.Measured:
        levels = rate.levels_from_importance(importance, scale, _LEVELS)
        codes = np.array([_GROUP * np.count_nonzero(levels > g) for g in range(_LEVELS)])
        bits = codes * costs
        return targets.Measured(200 + round(bits.sum() / 8), bits)

    return make


@pytest.mark.parametrize("kind", ["even", "saturated", "flat"])
@pytest.mark.parametrize("bits", [0.5, 0.8, 1.0])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_budget_is_kept_and_used(kind: str, bits: float, share: float) -> None:
    fine = targets.refined(_map(kind))
    make = _files(fine, bits)
    largest = make(_HIGHEST).size_bytes  # type: ignore[operator]
    budget = 250 + round(share * (largest - 250))
    asked: list[float] = []

    def counted(scale: float) -> targets.Measured:
        asked.append(scale)
        return make(scale)  # type: ignore[operator, no-any-return]

    scale = targets.scale_for_budget(counted, budget, fine, _LEVELS, _GROUP, _HIGHEST)
    assert scale in asked
    assert 0.99 * budget <= make(scale).size_bytes <= budget  # type: ignore[operator]
    assert len(asked) <= 4


def test_a_budget_beyond_the_largest_file_takes_the_largest() -> None:
    fine = targets.refined(_map("even"))
    scale = targets.scale_for_budget(_files(fine, 0.8), 10**9, fine, _LEVELS, _GROUP, _HIGHEST)  # type: ignore[arg-type]
    assert scale == pytest.approx(_HIGHEST, rel=1e-3)


@pytest.mark.parametrize("budget", [0, 1, 199])
def test_an_impossible_budget_names_the_smallest(budget: int) -> None:
    fine = targets.refined(_map("even"))
    message = f"^{budget} bytes are too few.*smallest possible is 200 bytes"
    with pytest.raises(RateError, match=message):
        targets.scale_for_budget(_files(fine, 0.8), budget, fine, _LEVELS, _GROUP, _HIGHEST)  # type: ignore[arg-type]


@pytest.mark.parametrize("target_db", [20.0, 25.0, 31.4, 33.99])
def test_psnr_is_reached_and_hardly_exceeded(target_db: float) -> None:
    def psnr_db(scale: float) -> float:
        return float(34 + 3.3 * np.log(scale / 1.5) - 0.3 * np.log(scale / 1.5) ** 2)

    found = psnr_db(targets.scale_for_psnr(psnr_db, target_db, _HIGHEST))
    assert target_db <= found <= target_db + 0.05


def test_a_psnr_out_of_reach_names_the_best() -> None:
    with pytest.raises(RateError, match=r"^40 dB cannot.*at most 32\.12 dB$"):
        targets.scale_for_psnr(lambda scale: 32.129 * scale / 1.5, 40, _HIGHEST)


@pytest.mark.parametrize("budget", [300, 700, 2000, 5000])
def test_real_files_keep_their_budget(
    codec: cwic.Codec, photo: NDArray[np.uint8], budget: int
) -> None:
    picture = photo[100:356, 200:520]
    size = len(codec.encode(picture, max_bytes=budget))
    assert 0.99 * budget <= size <= budget


def test_bpp_is_a_budget(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    picture = photo[100:356, 200:520]
    assert 0.99 * 0.3 <= codec.encode_detailed(picture, bpp=0.3).bpp <= 0.3


@pytest.mark.parametrize("target_db", [24.0, 29.0])
def test_real_pictures_reach_their_psnr(
    codec: cwic.Codec, photo: NDArray[np.uint8], target_db: float
) -> None:
    picture = photo[100:356, 200:523]
    restored = np.asarray(codec.decode(codec.encode(picture, psnr_db=target_db)))
    error = np.square(restored.astype(float) - picture).mean()
    assert target_db <= 10 * np.log10(255**2 / error) <= target_db + 0.05 + 1e-3


@pytest.mark.parametrize("psnr_db", [0, -3, 100, float("nan")])
def test_psnr_out_of_range(codec: cwic.Codec, psnr_db: float) -> None:
    with pytest.raises(UsageError, match=r"outside 0\.\.100; use"):
        codec.encode(np.zeros((16, 16, 3), np.uint8), psnr_db=psnr_db)


def test_one_target_at_a_time(codec: cwic.Codec) -> None:
    with pytest.raises(UsageError, match="exclude each other; give one"):
        codec.encode(np.zeros((16, 16, 3), np.uint8), psnr_db=30, bpp=1)
