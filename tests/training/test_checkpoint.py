"""Checkpoints: whole round trips, and refusals in one line that execute nothing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import safe_open, save_file
from tests.training.conftest import VALUES

from cwic.errors import CheckpointError, UsageError
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.recipe import Recipe
from cwic_training.resume import check_resumable, resumed_config


@pytest.fixture
def checkpoint(network: CodecNetwork) -> Checkpoint:
    network.train()
    network.encode(torch.rand(2, 3, 32, 32))  # running statistics that are not the initial ones
    return Checkpoint(
        network.config,
        network.state_dict(),
        {"stage": "importance", "steps": 7, "validation": {"val/loss": 1.5}},
    )


def stored_types(path: Path) -> dict[str, torch.dtype]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118


def test_round_trip(tmp_path: Path, checkpoint: Checkpoint) -> None:
    checkpoint.entropy = {"codes.p1": torch.tensor([[1, 2], [3, 65535]], dtype=torch.uint16)}
    save_checkpoint(tmp_path / "a" / "b" / "c.safetensors", checkpoint)
    loaded = load_checkpoint(str(tmp_path / "a" / "b" / "c.safetensors"))
    assert loaded.config == checkpoint.config
    assert loaded.training == checkpoint.training
    for mine, theirs in (
        (checkpoint.tensors, loaded.tensors),
        (checkpoint.entropy, loaded.entropy),
    ):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            assert torch.equal(mine[name], theirs[name])
    assert not loaded.network().training


@pytest.mark.parametrize("codes", ["signs", "values"])
def test_the_network_computes_the_same(tmp_path: Path, tiny: ModelConfig, codes: str) -> None:
    torch.manual_seed(0)
    network = CodecNetwork(tiny if codes == "signs" else VALUES).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        network.encode(torch.rand(2, 3, 32, 32))
    save_checkpoint(
        tmp_path / "c.safetensors", Checkpoint(network.config, network.state_dict(), {})
    )
    x, scale = torch.rand(1, 3, 24, 16), torch.tensor([1.3])
    with torch.no_grad():
        mine = vars(network.eval()(x, scale))
        loaded = vars(load_checkpoint(tmp_path / "c.safetensors").network()(x, scale))
    assert mine["kept"].any()
    assert all(torch.equal(mine[name], loaded[name]) for name in mine)


def test_half_precision_is_stored_only_where_it_is_exact(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    save_checkpoint(full, checkpoint)
    release = checkpoint.rounded_to_half()
    save_checkpoint(half, release)
    weight = "network.projection.weight"
    assert stored_types(full)[weight] == torch.float32
    assert stored_types(full)["network.projection.bias"] == torch.float16  # zeros
    assert stored_types(half)[weight] == torch.float16
    for path in (full, half):
        assert stored_types(path)["network.normalise.running_var"] == torch.float32
        assert stored_types(path)["network.normalise.num_batches_tracked"] == torch.int64
    assert half.stat().st_size < 0.65 * full.stat().st_size
    loaded = load_checkpoint(half)
    assert {t.dtype for t in loaded.tensors.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(loaded.tensors[k], release.tensors[k]) for k in release.tensors)


def test_rounding_leaves_the_original_and_the_statistics(checkpoint: Checkpoint) -> None:
    checkpoint.tensors["normalise.running_var"][0] = 1e6  # beyond the range of halves
    before = {k: v.clone() for k, v in checkpoint.tensors.items()}
    release = checkpoint.rounded_to_half()
    assert all(torch.equal(checkpoint.tensors[k], before[k]) for k in before)
    changed = {k for k in before if not torch.equal(release.tensors[k], before[k])}
    assert changed
    assert not any(k.startswith("normalise.") for k in changed)
    for k in changed:
        torch.testing.assert_close(release.tensors[k], before[k], rtol=1e-3, atol=1e-6)


def test_values_that_are_not_numbers_are_kept(tmp_path: Path, checkpoint: Checkpoint) -> None:
    checkpoint.tensors["projection.weight"][0, 0] = float("nan")
    checkpoint.tensors["projection.weight"][0, 1] = 1e38
    save_checkpoint(tmp_path / "c.safetensors", checkpoint)
    weight = load_checkpoint(tmp_path / "c.safetensors").tensors["projection.weight"]
    assert weight[0, 0].isnan()
    assert weight[0, 1] == torch.tensor(1e38)


class _Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def pickle_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps({"cwic": {"config": {}, "steps": 1}, "x": _Bomb(mark(path))}))


def torch_bomb(path: Path) -> None:
    torch.save({"cwic": {"config": {}, "steps": 1}, "x": _Bomb(mark(path))}, path)


def mark(path: Path) -> Path:
    return path.with_name("executed")


def text(path: Path) -> None:
    path.write_text("weights\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.mkdir()


def missing(path: Path) -> None:
    pass


FILES = [pickle_bomb, torch_bomb, text, empty, folder, missing]


def test_the_bombs_are_armed(tmp_path: Path) -> None:
    pickle_bomb(tmp_path / "a")
    pickle.loads((tmp_path / "a").read_bytes())  # noqa: S301
    assert mark(tmp_path / "a").exists()
    mark(tmp_path / "a").unlink()
    torch_bomb(tmp_path / "b")
    torch.load(tmp_path / "b", weights_only=False)
    assert mark(tmp_path / "b").exists()


@pytest.mark.parametrize("make", FILES)
def test_other_files_are_refused_as_weights(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "last.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match="pass the|check the path") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark(path).exists()


@pytest.mark.parametrize("make", FILES)
def test_other_files_are_refused_as_states(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "last.ckpt"
    make(path)
    with pytest.raises(CheckpointError, match=r"pass RUN/last\.ckpt") as caught:
        resumed_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"pass RUN/last\.ckpt"):
        check_resumable(path, Recipe())
    assert not mark(path).exists()


@pytest.mark.parametrize(
    "state",
    [
        {"state_dict": {}},
        {"cwic": {"config": ModelConfig().to_dict()}, "state_dict": {"a": 1}},
        [1, 2],
        {"cwic": None},
        {"cwic": {"steps": 3}},
        {"cwic": {"config": ["nano"]}},
        {"cwic": {"config": ModelConfig().to_dict(), "recipe": 3}},
    ],
)
def test_states_of_other_programs_are_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match="use|pass"):
        resumed_config(tmp_path / "last.ckpt")


def test_a_state_names_its_model_and_what_differs(tmp_path: Path, tiny: ModelConfig) -> None:
    recipe = Recipe(batch=4, crop=64, seed=3)
    facts = {"steps": 5, "config": tiny.to_dict(), "recipe": recipe.to_dict()}
    parts = {part: [1] for part in ("state_dict", "optimizer_states", "loops")}
    torch.save({"cwic": facts, **parts}, tmp_path / "last.ckpt")
    longer = replace(recipe, steps=9, cooldown=0.1, validate_every=2, muon_lr=0.1, adam_lr=0.2)
    assert check_resumable(tmp_path / "last.ckpt", longer) == tiny
    with pytest.raises(CheckpointError, match="trained with batch=4, seed=3, not batch=8, seed=0"):
        check_resumable(tmp_path / "last.ckpt", replace(recipe, batch=8, seed=0))
    assert resumed_config(tmp_path / "last.ckpt") == tiny


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"format": "cwic-checkpoint/99"},
        {"format": "cwic-checkpoint/1"},
        {"format": "cwic-checkpoint/1", "config": "{", "training": "{}"},
        {"format": "cwic-checkpoint/1", "config": "{}", "training": "7"},
        {"format": "cwic-checkpoint/1", "config": "[]", "training": "{}"},
        {"format": "cwic-checkpoint/1", "config": '{"n": "many"}', "training": "{}"},
        {"format": "cwic-checkpoint/1", "config": '{"codes": "planes"}', "training": "{}"},
    ],
)
def test_a_foreign_or_damaged_header_is_refused(
    tmp_path: Path, checkpoint: Checkpoint, metadata: dict[str, str] | None
) -> None:
    save_file(checkpoint.tensors, tmp_path / "c.safetensors", metadata)
    with pytest.raises(CheckpointError, match="use|pass|choose") as caught:
        load_checkpoint(tmp_path / "c.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, checkpoint: Checkpoint, cut: float) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, checkpoint)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(path)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "config"])
def test_weights_that_do_not_fit_are_refused(checkpoint: Checkpoint, change: str) -> None:
    tensors = dict(checkpoint.tensors)
    if change == "missing":
        del tensors["projection.weight"]
    elif change == "extra":
        tensors["projection.scale"] = torch.ones(1)
    elif change == "shape":
        tensors["projection.weight"] = torch.ones(16, 31)
    else:
        checkpoint.config = replace(checkpoint.config, hidden=48)
    checkpoint.tensors = tensors
    with pytest.raises(CheckpointError, match="use a checkpoint of this release") as caught:
        checkpoint.network()
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, checkpoint)
    before = path.read_bytes()

    def full_disk(tensors: Any, target: Path, metadata: Any) -> None:
        target.write_bytes(b"half a fi")
        raise OSError("no space left on device")

    monkeypatch.setattr("cwic_training.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, replace(checkpoint, training={}))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_an_impossible_place_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="choose another output"):
        save_checkpoint(tmp_path / "file" / "c.safetensors", checkpoint)


def test_the_header_is_plain_json(tmp_path: Path, checkpoint: Checkpoint) -> None:
    save_checkpoint(tmp_path / "c.safetensors", checkpoint)
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "cwic-checkpoint/1"
    assert json.loads(metadata["config"]) == checkpoint.config.to_dict()
    assert json.loads(metadata["training"]) == checkpoint.training
