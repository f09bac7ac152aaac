"""The script that trains for a given time: its plan, and whole runs by a clock of the test's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts.accelerator import train
from scripts.accelerator.plan import PROBE_STEPS, Clock, Plan
from tests.export.conftest import VALUES, make_checkpoint

from cwic.errors import TrainingError
from cwic_training.checkpoint import load_checkpoint, save_checkpoint
from cwic_training.optim import PRICE_RATE
from cwic_training.recipe import VALUES_DEFAULTS

pytestmark = pytest.mark.usefixtures("one_thread")


class Ticking:
    """A clock that a look at it moves on, so that no result depends on the machine's speed."""

    def __init__(self, step_s: float) -> None:
        self.time_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.time_s += self.step_s
        return self.time_s


def probe(ready_s: float = 10.0, validation_s: float = 2.0, first_step: int = 0) -> Clock:
    """Of 100 steps of 0.1 s after 10 to warm up."""
    clock = Clock()
    clock.first_step, clock.ready_s = first_step, ready_s
    clock.steps, clock.steps_s = 100, 10.0
    clock.validations_s = [validation_s]
    return clock


def test_a_plan_fills_the_time() -> None:
    plan = Plan.of(probe(), 110, 400.0, validate_every=50, cooldown=0.3)
    # 95 % of 400 s, less 12 s to get ready and for the last validation; a step with its share
    # of a validation takes 0.14 s.
    assert plan.steps == 110 + int((380 - 12) / 0.14)
    assert plan.probe_steps == 110
    assert plan.cooldown == pytest.approx(0.3)


def test_a_plan_cools_down_over_its_own_steps() -> None:
    plan = Plan.of(probe(first_step=30_000), 30_110, 400.0, validate_every=50, cooldown=0.3)
    own = plan.steps - 30_000
    assert plan.cooldown * plan.steps == pytest.approx(0.3 * own)
    everything = Plan.of(probe(), 110, 400.0, validate_every=50, cooldown=1.0)
    # The probe is over: rates cannot have fallen in it.
    assert everything.cooldown * everything.steps == pytest.approx(everything.steps - 110)


def test_a_time_that_is_too_short_is_refused() -> None:
    with pytest.raises(TrainingError, match="give more --minutes"):
        Plan.of(probe(), 110, 12.0, validate_every=50, cooldown=0.3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(path, make_checkpoint(VALUES))
    return path


def arguments(folder: Path, details: str, *more: str) -> list[str]:
    quick = "--batch 2 --crop 32 --ms-ssim 0 --precision 32-true --validate-every 40 --no-progress"
    names = ["-o", str(folder), "--train-glob", details, "--valid-glob", details]
    return [*names, *quick.split(), "--accelerator", "cpu", *more]


def test_a_run_fills_its_time_and_can_be_resumed(
    tmp_path: Path,
    details: str,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train, "_now", Ticking(0.1))
    run_folder = tmp_path / "run"
    start = ("--init", str(weights))
    assert train.main(["--minutes", "0.3", *arguments(run_folder, details, *start)]) == 0
    facts = json.loads((run_folder / train.RESULT).read_text())
    plan = facts["plan"]
    assert facts["finished"]
    assert not facts["late"]
    assert facts["device"] == "cpu"
    assert facts["steps"] == plan["steps"] > plan["probe_steps"] >= PROBE_STEPS
    assert facts["seconds"] <= 18
    assert f"{facts['steps']} steps" in capsys.readouterr().out
    last = load_checkpoint(run_folder / "last.safetensors")
    assert last.training["steps"] == facts["steps"]
    recipe = last.training["recipe"]
    assert (recipe["steps"], recipe["cooldown"]) == (facts["steps"], plan["cooldown"])
    state = torch.load(run_folder / "last.ckpt", weights_only=True)
    # The last step was taken at the schedule's end: a hundredth of the rate at most.
    rates = [group["lr"] for group in state["optimizer_states"][0]["adam"]["param_groups"]]
    decay = round(recipe["steps"] * recipe["cooldown"])
    assert rates == pytest.approx([recipe["adam_lr"] / decay, PRICE_RATE / decay])
    assert recipe["scale_max"] == VALUES_DEFAULTS["scale_max"]

    again = tmp_path / "again"
    resume = ("--resume", str(run_folder / "last.ckpt"))
    assert train.main(["--minutes", "0.3", *arguments(again, details, *resume)]) == 0
    went_on = json.loads((again / train.RESULT).read_text())
    assert went_on["plan"]["first_step"] == facts["steps"]
    assert went_on["steps"] > facts["steps"]


def test_a_run_that_is_slower_than_its_probe_ends_in_time(
    tmp_path: Path, details: str, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking(0.1)
    monkeypatch.setattr(train, "_now", clock)
    inner = Plan.of

    def of(*given: Any, **named: Any) -> Plan:
        plan = inner(*given, **named)
        clock.step_s = 1.0
        return plan

    monkeypatch.setattr(Plan, "of", of)
    folder = tmp_path / "run"
    assert (
        train.main(["--minutes", "0.3", *arguments(folder, details, "--init", str(weights))]) == 1
    )
    facts = json.loads((folder / train.RESULT).read_text())
    assert facts["late"]
    assert not facts["finished"]
    assert facts["steps"] < facts["plan"]["steps"]
    assert load_checkpoint(folder / "last.safetensors").training["steps"] == facts["steps"]


def test_a_bad_option_of_training_is_one_line(
    tmp_path: Path, details: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(["--minutes", "0", *arguments(tmp_path, details)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("accelerator: --minutes 0 ")
    assert said.count("\n") == 1
