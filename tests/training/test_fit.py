"""Whole runs: they learn, write what they should, and continue exactly after any ending."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cwic.errors import CheckpointError, CwicError, TrainingError
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.context_net import ContextNet
from cwic_training.fit import FitResult
from cwic_training.model import CodecNetwork, ModelConfig
from cwic_training.task import VALIDATION_SCALES, CodecTask

Train = Callable[..., FitResult]

FAST = {"muon_lr": 0.1, "adam_lr": 0.02}
"""Rates with which a few steps of the warm-up already learn."""


def same(a: Path, b: Path, name: str = "last.safetensors") -> bool:
    mine, theirs = (load_checkpoint(folder / name).tensors for folder in (a, b))
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[k], theirs[k]) for k in mine)


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator


def validation_losses(folder: Path) -> dict[int, float]:
    """By steps done."""
    return {event.step: event.value for event in events(folder).Scalars("val/loss")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    """A run of 8 steps with validations after steps 3, 6 and 8."""
    folder = tmp_path_factory.mktemp("finished")
    result = train(folder)
    assert result == FitResult(8, False, folder)
    return folder


def before_step(
    monkeypatch: pytest.MonkeyPatch, step: int, action: Callable[[CodecTask], Any]
) -> None:
    """Let ``action`` happen when ``step`` steps are done and the next has begun."""
    inner = CodecTask.training_step

    def training_step(task: CodecTask, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if task.trainer.global_step == step:
            action(task)
        return inner(task, batch, batch_idx)

    monkeypatch.setattr(CodecTask, "training_step", training_step)


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


# Resume


@pytest.mark.parametrize(
    ("precision", "steps", "rate_model"),
    [
        ("32-true", 4, "count"),
        ("32-true", 6, "count"),
        ("bf16-mixed", 4, "count"),
        ("32-true", 4, "context"),
    ],
)
def test_a_prolonged_run_is_one_long_run(
    tmp_path: Path, train: Train, precision: str, steps: int, rate_model: str
) -> None:
    """Bit for bit, with a schedule that does not know the end, and another memory budget."""
    options = {"precision": precision, "cooldown": 0.0, "rate_model": rate_model}
    train(tmp_path / "whole", **options)
    train(tmp_path / "part", steps=steps, **options)
    assert not same(tmp_path / "whole", tmp_path / "part")
    state = tmp_path / "part" / "last.ckpt"
    result = train(tmp_path / "rest", resume=state, memory_bytes=0, **options)
    assert result.steps == 8
    assert same(tmp_path / "whole", tmp_path / "rest")


def test_a_prolonged_run_follows_its_new_schedule(tmp_path: Path, train: Train) -> None:
    """The last state of a finished run has rates near zero, which must not stay."""
    train(tmp_path, steps=4, cooldown=1.0)
    rates = []

    def note(task: CodecTask) -> None:
        rates.append([group["lr"] for group in task.trainer.optimizers[0].param_groups])

    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 4, note)
        train(tmp_path, steps=8, cooldown=0.0, resume=tmp_path / "last.ckpt", adam_lr=0.002)
    assert rates == [pytest.approx([0.005 * 5 / 100, 0.002 * 5 / 100])]


@pytest.mark.parametrize(
    ("step", "number"),
    [(1, signal.SIGINT), (3, signal.SIGTERM), (4, signal.SIGINT), (7, signal.SIGTERM)],
)
def test_a_stopped_run_continues_exactly(
    tmp_path: Path,
    train: Train,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    number: signal.Signals,
) -> None:
    """The step that the signal meets is finished; 3 is a step after which to validate."""
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        before_step(patch, step - 1, lambda task: os.kill(os.getpid(), number))
        result = train(tmp_path)
    assert result == FitResult(step, True, tmp_path)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    result = train(tmp_path, resume=tmp_path / "last.ckpt")
    assert result == FitResult(8, False, tmp_path)
    assert same(tmp_path, finished)


def test_a_run_stopped_twice_continues_exactly(
    tmp_path: Path, train: Train, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = None
    for step in (2, 5):
        with monkeypatch.context() as patch:
            before_step(patch, step - 1, lambda task: os.kill(os.getpid(), signal.SIGTERM))
            assert train(tmp_path, resume=resume).steps == step
        resume = tmp_path / "last.ckpt"
    train(tmp_path, resume=resume)
    assert same(tmp_path, finished)
    assert list(validation_losses(tmp_path)) == [3, 6, 8]


def test_a_signal_does_not_wait_for_a_validation(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends SIGTERM kills ten seconds later."""
    before_step(monkeypatch, 1, lambda task: os.kill(os.getpid(), signal.SIGTERM))

    def validation_step(task: CodecTask, batch: torch.Tensor, batch_idx: int) -> None:
        pytest.fail("validated although it was told to stop")

    monkeypatch.setattr(CodecTask, "validation_step", validation_step)
    assert train(tmp_path).steps == 2


def test_a_signal_during_a_validation_stops_after_it(
    tmp_path: Path, train: Train, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = CodecTask.validation_step

    def validation_step(task: CodecTask, batch: torch.Tensor, batch_idx: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        inner(task, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(CodecTask, "validation_step", validation_step)
        assert train(tmp_path) == FitResult(3, True, tmp_path)
    assert load_checkpoint(tmp_path / "best.safetensors").training["steps"] == 3
    train(tmp_path, resume=tmp_path / "last.ckpt")
    assert same(tmp_path, finished)


def test_a_signal_at_the_last_step_is_a_finished_run(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_step(monkeypatch, 7, lambda task: os.kill(os.getpid(), signal.SIGINT))
    assert train(tmp_path) == FitResult(8, False, tmp_path)


def test_a_second_interrupt_ends_at_once_and_keeps_the_saved_state(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt_twice(task: CodecTask) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    train(tmp_path, steps=4, cooldown=0.0)
    before = (tmp_path / "last.ckpt").read_bytes()
    handler = signal.getsignal(signal.SIGINT)
    before_step(monkeypatch, 5, interrupt_twice)
    with pytest.raises(TrainingError, match="interrupted within a step"):
        train(tmp_path, cooldown=0.0, resume=tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert signal.getsignal(signal.SIGINT) == handler


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_periodic_state_continues_exactly(
    tmp_path: Path, train: Train, finished: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """What a kill leaves: the state written in the middle of an epoch."""
    state = tmp_path / "killed.ckpt"
    with monkeypatch.context() as patch:
        before_step(patch, step, lambda task: shutil.copy(tmp_path / "run" / "last.ckpt", state))
        train(tmp_path / "run", save_minutes=0.0)
    assert torch.load(state, weights_only=True)["cwic"]["steps"] == step
    assert train(tmp_path / "rest", resume=state).steps == 8
    assert same(tmp_path / "rest", finished)


def test_loader_processes_change_nothing(tmp_path: Path, train: Train, finished: Path) -> None:
    train(tmp_path, workers=1)
    assert same(tmp_path, finished)


def test_the_best_loss_is_remembered(tmp_path: Path, train: Train) -> None:
    """Else the first validation after a resume would replace better weights."""
    options = {"steps": 30, "batch": 4, "validate_every": 10}
    train(tmp_path, **options, **FAST)
    best = (tmp_path / "best.safetensors").read_bytes()
    options |= {"steps": 32, "cooldown": 0.0}
    train(tmp_path, resume=tmp_path / "last.ckpt", muon_lr=30.0, adam_lr=5.0, **options)
    curve = validation_losses(tmp_path)
    assert curve[32] > min(curve.values())
    assert (tmp_path / "best.safetensors").read_bytes() == best


def test_a_finished_run_has_nothing_to_do(tmp_path: Path, train: Train, finished: Path) -> None:
    assert train(tmp_path, resume=finished / "last.ckpt") == FitResult(8, False, tmp_path)


def test_another_thread_can_train(tmp_path: Path, train: Train, finished: Path) -> None:
    """Signals are the main thread's alone."""
    results: list[FitResult] = []
    thread = threading.Thread(target=lambda: results.append(train(tmp_path)))
    thread.start()
    thread.join()
    assert results == [FitResult(8, False, tmp_path)]
    assert same(tmp_path, finished)


# Refusals


@pytest.mark.parametrize(
    "options",
    [
        {"config": ModelConfig(n=16, levels=8, width=32, hidden=48)},
        {"batch": 4},
        {"stage": "main"},
        {"seed": 5},
        {"rate_model": "context"},
    ],
)
def test_a_state_of_another_run_is_refused_and_kept(
    tmp_path: Path, train: Train, finished: Path, options: dict[str, Any]
) -> None:
    """Into its own folder, whose state must survive the mistake."""
    shutil.copytree(finished, tmp_path / "run")
    state = tmp_path / "run" / "last.ckpt"
    before = state.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        train(tmp_path / "run", resume=state, steps=12, **options)
    assert str(state) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("optimizer_states", "is not a state of cwic train"),
        ("loops", "is not a state of cwic train"),
        ("state_dict", "is not a state of cwic train"),
        ("a weight", "is damaged or of another release"),
    ],
)
def test_an_incomplete_state_is_refused_and_kept(
    tmp_path: Path, train: Train, finished: Path, key: str, message: str
) -> None:
    state = torch.load(finished / "last.ckpt", weights_only=True)
    if key == "a weight":
        del state["state_dict"]["network.projection.weight"]
    else:
        del state[key]
    torch.save(state, tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        train(tmp_path, resume=tmp_path / "last.ckpt", steps=12)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "last.ckpt").read_bytes() == before


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


# The command as a process


COMMAND = "from cwic_training.cli import train; train()"


@pytest.fixture
def start(
    tmp_path: Path, photos: Any, tiny: ModelConfig
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``cwic train importance`` without an end; it saves its state after every step."""
    torch.manual_seed(0)
    initial = tmp_path / "initial.safetensors"
    save_checkpoint(initial, Checkpoint(tiny, CodecNetwork(tiny).state_dict()))
    running: list[subprocess.Popen[str]] = []

    def run(*options: str) -> subprocess.Popen[str]:
        arguments = ["--train-glob", photos.train, "--valid-glob", photos.valid]
        arguments += ["-o", str(tmp_path / "run"), "--init", str(initial), "--steps", "100000"]
        arguments += ["--cooldown", "0", "--batch", "2", "--crop", "32", "--accelerator", "cpu"]
        arguments += ["--precision", "32-true", "--save-minutes", "0", "--no-progress"]
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "importance", *arguments, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        running.append(process)
        while not (tmp_path / "run" / "last.safetensors").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def continues_exactly(tmp_path: Path, train: Train, state: Path) -> None:
    """Three more steps end where as many steps without an interruption end."""
    done = torch.load(state, weights_only=True)["cwic"]["steps"]
    assert done > 0
    options = {"steps": done + 3, "cooldown": 0.0, "validate_every": 1000}
    initial = tmp_path / "initial.safetensors"
    train(tmp_path / "whole", config=None, initial=initial, **options)
    train(tmp_path / "rest", config=None, resume=state, **options)
    assert same(tmp_path / "whole", tmp_path / "rest")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_a_state(
    tmp_path: Path, train: Train, start: Any, number: signal.Signals
) -> None:
    """To the whole group, as a terminal sends it: loader processes must not fail first."""
    process = start("--workers", "1")
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    state = tmp_path / "run" / "last.ckpt"
    assert re.fullmatch(rf"stopped after step \d+; go on with --resume {state}\n", out)
    assert "Traceback" not in err
    assert "Error" not in err
    continues_exactly(tmp_path, train, state)


def test_a_killed_command_leaves_its_last_saved_state(
    tmp_path: Path, train: Train, start: Any
) -> None:
    process = start()
    process.kill()
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    continues_exactly(tmp_path, train, tmp_path / "run" / "last.ckpt")
    assert load_checkpoint(tmp_path / "run" / "last.safetensors").training["steps"] > 0
