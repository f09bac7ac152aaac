"""A small random model, exported once for all tests of this folder."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cwic.bundle import Bundle, FileEntry
from cwic.context import LOGITS
from cwic.level_model import level_contexts
from cwic.scan import KINDS, NEIGHBOURS
from cwic_export.bundle_writer import export_bundle
from cwic_export.formats import DEFAULT_FORMATS
from cwic_training.checkpoint import Checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.symbol_fit import ValueFit

ASSETS = Path(__file__).parents[2] / "assets"
SMALL = ModelConfig(
    arch="nano",
    n=16,
    levels=8,
    width=32,
    hidden=32,
    encoder_blocks=1,
    decoder_blocks=1,
    feedback=4,
)
BASE = ModelConfig(arch="base", n=16, levels=8)
VALUES = dataclasses.replace(SMALL, codes="values", feedback=0, lapped=True)

Replace: TypeAlias = Callable[[str, bytes], Bundle]


def crop(name: str, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Part (left, top, right, bottom) of a photograph, uint8 [H, W, 3]."""
    with Image.open(ASSETS / f"{name}.png") as picture:
        return np.array(picture.convert("RGB").crop(box))


def make_network(config: ModelConfig) -> CodecNetwork:
    """Random weights of half precision, code values centred on a photograph's."""
    torch.manual_seed(0)
    network = CodecNetwork(config).eval()
    pixels = torch.from_numpy(crop("kodim23", (64, 64, 192, 192))).float() / 255
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
            parameter.copy_(parameter.half().float())
        if network.normalise is None:
            return network
        e = network.projection(network.trunk((pixels.permute(2, 0, 1)[None] - 0.5) * 2))
        for statistic, value in (
            (network.normalise.running_mean, e.mean((0, 2, 3))),
            (network.normalise.running_var, e.var((0, 2, 3))),
        ):
            assert statistic is not None
            statistic.copy_(value)
    return network


def sign_tables(config: ModelConfig, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Those of random weights."""
    n, levels, hidden = config.n, config.levels, 4
    c = n // levels
    small = {
        "codes.own": (np.int8, (KINDS - 1, levels, NEIGHBOURS * c, hidden)),
        "codes.earlier": (np.int8, (levels, n, hidden)),
        "codes.level": (np.int32, (levels, levels + 1, hidden)),
        "codes.kind": (np.int32, (KINDS, levels, hidden)),
        "codes.middle": (np.int8, (levels, hidden, hidden)),
        "codes.middle_bias": (np.int32, (levels, hidden)),
        "codes.last": (np.int8, (levels, hidden, c)),
        "codes.last_bias": (np.int32, (levels, c)),
    }
    return {
        "codes.p1": np.sort(rng.integers(1, 65_536, LOGITS)).astype(np.uint16),
        **{
            name: rng.integers(-20, 21, shape).astype(kind) for name, (kind, shape) in small.items()
        },
    }


def value_tables(network: CodecNetwork) -> dict[str, NDArray[Any]]:
    """Those of the entropy stage before its first step."""
    torch.manual_seed(1)
    levels = network.config.levels
    return ValueFit(network, 4).tables(lambda: np.arange(levels + 1, dtype=np.float64))


def make_checkpoint(config: ModelConfig) -> Checkpoint:
    """The network with entropy tables of the right names and types."""
    network, rng = make_network(config), np.random.default_rng(1)
    weights = rng.random((level_contexts(config.levels), config.levels + 1)) + 0.1
    frequencies = (weights / weights.sum(1, keepdims=True) * 60_000).astype(np.uint16)
    frequencies[:, 0] += (65_536 - frequencies.sum(1, dtype=np.int64)).astype(np.uint16)
    codes = value_tables(network) if config.codes == "values" else sign_tables(config, rng)
    tables = {"levels.frequencies": frequencies, **codes}
    return Checkpoint(
        config=config,
        tensors=network.state_dict(),
        training={"steps": 3, "stage": "importance"},
        entropy={name: torch.from_numpy(table) for name, table in tables.items()},
    )


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """All tests here run small graphs."""


@pytest.fixture(scope="session")
def network() -> CodecNetwork:
    return make_network(SMALL)


@pytest.fixture(scope="session")
def base_network() -> CodecNetwork:
    return make_network(BASE)


@pytest.fixture(scope="session")
def values_network() -> CodecNetwork:
    return make_network(VALUES)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, make_checkpoint(SMALL))
    return path


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """All formats; a test that changes it works on a copy."""
    return export_bundle(checkpoint, tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def values_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "values.safetensors"
    save_checkpoint(path, make_checkpoint(VALUES))
    return path


@pytest.fixture(scope="session")
def values_bundle(values_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of :func:`values_network`, in all formats and in half precision."""
    out = tmp_path_factory.mktemp("models") / "values"
    return export_bundle(values_checkpoint, out, [*DEFAULT_FORMATS, "onnx-fp16"])


@pytest.fixture
def replace(bundle: Bundle, tmp_path: Path) -> Replace:
    """Copies the bundle with other bytes for one file, and a manifest that agrees.

    The ExportedProgram is left out of the copy: it is slow to load.
    """

    def replaced(name: str, data: bytes) -> Bundle:
        path = shutil.copytree(bundle.path, tmp_path / "changed", dirs_exist_ok=True)
        (path / name).write_bytes(data)
        old = bundle.files[name]
        entry = FileEntry.of(path / name, role=old.role, target=old.target, precision=old.precision)
        files = {k: v for k, v in bundle.files.items() if v.target != "exported-program"}
        changed = dataclasses.replace(bundle, path=path, files={**files, name: entry})
        changed.save()
        return changed

    return replaced


@pytest.fixture(scope="session")
def image() -> Tensor:
    """Details of two photographs, uint8 [2, 96, 128, 3]."""
    boxes = {"kodim03": (300, 100, 428, 196), "kodim23": (100, 150, 228, 246)}
    return torch.from_numpy(np.stack([crop(name, box) for name, box in boxes.items()]))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Details of two photographs; the sides of the second are no multiples of 8."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, box in (("kodim03", (300, 100, 428, 196)), ("kodim23", (100, 150, 201, 267))):
        Image.fromarray(crop(name, box)).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def codes_and_levels() -> tuple[Tensor, Tensor]:
    """Random codes uint8 [2, 2, 5, 7] and every level 0..8 for them, uint8 [2, 5, 7]."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 256, (2, 2, 5, 7), generator=generator, dtype=torch.uint8)
    levels = torch.arange(70).remainder(9).to(torch.uint8).view(2, 5, 7)
    return codes, levels


def content(network: CodecNetwork, signs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Codes as the decoder of a network takes them, uint8, and levels.

    Args:
        network: of either kind of codes.
        signs: of :func:`codes_and_levels`.
    """
    codes, levels = signs
    if network.quantiser is None:
        return codes, levels
    generator = torch.Generator().manual_seed(3)
    shape = (len(codes), network.config.n, *codes.shape[2:])
    # Mostly small numbers, and all that there are.
    spread = torch.randn(shape, generator=generator).mul(3).round()
    spread[0, :, 0, 0] = torch.linspace(-127, 127, network.config.n).round()
    return (spread + 128).clamp(1, 255).to(torch.uint8), levels
