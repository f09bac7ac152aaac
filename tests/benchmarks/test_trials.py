"""Short trainings: what a trial changes, and the table."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import trials, trials_table
from lightning.pytorch.callbacks import Callback

from cwic.errors import TrainingError
from cwic_training import ops, optim
from cwic_training.config import PRESETS
from cwic_training.recipe import Recipe

PHOTOS = str(Path(__file__).parents[2] / "assets" / "kodim*.png")


@pytest.mark.parametrize("name", trials.TRIALS)
def test_a_trial_is_a_recipe_and_a_model(name: str) -> None:
    trial = trials.TRIALS[name]
    replace(Recipe(), **trial.recipe)
    replace(PRESETS["nano-signs"], **trial.model)
    with trial.patched():
        assert (ops.MASK_SURROGATE_WIDTH != 3) == ("surrogate" in name)
        assert (optim.WEIGHT_DECAY != 0.01) == ("weight decay" in name)
    assert (ops.MASK_SURROGATE_WIDTH, optim.WEIGHT_DECAY) == (3, 0.01)


def test_a_trial_trains_and_is_validated() -> None:
    small = trials.Trial({"crop": 64, "batch": 4}, {"width": 32, "hidden": 32}, pixels=2)
    found = trials.run(small, PHOTOS, PHOTOS, 4)
    assert {"loss", "psnr_0.25", "bpp_0.6", "psnr_1.5", "time_s"} <= set(found)
    assert found["loss"] > 0
    other = {**found, "loss": found["loss"] * 1.25}
    lines = trials_table.table({"validation": {"one": found, "other": other}}).splitlines()
    assert lines[2].startswith(f"| one | {found['loss']:.1f} |  |")
    assert "| +25.0 % |" in lines[3]


def test_a_stopped_trial_is_no_result() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = trials.Trial(
        {"crop": 64, "batch": 4}, {"width": 32, "hidden": 32}, 1, lambda: [Stop()]
    )
    with pytest.raises(TrainingError, match="stopped; call the command again"):
        trials.run(stopped, PHOTOS, PHOTOS, 40)
