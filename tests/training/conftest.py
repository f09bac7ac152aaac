"""A network small enough to train in a test, photographs to train it on, and a way to do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.fit import FitResult, fit
from cwic_training.model import CodecNetwork
from cwic_training.recipe import Recipe

ASSETS = Path(__file__).resolve().parents[2] / "assets"
# File, left, top: details with edges, texture and flat parts.
TRAIN = [("kodim03", 100, 100), ("kodim03", 400, 200), ("kodim23", 100, 50)]
VALID = [("kodim23", 400, 250), ("kodim03", 250, 300)]
VALUES = ModelConfig(
    n=24,
    levels=8,
    width=48,
    hidden=32,
    encoder_blocks=1,
    decoder_blocks=1,
    codes="values",
    lapped=True,
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """All tests here train small networks."""


@dataclass(frozen=True)
class Photos:
    """Folders of details of real photographs, 160 x 128 pixels, and globs for them."""

    folder: Path

    @property
    def train(self) -> str:
        return str(self.folder / "train" / "*.png")

    @property
    def valid(self) -> str:
        return str(self.folder / "valid" / "*.png")

    @property
    def train_paths(self) -> list[Path]:
        return sorted((self.folder / "train").iterdir())

    @property
    def valid_paths(self) -> list[Path]:
        return sorted((self.folder / "valid").iterdir())


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    folder = tmp_path_factory.mktemp("photos")
    for name, details in (("train", TRAIN), ("valid", VALID)):
        (folder / name).mkdir()
        for file, left, top in details:
            with Image.open(ASSETS / f"{file}.png") as picture:
                detail = picture.convert("RGB").crop((left, top, left + 160, top + 128))
            detail.save(folder / name / f"{file}_{left}.png")
    return Photos(folder)


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    return ModelConfig(n=16, levels=8, width=32, hidden=32, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture
def network(tiny: ModelConfig) -> CodecNetwork:
    torch.manual_seed(0)
    return CodecNetwork(tiny)


TINY_RECIPE = {
    "stage": "importance",
    "steps": 8,
    "batch": 2,
    "crop": 32,
    "precision": "32-true",
    "validate_every": 3,
}


@pytest.fixture(scope="session")
def train(photos: Photos, tiny: ModelConfig) -> Callable[..., FitResult]:
    """``train(folder, ...)``: :func:`fit` with small defaults; recipe fields pass as well."""

    def run(folder: Path, **options: Any) -> FitResult:
        fields = {k: options.pop(k) for k in list(options) if k in Recipe.__dataclass_fields__}
        arguments: dict[str, Any] = {
            "config": tiny,
            "recipe": Recipe(**(TINY_RECIPE | fields)),
            "train_glob": photos.train,
            "valid_glob": photos.valid,
            "folder": folder,
            "accelerator": "cpu",
            "progress": False,
        }
        return fit(**(arguments | options))

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, train: Callable[..., FitResult]) -> Path:
    """A run of 8 steps with validations after steps 3, 6 and 8."""
    folder = tmp_path_factory.mktemp("finished")
    result = train(folder)
    assert result == FitResult(8, False, folder)
    return folder


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory, train: Callable[..., FitResult]
) -> Checkpoint:
    """A network of signs whose codes and importance have learnt something."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, steps=60, batch=8, validate_every=60, muon_lr=0.05, adam_lr=0.01)
    return load_checkpoint(folder / "last.safetensors")
