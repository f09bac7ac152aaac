"""A bundle of bit planes: what it sends is rounded, and it passes validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tests.export.conftest import PLANES, make_checkpoint

import cwic
from cwic.codec import Codec
from cwic.container import Stream
from cwic.image import open_rgb, pad_to_multiple
from cwic_export.bundle_writer import export_bundle
from cwic_export.validation import validate_bundle
from cwic_training.checkpoint import save_checkpoint
from cwic_training.entropy import plane_tables
from cwic_training.model import CodecNetwork, ModelConfig

CONFIG = ModelConfig.from_dict({**PLANES.to_dict(), "n": 64, "importance": "learned"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = make_checkpoint(CONFIG)
    made.tensors = CodecNetwork(CONFIG).state_dict()  # a DCT: more codes, better pictures
    made = made.rounded_to_half()
    tables = plane_tables(made.network())
    made.entropy |= {name: torch.from_numpy(table) for name, table in tables.items()}
    path = tmp_path_factory.mktemp("run") / "planes.safetensors"
    save_checkpoint(path, made)
    return path


@pytest.fixture(scope="module")
def codec(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Codec:
    out = tmp_path_factory.mktemp("models") / "planes"
    export_bundle(checkpoint, out, ["onnx"])
    return cwic.load(out)


def psnr_db(codec: Codec, data: bytes, pixels: NDArray[np.uint8]) -> float:
    off = np.asarray(codec.decode(data)).astype(float) - pixels
    return float(10 * np.log10(255**2 / np.square(off).mean()))


@pytest.mark.parametrize(
    "options",
    [{"quality": 70}, {"bpp": 0.6}, {"psnr_db": True}, {"quality": 80, "progressive": True}],
)
def test_rounded_codes_are_sent(
    codec: Codec, pictures: list[Path], options: dict[str, float]
) -> None:
    pixels = open_rgb(pictures[1])
    if "psnr_db" in options:
        options = {"psnr_db": psnr_db(codec, codec.encode(pixels, quality=70), pixels) - 0.1}
    codes, _ = codec.runner.encode(pad_to_multiple(pixels, 8)[None])
    data = codec.encode(Image.fromarray(pixels), **options)  # type: ignore[arg-type]
    sent, levels = codec.read_codes(Stream.from_bytes(data, 1 << 20))
    assert levels.any()
    wanted = codec.context.rounded(codes[0], levels)
    assert np.array_equal(sent, wanted)
    assert not np.array_equal(sent, codes[0])
    if "psnr_db" in options:
        assert psnr_db(codec, data, pixels) >= options["psnr_db"]


def test_effort_keeps_levels(codec: Codec, pictures: list[Path]) -> None:
    pixels = open_rgb(pictures[1])
    plain = codec.encode_detailed(pixels, quality=70)
    better = codec.encode_detailed(pixels, quality=70, effort=4)
    assert np.array_equal(plain.levels, better.levels)
    assert psnr_db(codec, better.data, pixels) > psnr_db(codec, plain.data, pixels)


def test_validation_passes(codec: Codec, checkpoint: Path, pictures: list[Path]) -> None:
    report = validate_bundle(codec.bundle.path, checkpoint, pictures)
    assert report.passed, report.problems()
