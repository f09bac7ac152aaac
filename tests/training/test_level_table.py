"""The table that levels are coded by."""

from __future__ import annotations

import numpy as np
import pytest

from cwic.level_model import LevelModel
from cwic.rate import levels_from_importance
from cwic_training import coded_pictures
from cwic_training.config import ModelConfig
from cwic_training.level_table import frequencies, level_table

from .entropy_fits import RATES, synthetic


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_frequencies_are_whole_positive_and_complete(levels: int) -> None:
    weights = np.random.default_rng(0).gamma(0.1, size=(50, levels + 1)) + 1e-300
    weights[0] = 1e-300
    weights[0, levels] = 1.0
    rows = frequencies(weights)
    assert rows.dtype == np.uint16
    assert rows.min() >= 1
    assert set(rows.sum(axis=1, dtype=np.int64)) == {65536}
    share = weights / weights.sum(axis=1, keepdims=True)
    assert abs(rows / 65536 - share).max() < 2 * (levels + 1) / 65536


def test_levels_that_never_change_cost_next_to_nothing(tiny: ModelConfig) -> None:
    pictures = [synthetic(np.zeros((tiny.n, 24, 24), np.uint8)) for _ in range(8)]
    table = level_table(coded_pictures.spread_levels(pictures, tiny.levels, RATES, 0), tiny.levels)
    model = LevelModel(table, tiny.levels)
    for scale in coded_pictures._spread_scales(RATES, 8, 0):
        levels = levels_from_importance(pictures[0].importance, float(scale), tiny.levels)
        assert model.encode(levels).bits < 0.3 * levels.size
