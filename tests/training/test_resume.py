"""Runs that end early: they continue exactly, after any ending, or refuse to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.runs import FAST, Train, same, validation_losses

from cwic.errors import CheckpointError, TrainingError
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.fit import FitResult
from cwic_training.model import CodecNetwork
from cwic_training.task import CodecTask


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
