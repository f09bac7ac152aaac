"""Quality and levels."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cwic import rate
from cwic.errors import UsageError


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


def test_quality_is_even_in_log_scale_and_invertible() -> None:
    scales = [rate.scale_from_quality(q) for q in rate.QUALITIES]
    steps = np.diff(np.log(scales))
    assert np.allclose(steps, steps[0])
    assert steps[0] > 0
    assert [rate.quality_from_scale(s) for s in scales] == list(rate.QUALITIES)
    assert rate.quality_from_scale(0) == 1
    assert rate.quality_from_scale(1e9) == 100


@pytest.mark.parametrize("quality", [0, -1, 100.5, math.nan, math.inf])
def test_quality_out_of_range(quality: float) -> None:
    with pytest.raises(UsageError, match=r"outside 1\.\.100; use"):
        rate.scale_from_quality(quality)
