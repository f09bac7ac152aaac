"""Recipes: what cannot be trained is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from cwic.errors import TrainingError
from cwic_training.recipe import VALUES_DEFAULTS, Recipe


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "entropy"},
        {"steps": 0},
        {"batch": 0},
        {"validate_every": 0},
        {"crop": 0},
        {"crop": -8},
        {"crop": 60},
        {"seed": -1},
        {"seed": 1 << 32},
        {"cooldown": -0.1},
        {"cooldown": 1.1},
        {"rate_bpp": 0.0},
        {"scale_min": 0.0},
        {"scale_min": 2.0, "scale_max": 1.0},
        {"muon_lr": -0.1},
        {"adam_lr": -0.1},
        {"rate_weight": -1.0},
        {"rate_weight": 0.0, "rate_model": "values"},
        {"rate_bpp": 0.5, "rate_model": "values"},
        {"stage": "main", "rate_model": "values"},
        {"rate_model": "bits"},
        {"rate_model": ""},
        {"ms_ssim": -0.1, "crop": 192},
        {"ms_ssim": 1.1, "crop": 192},
        {"ms_ssim": 0.5, "crop": 160},
    ],
)
def test_an_impossible_recipe_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TrainingError) as caught:
        Recipe(**change)
    assert "\n" not in str(caught.value)


def test_a_recipe_survives_its_record() -> None:
    recipe = Recipe(steps=7, scale_max=2.0, rate_model="values")
    assert Recipe(**recipe.to_dict()) == recipe


def test_defaults_are_those_of_the_codes() -> None:
    assert Recipe.suited_to("signs", "importance") == Recipe()
    assert Recipe.suited_to("signs", "main") == Recipe(stage="main")
    of_values = Recipe.suited_to("values", "importance")
    assert of_values == Recipe(**VALUES_DEFAULTS)
    assert of_values.rate_model == "values"
    signs = Recipe().to_dict()
    assert not [name for name, value in VALUES_DEFAULTS.items() if value == signs[name]]


def test_what_is_given_is_no_default() -> None:
    fields = {"batch": None, "crop": 256, "ms_ssim": 0.0, "steps": 5}
    found = Recipe.suited_to("values", "importance", **fields)
    assert found == Recipe(**(VALUES_DEFAULTS | {"crop": 256, "ms_ssim": 0.0, "steps": 5}))
    with pytest.raises(TrainingError, match="crops of"):
        Recipe.suited_to("values", "importance", crop=64)
