"""The model folder: what it must hold, and every way it can be damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cwic
from cwic import packaged
from cwic.bundle import Bundle, FileEntry
from cwic.errors import BackendError, BundleError


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(packaged.folder(), tmp_path / "bundle"))


def edit(folder: Path, **changes: Any) -> None:
    manifest = folder / "model.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def test_the_shipped_bundle_is_whole() -> None:
    bundle = Bundle.load()
    assert bundle.name == "nano"
    assert {"encoder.onnx", "decoder.onnx", "context.safetensors"} <= set(bundle.files)
    for name, entry in bundle.files.items():
        assert len(bundle.read(name)) == entry.bytes
    assert bundle.facts["steps"] > 0


def test_save_and_load_are_inverse(copy: Path) -> None:
    bundle = Bundle.load(copy)
    before = json.loads((copy / "model.json").read_bytes())
    bundle.save()
    after = (copy / "model.json").read_bytes()
    assert json.loads(after) == before
    Bundle.load(copy).save()
    assert (copy / "model.json").read_bytes() == after
    assert Bundle.load(copy) == bundle


def test_without_a_word_on_its_codes_they_are_signs(copy: Path) -> None:
    values = json.loads((copy / "model.json").read_bytes())
    del values["codes"]
    (copy / "model.json").write_text(json.dumps({**values, "n": 128, "levels": 16}))
    bundle = Bundle.load(copy)
    assert bundle.codes == "signs"
    bundle.save()
    assert json.loads((copy / "model.json").read_bytes())["codes"] == "signs"


def test_entry_of_a_file(copy: Path) -> None:
    bundle = Bundle.load(copy)
    made = FileEntry.of(copy / "encoder.onnx", role="encoder", target="onnx", precision="fp32")
    assert made == bundle.files["encoder.onnx"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"{}", b"[" * 100_000, b" " * 2_000_000]
)
def test_a_manifest_that_is_none(copy: Path, content: bytes) -> None:
    (copy / "model.json").write_bytes(content)
    with pytest.raises(BundleError, match="export the model again") as error:
        Bundle.load(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "cwic-bundle/2"},
        {"n": 12},
        {"n": 0},
        {"n": "many"},
        {"n": 1 << 20},
        {"levels": 0},
        {"levels": 256},
        {"codes": "signs", "levels": 7},
        {"stride": 0},
        {"stride": 1 << 30},
        {"model_id": "xyz"},
        {"model_id": "00"},
        {"files": {"../evil": {}}},
        {"files": []},
        {"files": {"encoder.onnx": {"sha256": "0"}}},
        {"files": None},
        {"codes": "planes"},
        {"codes": None},
        {"codes": ["values"]},
        {"codes": "signs", "n": 12, "levels": 4},
        {"codes": "signs", "levels": 0},
    ],
    ids=str,
)
def test_an_inconsistent_manifest(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy, **changes)
    with pytest.raises(BundleError, match="export the model again"):
        Bundle.load(copy)


def test_channels_follow_from_the_codes(copy: Path) -> None:
    edit(copy, codes="signs", n=24, levels=3)
    signs = Bundle.load(copy)
    assert (signs.codes, signs.encoder_channels, signs.decoder_channels) == ("signs", 3, 3)
    edit(copy, codes="values", levels=7)  # of which n need not be a multiple
    values = Bundle.load(copy)
    assert (values.codes, values.encoder_channels, values.decoder_channels) == ("values", 48, 24)


def test_a_file_may_lie_in_a_folder_of_the_bundle(copy: Path) -> None:
    entry = vars(Bundle.load(copy).files["encoder.onnx"])
    (copy / "a" / "1").mkdir(parents=True)
    (copy / "encoder.onnx").rename(copy / "a" / "1" / "model.onnx")
    edit(copy, files={"a/1/model.onnx": entry})
    assert len(Bundle.load(copy).read("a/1/model.onnx")) == entry["bytes"]


@pytest.mark.parametrize(
    "name",
    [
        "../encoder.onnx",
        "a/../../encoder.onnx",
        "a/..",
        "/encoder.onnx",
        "a//encoder.onnx",
        "./encoder.onnx",
        "a/",
        "..",
        ".",
        "",
        "a\\..\\encoder.onnx",
        "C:encoder.onnx",
        "encoder.onnx\0",
        "a\nb",
    ],
    ids=repr,
)
def test_a_file_name_cannot_leave_the_folder(copy: Path, name: str) -> None:
    entry = vars(Bundle.load(copy).files["encoder.onnx"])
    edit(copy, files={name: entry})
    with pytest.raises(BundleError, match="leaves the folder"):
        Bundle.load(copy)


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "context.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "one bit", "truncated", "unlisted"])
def test_damaged_files_are_refused_when_used(copy: Path, name: str, damage: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "one bit":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncated":
        path.write_bytes(data[:-1])
    else:
        files = {k: vars(v) for k, v in Bundle.load(copy).files.items() if k != name}
        edit(copy, files=files)
    picture = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(BundleError, match=rf"{name}.*; export|{name}.*export it first"):
        cwic.load(copy).decode(cwic.load(copy).encode(picture))


def test_a_graph_that_onnxruntime_cannot_load(copy: Path) -> None:
    (copy / "encoder.onnx").write_bytes(b"not a graph")
    entry = FileEntry.of(copy / "encoder.onnx", role="encoder", target="onnx", precision="fp32")
    files = {k: vars(v) for k, v in {**Bundle.load(copy).files, "encoder.onnx": entry}.items()}
    edit(copy, files=files)
    with pytest.raises(BackendError, match="cannot load encoder.onnx .*; export"):
        cwic.load(copy).encode(np.zeros((8, 8, 3), np.uint8))
