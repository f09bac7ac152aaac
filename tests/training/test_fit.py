"""Whole runs: they learn, write what they should, and say what is wrong."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.runs import FAST, Train, events, same, validation_losses

from cwic.errors import CheckpointError, CwicError, TrainingError
from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import PRESETS, ModelConfig
from cwic_training.context_net import ContextNet
from cwic_training.fit import FitResult
from cwic_training.task import VALIDATION_SCALES


def test_a_run_writes_its_files(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "last.ckpt",
        "last.safetensors",
        "best.safetensors",
        "tensorboard",
    }
    last = load_checkpoint(finished / "last.safetensors")
    assert last.training["stage"] == "importance"
    assert last.training["steps"] == 8
    assert last.training["recipe"]["batch"] == 2
    assert {f"val/psnr_{s:g}" for s in VALIDATION_SCALES} <= last.training["validation"].keys()
    assert last.entropy == {}


def test_tensorboard_has_curves_and_three_pictures(finished: Path) -> None:
    tags = events(finished).Tags()
    assert set(tags["images"]) == {
        "picture/input",
        "picture/reconstruction",
        "picture/importance",
    }
    assert {"psnr", "bpp", "loss", "val/loss"} <= set(tags["scalars"])


def test_the_logged_input_is_the_photograph(finished: Path, photos: Any) -> None:
    logged = events(finished).Images("picture/input")
    assert [event.step for event in logged] == [3, 6, 8]
    assert (logged[0].width, logged[0].height) == (160, 128)
    (finished / "logged.png").write_bytes(logged[0].encoded_image_string)
    with Image.open(finished / "logged.png") as mine, Image.open(photos.valid_paths[0]) as theirs:
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))
    (finished / "logged.png").unlink()


def test_the_final_weights_are_validated(finished: Path) -> None:
    """8 is no multiple of the interval of 3."""
    assert list(validation_losses(finished)) == [3, 6, 8]


def test_the_best_weights_are_those_of_the_lowest_loss(finished: Path) -> None:
    curve = validation_losses(finished)
    best = load_checkpoint(finished / "best.safetensors").training
    assert best["steps"] == min(curve, key=lambda step: curve[step])
    assert best["validation"]["val/loss"] == pytest.approx(min(curve.values()))


@pytest.mark.parametrize("stage", ["main", "importance"])
def test_a_few_steps_lower_the_loss(tmp_path: Path, train: Train, stage: str) -> None:
    train(tmp_path, stage=stage, steps=30, validate_every=10, batch=4, **FAST)
    losses = list(validation_losses(tmp_path).values())
    assert losses[2] < losses[1] < losses[0]
    assert losses[2] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ({"stage": "main"}, {"val/psnr_1", "val/bpp_1"}),
        ({"stage": "importance"}, {"val/psnr_0.1", "val/bpp_0.1", "val/psnr_1.5"}),
        ({"stage": "importance", "rate_bpp": 0.1}, {"val/psnr_1", "val/bpp_1"}),
        ({"stage": "importance", "precision": "bf16-mixed"}, {"val/psnr_0.6"}),
        ({"stage": "importance", "rate_model": "context"}, {"val/bpp_0.1", "val/bpp_1.5"}),
        ({"stage": "importance", "rate_model": "context", "rate_bpp": 0.1}, {"val/bpp_1"}),
        (
            {"stage": "importance", "rate_model": "context", "precision": "bf16-mixed"},
            {"val/psnr_0.6"},
        ),
        ({"stage": "main", "rate_model": "context"}, {"val/psnr_1", "val/bpp_1"}),
    ],
)
def test_every_kind_of_run(
    tmp_path: Path, train: Train, options: dict[str, Any], logged: set[str]
) -> None:
    train(tmp_path, steps=3, **options)
    facts = load_checkpoint(tmp_path / "last.safetensors").training
    assert logged <= facts["validation"].keys()
    assert all(np.isfinite(value) for value in facts["validation"].values())
    if options["stage"] == "main":
        assert facts["validation"]["val/bpp_1"] == pytest.approx(16 / 64)


def test_the_hinge_pulls_the_rate_to_its_target(tmp_path: Path, train: Train) -> None:
    for name, rate in (("low", 0.05), ("none", 9.0)):
        options = {"rate_bpp": rate, "rate_weight": 3e5, "steps": 30, "batch": 4}
        train(tmp_path / name, validate_every=30, **options, **FAST)
    low, none = (
        load_checkpoint(tmp_path / name / "last.safetensors").training["validation"]["val/bpp_1"]
        for name in ("low", "none")
    )
    assert low < 0.8 * none


def test_main_weights_start_the_importance_stage(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "main", stage="main", steps=4)
    initial = tmp_path / "main" / "last.safetensors"
    # With rates of zero nothing but the running statistics moves.
    train(tmp_path / "imp", config=None, initial=initial, steps=2, muon_lr=0.0, adam_lr=0.0)
    start, end = (load_checkpoint(p) for p in (initial, tmp_path / "imp" / "last.safetensors"))
    assert end.config == start.config
    assert end.training["stage"] == "importance"
    changed = {k for k in start.tensors if not torch.equal(start.tensors[k], end.tensors[k])}
    assert changed
    assert all(k.startswith("normalise.") for k in changed)


@pytest.mark.parametrize(
    ("stage", "rate_model", "name"),
    [("main", "count", "nano-signs"), ("importance", "values", "nano")],
)
def test_the_stage_chooses_the_model(
    tmp_path: Path, train: Train, stage: str, rate_model: str, name: str
) -> None:
    train(tmp_path, config=None, stage=stage, rate_model=rate_model, steps=1, batch=1)
    assert load_checkpoint(tmp_path / "last.safetensors").config == PRESETS[name]


def test_seeds(tmp_path: Path, train: Train, finished: Path) -> None:
    train(tmp_path / "same")
    train(tmp_path / "other", seed=1)
    assert same(tmp_path / "same", finished)
    assert same(tmp_path / "same", finished, "best.safetensors")
    assert not same(tmp_path / "other", finished)


def test_the_progress_bar_shows_psnr_and_rate(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, steps=10, progress=True)
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert re.search(r"\bpsnr=\d", shown)
    assert re.search(r"\bbpp=\d", shown)


def test_the_real_rate_is_learnt_and_lowered(tmp_path: Path, train: Train) -> None:
    """The context network learns along with the model, and its gradients reach the model."""
    options = {"steps": 40, "batch": 4, "validate_every": 10, **FAST}
    train(tmp_path / "count", **options)
    train(tmp_path / "context", rate_model="context", **options)
    losses = list(validation_losses(tmp_path / "context").values())
    assert losses[-1] < 0.8 * losses[0]
    assert not same(tmp_path / "count", tmp_path / "context")
    facts = load_checkpoint(tmp_path / "context" / "last.safetensors")
    assert facts.training["recipe"]["rate_model"] == "context"
    assert not any("context" in name for name in facts.tensors), "it is not the release's"
    state = torch.load(tmp_path / "context" / "last.ckpt", weights_only=True)["state_dict"]
    torch.manual_seed(0)
    assert {k for k in state if k.startswith("context.")} == {
        f"context.{name}" for name in ContextNet(facts.config, 32).state_dict()
    }
    for name in ("level", "kind", "middle_bias", "last_bias"):  # they begin at 0
        assert state[f"context.{name}"].any()


def test_loader_processes_change_nothing(tmp_path: Path, train: Train, finished: Path) -> None:
    train(tmp_path, workers=1)
    assert same(tmp_path, finished)


def test_another_thread_can_train(tmp_path: Path, train: Train, finished: Path) -> None:
    """Signals are the main thread's alone."""
    results: list[FitResult] = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert results == [FitResult(8, False, tmp_path)]
    assert same(tmp_path, finished)


# Refusals


def test_initial_weights_of_another_model_are_refused(
    tmp_path: Path, train: Train, finished: Path
) -> None:
    other = ModelConfig(n=16, levels=8, width=32, hidden=48)
    with pytest.raises(CheckpointError, match="cannot grow into this model.*leave out --model"):
        train(tmp_path, config=other, initial=finished / "last.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_glob": "none/*"}, "--train-glob 'none/*' matches no file"),
        ({"valid_glob": "none/*"}, "--valid-glob 'none/*' matches no file"),
        ({"crop": 256}, "choose a smaller --crop"),
        ({"accelerator": "abacus"}, "choose another --accelerator"),
        ({"accelerator": "tpu"}, "choose another --accelerator"),
        ({"precision": "8-bit"}, "--precision"),
        ({"workers": -1}, "use 0 or more"),
        ({"initial": Path("a.safetensors"), "resume": Path("b.ckpt")}, "leave out --init or"),
        ({"initial": Path("missing.safetensors")}, "does not exist"),
        ({"resume": Path("missing.ckpt")}, "does not exist"),
    ],
)
def test_a_users_mistake_is_one_line(
    tmp_path: Path, train: Train, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CwicError) as caught:
        train(tmp_path / "run", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, train: Train) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="choose another --out"):
        train(tmp_path / "file")


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # a picture of NaN
def test_divergence_ends_the_run_and_keeps_the_best(tmp_path: Path, train: Train) -> None:
    train(tmp_path, steps=3)
    best = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="diverged before step 6.*smaller --muon-lr"):
        train(tmp_path, resume=tmp_path / "last.ckpt", cooldown=0.0, muon_lr=1e38, adam_lr=1e38)
    assert (tmp_path / "best.safetensors").read_bytes() == best
