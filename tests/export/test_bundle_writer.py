"""Writing a bundle: what is in it, when it is refused, and that it appears whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load

from cwic.bundle import MANIFEST, Bundle
from cwic.errors import CheckpointError, ExportError
from cwic_export import formats, macs
from cwic_export.bundle_writer import export_bundle
from cwic_export.formats import Format, Job
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.identity import model_id
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.model import CodecNetwork


class Instant(Format):
    """Takes no time; fails after the encoder when told to."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def write(self, job: Job) -> None:
        job.write("encoder.onnx", b"graph", role="encoder", target="onnx", precision="fp32")
        if self.fails:
            raise ExportError("no luck")
        job.write("decoder.onnx", b"graph", role="decoder", target="onnx", precision="fp32")


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces exporters by ones that take no time."""
    for name in ("onnx", "torchscript"):
        monkeypatch.setitem(formats.FORMATS, name, Instant())


def test_contents(bundle: Bundle, checkpoint: Path) -> None:
    roles = {name: (e.role, e.target, e.precision) for name, e in bundle.files.items()}
    assert roles == {
        "encoder.onnx": ("encoder", "onnx", "fp32"),
        "decoder.onnx": ("decoder", "onnx", "fp32"),
        "gradient.onnx": ("gradient", "onnx", "fp32"),
        "encoder.torchscript.pt": ("encoder", "torchscript", "fp32"),
        "decoder.torchscript.pt": ("decoder", "torchscript", "fp32"),
        "encoder.pt2": ("encoder", "exported-program", "fp32"),
        "decoder.pt2": ("decoder", "exported-program", "fp32"),
        "context.safetensors": ("context", "cwic", "int"),
    }
    assert {p.name for p in bundle.path.iterdir()} == {*roles, MANIFEST}
    assert (bundle.name, bundle.n, bundle.levels, bundle.stride) == ("small", 16, 8, 8)
    tables = load(bundle.read("context.safetensors"))
    expected = load_checkpoint(checkpoint).entropy
    assert {k: v.dtype.name for k, v in tables.items()} == {
        k: str(v.dtype).removeprefix("torch.") for k, v in expected.items()
    }
    assert all((tables[name] == expected[name].numpy()).all() for name in expected)


def test_facts(bundle: Bundle, network: CodecNetwork) -> None:
    facts = bundle.facts
    assert facts["steps"] == 3
    assert facts["model"]["arch"] == "nano"
    counted = sum(p.numel() for p in network.synthesis.parameters())
    assert facts["parameters"]["decode"] == counted
    per_position = 16 * 32 + 9 * 32 + 2 * 32 * 32 + 32 * 192
    assert facts["kmac_per_px"]["decode"] == pytest.approx(per_position / 64 / 1000, abs=1e-3)


def test_cost_of_the_whole_network(base_network: CodecNetwork) -> None:
    # 8x8 s4 conv, a block at 1/4, 4x4 s2 conv, two blocks at 1/8, projection, importance
    encode = 192 * 128 / 16 + 2 * 1152 * 128 / 16
    encode += (16 * 128 * 256 + 4 * 2304 * 256 + 256 * 16) / 64
    encode += (2304 * 128 + 1152 * 128 + 128) / 64
    assert macs.encoder_cost(EncoderGraph(base_network)).kmac_per_px == pytest.approx(encode / 1000)
    assert macs.decoder_cost(DecoderGraph(base_network)).kmac_per_px > 100


def changed(checkpoint: Checkpoint, name: str) -> Checkpoint:
    tensors = {k: v.clone() for k, v in checkpoint.tensors.items()}
    tensors[name].view(-1)[0] += 1
    return dataclasses.replace(checkpoint, tensors=tensors)


def test_model_id_names_what_both_ends_share(checkpoint: Path) -> None:
    original = load_checkpoint(checkpoint)
    name = model_id(original)
    assert len(name) == 8
    assert model_id(load_checkpoint(checkpoint)) == name
    assert model_id(changed(original, "projection.weight")) == name
    assert model_id(changed(original, "synthesis.1.weight")) != name
    config = dataclasses.replace(original.config, levels=4)
    assert model_id(dataclasses.replace(original, config=config)) != name
    for key, table in original.entropy.items():
        other = {**original.entropy, key: table.to(torch.int64)}
        assert model_id(dataclasses.replace(original, entropy=other)) != name


@pytest.mark.usefixtures("instant")
def test_a_bundle_is_replaced_whole(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    export_bundle(checkpoint, out, ["onnx", "torchscript"], name="first")
    export_bundle(checkpoint, out, ["onnx"])
    assert {p.name for p in out.iterdir()} == {
        MANIFEST,
        "encoder.onnx",
        "decoder.onnx",
        "context.safetensors",
    }
    assert json.loads((out / MANIFEST).read_text())["name"] == "model"
    assert [p.name for p in out.parent.iterdir()] == ["model"]


@pytest.mark.usefixtures("instant")
def test_an_empty_folder_may_be_filled(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert export_bundle(checkpoint, tmp_path / "model", ["onnx"]).name == "model"


def test_what_is_no_bundle_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ExportError, match="is not a bundle; choose another output"):
            export_bundle(checkpoint, out, ["onnx"])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failing_export_leaves_the_old_bundle(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    monkeypatch.setitem(formats.FORMATS, "onnx", Instant())
    export_bundle(checkpoint, out, ["onnx"], name="old")
    monkeypatch.setitem(formats.FORMATS, "onnx", Instant(fails=True))
    with pytest.raises(ExportError, match="no luck"):
        export_bundle(checkpoint, out, ["onnx"], name="new")
    assert Bundle.load(out).name == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_checkpoints_that_cannot_be_exported(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        export_bundle(tmp_path / "absent.safetensors", tmp_path / "model")
    (tmp_path / "text.safetensors").write_text("not tensors")
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        export_bundle(tmp_path / "text.safetensors", tmp_path / "model")
    early = dataclasses.replace(load_checkpoint(checkpoint), entropy={})
    save_checkpoint(tmp_path / "early.safetensors", early)
    with pytest.raises(ExportError, match=r"run `cwic train entropy .*early.safetensors` first"):
        export_bundle(tmp_path / "early.safetensors", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_tables_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    original = load_checkpoint(checkpoint)
    tables = {**original.entropy, "codes.p1": original.entropy["codes.p1"][:-1]}
    path = tmp_path / "odd.safetensors"
    save_checkpoint(path, dataclasses.replace(original, entropy=tables))
    with pytest.raises(ExportError, match=r"odd.safetensors do not fit .* again"):
        export_bundle(path, tmp_path / "out", ["onnx"])
    assert not (tmp_path / "out").exists()
