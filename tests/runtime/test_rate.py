"""Quality and levels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cwic import rate
from cwic.errors import UsageError
from cwic.rate import levels_from_importance, moved


def test_levels_follow_their_definition() -> None:
    importance = np.arange(256, dtype=np.uint8)
    for scale in (0.0, 0.1, 0.7, 1.0, 3.0):
        expected = [round(min(1.0, i * (scale / 255)) * 16) for i in range(256)]
        levels = rate.levels_from_importance(importance, scale, 16)
        assert levels.tolist() == expected
        assert levels.dtype == np.uint8


def test_levels_keep_the_shape_and_rise_with_scale() -> None:
    importance = np.random.default_rng(0).integers(0, 256, (5, 7)).astype(np.uint8)
    low, high = (rate.levels_from_importance(importance, s, 32) for s in (0.3, 0.6))
    assert low.shape == (5, 7)
    assert (low <= high).all()
    assert low.sum() < high.sum()


@pytest.mark.parametrize("scales", [(0.06, 1.5), (0.05, 0.1, 0.4, 3.0), (0.2, 0.3, 0.31)])
def test_quality_rises_evenly_between_knots_and_is_invertible(scales: tuple[float, ...]) -> None:
    qualities = rate.QualityScale(scales)
    found = [qualities.scale(q) for q in rate.QUALITIES]
    assert found[0] == pytest.approx(scales[0])
    assert found[-1] == pytest.approx(scales[-1]) == qualities.highest
    assert (np.diff(found) > 0).all()
    knots = np.linspace(1, 100, len(scales))
    assert [qualities.scale(q) for q in knots] == pytest.approx(scales)
    assert [qualities.quality(s) for s in found] == list(rate.QUALITIES)
    assert (qualities.quality(0), qualities.quality(1e9)) == (1, 100)
    middle = (knots[0] + knots[1]) / 2
    assert qualities.scale(middle) == pytest.approx((scales[0] * scales[1]) ** 0.5)


@pytest.mark.parametrize(
    "scales", [(), (1.0,), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (0.1, math.nan), (0.1, 1e9)]
)
def test_scales_that_do_not_rise_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must rise"):
        rate.QualityScale(scales)


@pytest.mark.parametrize("quality", [0, -1, 100.5, math.nan, math.inf])
def test_quality_out_of_range(quality: float) -> None:
    with pytest.raises(UsageError, match=r"outside 1\.\.100; use"):
        rate.QualityScale().scale(quality)


@pytest.mark.parametrize("scale", [0.2, 0.73, 3.0])
def test_moved_importance_gives_the_levels_that_are_wanted(scale: float) -> None:
    rng = np.random.default_rng(4)
    importance = rng.random((23, 31))
    before = levels_from_importance(importance, scale, 16)
    wanted = np.clip(before + rng.integers(-1, 2, before.shape), 0, 16).astype(np.uint8)
    found = moved(importance, scale, wanted, 16)
    assert np.array_equal(levels_from_importance(found, scale, 16), wanted)
    assert np.array_equal(found[before == wanted], importance[before == wanted])
    inside = before < 16  # they go on from where they are at other rates
    for other in (0.8 * scale, 1.2 * scale):
        change = levels_from_importance(found, other, 16).astype(int)
        change -= levels_from_importance(importance, other, 16)
        assert (change * np.sign(wanted.astype(int) - before) >= 0)[inside].all()
        assert abs(change)[inside].max() <= 2
