"""Models in the package: by name, and by what a stream says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import packaged, pillow_plugin
from cwic.bundle import Bundle
from cwic.cli import cli
from cwic.errors import ModelMismatchError

VARIANTS = packaged.names()[1:]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> cwic.Codec:
    return cwic.load(request.param)


@pytest.fixture
def own(variant: cwic.Codec, small: NDArray[np.uint8]) -> bytes:
    """A stream of the variant."""
    return variant.encode(small, quality=40)


def test_names() -> None:
    assert packaged.names() == ("nano", "nano-ms-ssim", "nano-signs")
    for name in packaged.names():
        bundle = Bundle.load(name)
        assert bundle.name == name
        assert packaged.name_of(bundle.model_id) == name
        for file in bundle.files:
            bundle.read(file)
    assert packaged.name_of(b"nobodys!") is None


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()  # of pictures, say
    assert Bundle.load("nano").path == packaged.folder()
    shutil.rmtree("nano")
    shutil.copytree(packaged.folder("nano-ms-ssim"), "nano")
    assert Bundle.load("nano").name == "nano-ms-ssim"
    assert Bundle.load().name == "nano"


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(
        cwic.BundleError, match="nowhere holds no .* or one of nano, nano-ms-ssim, nano-signs"
    ):
        Bundle.load("nowhere")


def test_round_trip(variant: cwic.Codec, small: NDArray[np.uint8], own: bytes) -> None:
    restored = np.asarray(variant.decode(own), np.float64)
    assert 10 * np.log10(255**2 / np.mean((restored - small) ** 2)) > 20
    assert len(variant.encode(small, max_bytes=900)) <= 900


def test_another_codec_names_the_one_to_open(
    codec: cwic.Codec, variant: cwic.Codec, own: bytes
) -> None:
    with pytest.raises(ModelMismatchError, match=rf"open '{variant.bundle.name}' \(--model\)"):
        codec.decode(own)


def test_pillow_opens_a_stream_of_any(
    variant: cwic.Codec, own: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_plugin, "_models", pillow_plugin._Models())
    path = tmp_path / "a.cwic"
    path.write_bytes(own)
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), np.asarray(variant.decode(own)))


def test_the_command_decodes_a_stream_of_any(
    variant: cwic.Codec, own: bytes, stream: bytes, tmp_path: Path
) -> None:
    """Streams of two models in one call."""
    (tmp_path / "own.cwic").write_bytes(own)
    (tmp_path / "plain.cwic").write_bytes(stream)
    done = CliRunner().invoke(cli, ["decode", str(tmp_path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "out" / "own.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(variant.decode(own)))
    assert (tmp_path / "out" / "plain.png").exists()


def test_codecs_are_opened_once(variant: cwic.Codec) -> None:
    opened = []

    def open_codec(folder: Path) -> cwic.Codec:
        opened.append(folder.name)
        return variant

    of: Callable[[bytes], cwic.Codec] = packaged.Codecs(open_codec).of
    for _ in range(2):
        of(variant.bundle.model_id)
        of(b"nobodys!")
    assert opened == ["nano", variant.bundle.name]
