"""``cwic train average``: the mean of runs, what it keeps of them, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cwic.errors import CheckpointError
from cwic_training.average import averaged
from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.cli import train as command
from cwic_training.fit import FitResult

from .entropy_fits import valued


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., FitResult]) -> list[Path]:
    """A run, and two that went on from it."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "first", steps=2)
    found = [folder / "first" / "last.safetensors"]
    for seed in (1, 2):
        train(folder / str(seed), steps=seed, seed=seed, initial=found[0], muon_lr=0.1)
        found.append(folder / str(seed) / "last.safetensors")
    return found


@pytest.fixture(scope="module")
def three(runs: list[Path]) -> list[Checkpoint]:
    return [load_checkpoint(path) for path in runs]


def test_weights_are_the_means(three: list[Checkpoint]) -> None:
    mean = averaged(three)
    assert mean.config == three[0].config
    assert mean.tensors.keys() == three[0].tensors.keys()
    apart = 0
    for name, tensor in mean.tensors.items():
        first, second, third = (c.tensors[name] for c in three)
        assert tensor.dtype == third.dtype
        if tensor.is_floating_point():
            wanted = (first.double() + second.double() + third.double()) / 3
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-9)
            apart += not torch.equal(tensor, third)
        else:
            assert torch.equal(tensor, third)
    assert apart > 10, "the runs should differ, or this shows nothing"


def test_the_mean_of_equals_is_the_same(three: list[Checkpoint]) -> None:
    mean = averaged([three[1], three[1]])
    assert all(torch.equal(mean.tensors[k], v) for k, v in three[1].tensors.items())


def test_facts_are_those_of_the_last_run(three: list[Checkpoint]) -> None:
    """But for what was measured of it, which is of other weights."""
    mean = averaged(three)
    assert mean.training == {
        "stage": "importance",
        "steps": 2,
        "recipe": three[2].training["recipe"],
        "averaged_steps": [2, 1, 2],
    }


def test_entropy_models_are_left_out(three: list[Checkpoint]) -> None:
    release = replace(three[0], entropy={"codes.p1": torch.ones(3)})
    assert averaged([three[1], release]).entropy == {}


def test_the_command_writes_what_training_starts_from(
    runs: list[Path], three: list[Checkpoint], train: Any, tmp_path: Path
) -> None:
    out = tmp_path / "folder" / "mean.safetensors"
    result = CliRunner().invoke(command, ["average", *map(str, runs), "-o", str(out)])
    assert result.output == f"mean of 3 checkpoints in {out}\n"
    loaded, mean = load_checkpoint(out), averaged(three)
    assert loaded.training == mean.training
    assert all(torch.equal(loaded.tensors[k], v) for k, v in mean.tensors.items())
    assert train(tmp_path / "more", steps=1, initial=out).steps == 1


def other_stage(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, training={**checkpoint.training, "stage": "main"})


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (lambda one: [one], "takes two checkpoints or more; name the others too"),
        (lambda one: [one, valued()], "of different models; name runs of one model"),
        (lambda one: [one, other_stage(one)], "of different stages; name runs of one stage"),
        (
            lambda one: [one, replace(one, tensors={"a": torch.ones(1)})],
            "of different models; name runs of one model",
        ),
    ],
    ids=["one", "other model", "other stage", "other tensors"],
)
def test_what_has_no_mean_is_refused(
    three: list[Checkpoint],
    others: Callable[[Checkpoint], list[Checkpoint]],
    message: str,
) -> None:
    with pytest.raises(CheckpointError, match=f"{message}$"):
        averaged(others(three[0]))


def test_a_missing_file_is_named(runs: list[Path], tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    arguments = ["average", str(runs[0]), str(missing), "-o", str(tmp_path / "out.safetensors")]
    result = CliRunner().invoke(command, arguments)
    assert isinstance(result.exception, CheckpointError)
    assert str(missing) in str(result.exception)
    assert not (tmp_path / "out.safetensors").exists()
