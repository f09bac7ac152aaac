"""Validation of real bundles: the shipped model's weights on details of photographs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load

import cwic
from cwic.bundle import Bundle, FileEntry
from cwic.codec import Codec
from cwic.container import Stream
from cwic.errors import CwicError, ExportError, ImageError
from cwic.image import open_rgb, pad_to_multiple
from cwic.rate import levels_from_importance
from cwic_export import runners
from cwic_export.bundle_writer import export_bundle
from cwic_export.cli import validate
from cwic_export.validation import run, validate_bundle
from cwic_export.validation.nodes import departures
from cwic_export.validation.report import Artefact, Report
from cwic_training.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
REFERENCE = run.REFERENCE
KINDS = ["onnx fp32", "onnx fp16", "onnx int8", "torchscript fp32"]

Replace: TypeAlias = Callable[..., Bundle]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights with the shipped entropy tables."""
    found = load_checkpoint(ROOT / "models" / "nano.safetensors")
    found.entropy = load(Bundle.load().read("context.safetensors"))
    path = tmp_path_factory.mktemp("run") / "nano.safetensors"
    save_checkpoint(path, found)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Details of two photographs; the sides of the second are no multiples of 8."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, box in (("kodim03", (300, 100, 428, 196)), ("kodim23", (100, 150, 201, 267))):
        with Image.open(ROOT / "assets" / f"{name}.png") as picture:
            picture.convert("RGB").crop(box).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def bundle(
    checkpoint: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """Every convolution is int8: the limit is out of reach, so nothing is searched."""
    out = tmp_path_factory.mktemp("models") / "nano"
    formats = ["onnx", "torchscript", "onnx-fp16", "onnx-int8"]
    return export_bundle(checkpoint, out, formats, calibration=pictures, int8_loss_db=100.0)


def copied(
    bundle: Bundle,
    path: Path,
    *kinds: str,
    name: str = "encoder.onnx",
    data: bytes | None = None,
) -> Bundle:
    """A copy of a bundle that lists only some artefacts, with other bytes for one file."""
    shutil.copytree(bundle.path, path, dirs_exist_ok=True)
    files = {
        name: entry
        for name, entry in bundle.files.items()
        if entry.target == "cwic" or f"{entry.target} {entry.precision}" in kinds
    }
    if data is not None:
        (path / name).write_bytes(data)
        old = bundle.files[name]
        files[name] = FileEntry.of(
            path / name, role=old.role, target=old.target, precision=old.precision
        )
    changed = dataclasses.replace(bundle, path=path, files=files)
    changed.save()
    return changed


@pytest.fixture
def replace(bundle: Bundle, tmp_path: Path) -> Replace:
    return partial(copied, bundle, tmp_path / "changed")


@pytest.fixture(scope="module")
def report(bundle: Bundle, checkpoint: Path, pictures: list[Path]) -> Report:
    return validate_bundle(bundle.path, checkpoint, pictures)


def with_tensor(data: bytes, name: str, factor: float, by: float = 0.0) -> bytes:
    """The ONNX file with one initializer multiplied, and something added to its first element."""
    model = onnx.load_from_string(data)
    (tensor,) = (t for t in model.graph.initializer if t.name.removesuffix(".half") == name)
    before = numpy_helper.to_array(tensor)
    array = before * np.array(factor, before.dtype)
    array.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array.astype(before.dtype), tensor.name))
    return model.SerializeToString()


def of(report: Report, label: str) -> Artefact:
    (artefact,) = (a for a in report.artefacts if a.label == label)
    return artefact


def test_a_right_bundle(report: Report) -> None:
    assert [a.label for a in report.artefacts] == KINDS
    for label in ("onnx fp32", "onnx fp16", "torchscript fp32"):
        assert of(report, label).status == "passed", report.problems()
    for artefact in report.artefacts:
        d = artefact.differences
        # 96x128 and 117x101 padded to 120x104: 12 * 16 + 15 * 13 positions of 128 codes
        assert d.codes == 128 * (12 * 16 + 15 * 13)
        assert [rate.scale for rate in d.by_scale] == [0.25, 0.5, 1.0]
        assert len(d.outcomes) == 6
        kept = [rate.total("kept_codes") for rate in d.by_scale]
        assert 0 < kept[0] < kept[1] < kept[2] <= d.codes
        bpp = [rate.mean("own_bpp") or 0 for rate in d.by_scale]
        assert 0 < bpp[0] < bpp[1] < bpp[2]
    exact = of(report, "torchscript fp32").differences
    assert exact.flips == exact.importance_largest == 0


def test_less_precision_is_measured(report: Report) -> None:
    fp32, fp16, int8 = (of(report, f"onnx {p}").differences for p in ("fp32", "fp16", "int8"))
    assert fp32.flip_share < 1e-4 < int8.flip_share
    assert fp32.flips <= fp16.flips < int8.flips
    assert 0 < fp16.largest_flip_margin < 0.05
    assert int8.by_scale[2].total("kept_flips") > 0


def test_every_pair_crosses(report: Report) -> None:
    labels = {REFERENCE, *KINDS}
    assert {(c.encoder, c.decoder) for c in report.crossings} == {
        (a, b) for a in labels for b in labels
    }
    for crossing in report.crossings:
        assert crossing.streams == 6
        assert crossing.wrong == 0
        if crossing.encoder.endswith("fp32") and crossing.decoder.endswith("fp32"):
            assert crossing.pixel_largest <= 1
        if crossing.encoder == crossing.decoder:
            assert crossing.pixel_largest == 0
    assert max(c.pixel_mean for c in report.crossings if c.decoder == "onnx int8") > 0.01


def test_nodes_are_named_for_what_is_not_fp32(report: Report) -> None:
    assert not of(report, "onnx fp32").departures
    for label in ("onnx fp16", "onnx int8"):
        found = of(report, label).departures
        encoder = [d for d in found if d.graph == "encoder"]
        assert encoder[0].first
        assert encoder[0].before == 0
        assert encoder[0].layer == "trunk.2"
        assert all(d.error > 0 for d in found)


@pytest.mark.parametrize(
    ("file", "tensor", "factor", "by", "problem"),
    [
        ("decoder.onnx", "synthesis.3.up.weight", 1.01, 0, "mean difference of pixels"),
        ("decoder.onnx", "synthesis.7.bias", 1, 0.02, "a pixel differs by"),
        ("encoder.onnx", "projection.weight", 1, 0.1, "a code flips at"),
        ("encoder.fp16.onnx", "trunk.3.down.weight", 1.5, 0, "share of codes that flip"),
        ("encoder.fp16.onnx", "projection.weight", 1.1, 0, "rise in bpp"),
        ("decoder.fp16.onnx", "synthesis.4.down.weight", 2, 0, "PSNR loss"),
        ("encoder.int8.onnx", "projection.weight_scale", 3, 0, "share of codes that flip"),
        ("decoder.int8.onnx", "synthesis.2.up.weight_scale", 2, 0, "PSNR loss"),
    ],
)
def test_one_wrong_tensor_is_found(
    bundle: Bundle,
    replace: Replace,
    checkpoint: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    tensor: str,
    factor: float,
    by: float,
    problem: str,
) -> None:
    # To export the reference again, as for any fp32 file that is wrong, takes seconds.
    graphs = {role: bundle.read(f"{role}.onnx") for role in ("encoder", "decoder")}
    monkeypatch.setattr(run, "_reference_graphs", lambda *_: graphs)
    label = f"onnx {bundle.files[file].precision}"
    data = with_tensor(bundle.read(file), tensor, factor, by)
    changed = replace("onnx fp32", label, name=file, data=data)
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert not found.passed
    assert of(found, label).status == "differs"
    assert problem in "\n".join(of(found, label).problems)
    layer = tensor.partition(".weight")[0].removesuffix(".bias")
    graph = file.partition(".")[0]
    worst = max(
        (d for d in of(found, label).departures if d.graph == graph),
        key=lambda d: d.error**2 - d.before**2,
    )
    if "weight" in tensor and label != "onnx int8":
        assert worst.layer == layer
    if graph == "decoder":
        bad = [c for c in found.crossings if c.problems]
        assert (REFERENCE, label) in {(c.encoder, c.decoder) for c in bad}


def test_nothing_is_found_where_nothing_is_wrong(
    replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    """Where one wrong tensor is; with every layer int8 a picture may lose more than the limit."""
    changed = replace(*KINDS[:3])
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    fp32, fp16, int8 = ("\n".join(of(found, label).problems) for label in KINDS[:3])
    assert (fp32, fp16) == ("", "")
    assert "share of codes that flip" not in int8
    losses_db = [-o.delta_psnr_db for o in of(found, "onnx int8").differences.outcomes]
    assert max(losses_db) < 1.5


def test_wrong_importance_is_found(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a model that has a map."""
    shipped = Bundle.load("nano-signs")
    graphs = {role: shipped.read(f"{role}.onnx") for role in ("encoder", "decoder")}
    monkeypatch.setattr(run, "_reference_graphs", lambda *_: graphs)
    data = with_tensor(graphs["encoder"], "importance.conv3.bias", 1, 0.1)
    changed = copied(shipped, tmp_path / "changed", "onnx fp32", name="encoder.onnx", data=data)
    checkpoint = ROOT / "models" / "nano-signs.safetensors"
    found = of(validate_bundle(changed.path, checkpoint, pictures[:1], [1.0]), "onnx fp32")
    assert found.status == "differs"
    for problem in ("importance differs by", "share of levels that differ", "rise in bpp"):
        assert problem in "\n".join(found.problems)
    assert found.differences.flips == 0
    assert found.differences.by_scale[0].total("levels_differ") > 0
    assert "importance.conv3" in {d.layer for d in found.departures}


@pytest.mark.slow
def test_the_reference_is_exported_again_for_a_wrong_fp32_file(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    data = with_tensor(bundle.read("decoder.onnx"), "synthesis.3.up.weight", 1.05)
    changed = replace("onnx fp32", name="decoder.onnx", data=data)
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    first, *others = of(found, "onnx fp32").departures
    assert (first.graph, first.layer, first.first) == ("decoder", "synthesis.3.up", True)
    assert {d.graph for d in others} == {"decoder"}


def test_the_node_that_differs_is_named(bundle: Bundle, pictures: list[Path]) -> None:
    data = bundle.read("encoder.onnx")
    image = pad_to_multiple(open_rgb(pictures[0]), 8)[None]
    assert departures("encoder", data, data, {"image": image}) == []
    wrong = with_tensor(data, "trunk.4.up.weight", 1.01)
    first, *_ = departures("encoder", data, wrong, {"image": image})
    assert (first.layer, first.op, first.before, first.first) == ("trunk.4.up", "Conv", 0.0, True)
    assert 0.001 < first.error < 0.1
    # Other names: nodes are matched by their place.
    model = onnx.load_from_string(wrong)
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{n}_x" if n.startswith(("conv", "relu", "add")) else n for n in names]
    (renamed, *_) = departures("encoder", data, model.SerializeToString(), {"image": image})
    assert (renamed.layer, renamed.error) == (first.layer, pytest.approx(first.error))


def test_a_stream_that_gives_other_codes_is_found(
    replace: Replace, checkpoint: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Codec.read_codes

    def wrong(self: Codec, stream: Stream) -> object:
        codes, levels = read(self, stream)
        codes[(0, *np.argwhere(levels)[0])] ^= 128  # where there is one
        return codes, levels

    monkeypatch.setattr(Codec, "read_codes", wrong)
    changed = replace("torchscript fp32")
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert not found.passed
    assert of(found, "torchscript fp32").status == "passed"
    assert any("1 of 1 streams give other codes or levels" in p for p in found.problems())


def test_rates_are_those_of_files(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    changed = replace("onnx fp32")
    found = validate_bundle(changed.path, checkpoint, pictures[1:], [0.5])
    (outcome,) = of(found, "onnx fp32").differences.outcomes
    codec = cwic.load(changed.path, "cpu")
    picture = open_rgb(pictures[1])
    codes, importance = codec.runner.encode(pad_to_multiple(picture, 8)[None])
    levels = levels_from_importance(importance[0], 0.5, bundle.levels)
    sent = codec.context.codes.sent(codes[0], levels)
    height_px, width_px = picture.shape[:2]
    file = codec.write_stream(sent, levels, width_px, height_px, 0.5)
    assert outcome.own_bpp == 8 * len(file) / (height_px * width_px)
    restored = np.asarray(codec.decode(file), np.float64)
    mse = np.square(restored - picture).mean()
    assert outcome.own.psnr_db == pytest.approx(10 * np.log10(255**2 / mse))


def test_files_that_do_not_load(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    model = onnx.load_from_string(bundle.read("encoder.onnx"))
    model.graph.node[-1].op_type = "Unknown"
    changed = replace(*KINDS, name="encoder.onnx", data=model.SerializeToString())
    (changed.path / "decoder.fp16.onnx").write_bytes(b"something else")
    (changed.path / "encoder.torchscript.pt").unlink()
    files = {name: e for name, e in changed.files.items() if name != "decoder.int8.onnx"}
    dataclasses.replace(changed, files=files).save()
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert not found.passed
    assert {a.status for a in found.artefacts} == {"error"}
    fp32, fp16, int8, torchscript = (of(found, label).problems[0] for label in KINDS)
    assert fp32.startswith("the onnx encoder does not load")
    assert "Unknown" in fp32
    assert fp32.endswith("export the model again")
    assert "sha256 differs" in fp16
    assert "missing or unreadable" in torchscript
    assert "has no decoder for onnx int8; export the model again" in int8
    assert not found.crossings[1:]  # the reference with itself


def test_what_cannot_run_here_is_skipped_with_the_reason(
    replace: Replace, checkpoint: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace("onnx fp32", "torchscript fp32")
    others = {
        f"e.{target}": FileEntry("0" * 64, 1, "encoder", target, "fp16")
        for target in ("tensorrt", "tensorrt-rtx", "torch-tensorrt")
    }
    dataclasses.replace(changed, files={**changed.files, **others}).save()
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert found.passed
    assert [a.status for a in found.artefacts] == ["skipped", "passed"] + 3 * ["skipped"]
    assert "pip install 'cwic[cpu]'" in of(found, "onnx fp32").problems[0]
    assert "nothing here runs torch-tensorrt" in of(found, "torch-tensorrt fp16").problems[0]
    for label in ("tensorrt fp16", "tensorrt-rtx fp16"):
        assert of(found, label).problems[0]


def test_the_wrong_reference(
    bundle: Bundle, checkpoint: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = load_checkpoint(checkpoint)
    other.tensors["synthesis.1.bias"] += 1
    save_checkpoint(tmp_path / "other.safetensors", other)
    with pytest.raises(ExportError, match="pass the checkpoint that the bundle was exported from"):
        validate_bundle(bundle.path, tmp_path / "other.safetensors", pictures)


def test_another_encoder_of_the_same_model_is_found(
    replace: Replace, checkpoint: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = load_checkpoint(checkpoint)
    other.tensors["projection.bias"] += 0.1
    save_checkpoint(tmp_path / "other.safetensors", other)
    changed = replace("torchscript fp32")
    found = validate_bundle(changed.path, tmp_path / "other.safetensors", pictures[:1], [1.0])
    assert "a code flips at" in of(found, "torchscript fp32").problems[0]


def test_inputs_that_cannot_be_used(bundle: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least one picture"):
        validate_bundle(bundle.path, checkpoint, [])
    with pytest.raises(ExportError, match="rate factor of -1 is out of range; use"):
        validate_bundle(bundle.path, checkpoint, ["x.png"], [-1])
    with pytest.raises(ExportError, match="crop of 8 pixels is too small"):
        validate_bundle(bundle.path, checkpoint, ["x.png"], crop_px=8)
    with pytest.raises(ImageError, match="does not exist"):
        validate_bundle(bundle.path, checkpoint, [tmp_path / "absent.png"])
    Image.new("RGB", (640, 63)).save(tmp_path / "flat.png")
    with pytest.raises(ImageError, match="640x63 pixels, too small .* at least 64 pixels a side"):
        validate_bundle(bundle.path, checkpoint, [tmp_path / "flat.png"])


def test_the_command(
    replace: Replace, checkpoint: Path, pictures: list[Path], tmp_path: Path
) -> None:
    changed = replace("torchscript fp32")
    page = tmp_path / "report.html"
    command = [changed.path, "--reference", checkpoint, "--images", pictures[0], "--crop", 72]
    command += ["--scales", "0.5", "--html", page, "--json", "-"]
    done = CliRunner().invoke(validate, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["scales"] == [0.5]
    assert values["artefacts"][0]["codes"] == 128 * 9 * 9
    assert page.read_text().count("data:image/png") == 4
    done = CliRunner().invoke(validate, [str(word) for word in [*command, "--markdown", "-"]])
    assert isinstance(done.exception, CwicError)
