"""Validation passes what is right and finds what is wrong."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

import cwic
from cwic.bundle import Bundle, FileEntry
from cwic.errors import ExportError, ImageError
from cwic.image import open_rgb, pad_to_multiple
from cwic.rate import levels_from_importance
from cwic_export import runners
from cwic_export.parity import validate_bundle
from cwic_export.report import HEADER, TOLERANCES, Artefact, Report
from cwic_training.checkpoint import load_checkpoint, save_checkpoint

Replace = Callable[[str, bytes], Bundle]


def perturbed(data: bytes, name: str, by: float) -> bytes:
    """The ONNX file with one element of one initializer changed."""
    model = onnx.load_from_string(data)
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += by
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model.SerializeToString()


def of(report: Report, target: str) -> Artefact:
    (artefact,) = (a for a in report.artefacts if a.target == target)
    return artefact


@pytest.fixture(scope="module")
def report(bundle: Bundle, checkpoint: Path, pictures: list[Path]) -> Report:
    return validate_bundle(bundle.path, checkpoint, pictures)


def test_a_right_bundle_passes(report: Report) -> None:
    assert report.passed, report.problems()
    assert {a.target: a.status for a in report.artefacts} == {
        "onnx": "passed",
        "torchscript": "passed",
        "exported-program": "passed",
    }
    for artefact in report.artefacts:
        d = artefact.differences
        # 96x128 and 117x101 padded to 120x104: 12 * 16 + 15 * 13 positions of 16 codes
        assert d.codes == 16 * (12 * 16 + 15 * 13)
        assert d.largest_flip_margin < TOLERANCES["fp32"].code_margin
        scales = [row["scale"] for row in d.by_scale]
        assert scales == [0.25, 0.5, 1.0]
        assert d.by_scale[0]["bpp"] < d.by_scale[2]["bpp"] <= 16 / 64 * 120 * 104 / (117 * 101)


def test_json_and_rows(report: Report) -> None:
    values = json.loads(report.to_json())
    assert values["passed"] is True
    assert values["pictures"] == 2
    assert [a["target"] for a in values["artefacts"]] == [a.target for a in report.artefacts]
    onnx_values = values["artefacts"][0]
    assert {"flips", "flip_share", "delta_psnr_db", "delta_bpp", "by_scale"} <= set(onnx_values)
    assert not any(key.startswith("_") for key in onnx_values)
    assert all(len(row) == len(HEADER) for row in report.rows())


@pytest.mark.parametrize(
    ("file", "tensor", "by", "problem"),
    [
        ("decoder.onnx", "synthesis.3.weight.half", 0.5, "a pixel differs by"),
        ("decoder.onnx", "synthesis.3.bias", 0.02, "a pixel differs by"),
        ("encoder.onnx", "projection.weight", 0.5, "a code flips at"),
        ("encoder.onnx", "importance.conv3.bias", 0.1, "importance differs by"),
    ],
)
def test_one_wrong_weight_is_found(
    bundle: Bundle,
    replace: Replace,
    checkpoint: Path,
    pictures: list[Path],
    file: str,
    tensor: str,
    by: float,
    problem: str,
) -> None:
    changed = replace(file, perturbed(bundle.read(file), tensor, by))
    found = validate_bundle(changed.path, checkpoint, pictures, scales=[1.0])
    assert not found.passed
    assert of(found, "onnx").status == "differs"
    assert problem in "\n".join(of(found, "onnx").problems)
    assert of(found, "torchscript").status == "passed"


def test_a_file_without_its_function_body(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    model = onnx.load_from_string(bundle.read("encoder.onnx"))
    del model.functions[:]
    changed = replace("encoder.onnx", model.SerializeToString())
    found = validate_bundle(changed.path, checkpoint, pictures, scales=[1.0])
    assert not found.passed
    assert of(found, "onnx").status == "error"
    (problem,) = of(found, "onnx").problems
    assert problem.startswith("the onnx encoder does not load")
    assert "binarize" in problem
    assert problem.endswith("export the model again")


def test_a_file_that_is_not_the_exported_one(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    changed = replace("encoder.onnx", bundle.read("encoder.onnx"))
    (changed.path / "decoder.onnx").write_bytes(b"something else")
    (changed.path / "encoder.torchscript.pt").unlink()
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert not found.passed
    assert "sha256 differs" in of(found, "onnx").problems[0]
    assert "missing or unreadable" in of(found, "torchscript").problems[0]


def test_what_cannot_run_here_is_skipped_with_the_reason(
    bundle: Bundle,
    replace: Replace,
    checkpoint: Path,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = replace("encoder.onnx", bundle.read("encoder.onnx"))
    engine = FileEntry("0" * 64, 1, "encoder", "tensorrt", "fp16")
    with_engine = dataclasses.replace(changed, files={**changed.files, "e.engine": engine})
    with_engine.save()
    monkeypatch.setattr(runners, "find_spec", lambda name: None)
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert found.passed
    assert of(found, "onnx").status == of(found, "tensorrt").status == "skipped"
    assert "pip install 'cwic[cpu]'" in of(found, "onnx").problems[0]
    assert "nothing here runs tensorrt files" in of(found, "tensorrt").problems[0]


def test_nothing_compared_is_no_pass() -> None:
    skipped = Artefact("onnx", "fp32")
    skipped.skip("no runtime")
    assert not Report("model", "00", 1, (1.0,), [skipped]).passed


def test_an_unknown_precision_is_no_pass() -> None:
    assert Artefact("onnx", "fp4").status == "differs"


def test_half_a_pair_is_an_error(
    bundle: Bundle, replace: Replace, checkpoint: Path, pictures: list[Path]
) -> None:
    changed = replace("encoder.onnx", bundle.read("encoder.onnx"))
    files = {name: e for name, e in changed.files.items() if name != "decoder.onnx"}
    dataclasses.replace(changed, files=files).save()
    found = validate_bundle(changed.path, checkpoint, pictures[:1], scales=[1.0])
    assert "has no decoder of this kind" in of(found, "onnx").problems[0]


def test_rates_are_those_of_entropy_coded_files(
    bundle: Bundle, checkpoint: Path, pictures: list[Path]
) -> None:
    found = validate_bundle(bundle.path, checkpoint, pictures[:1], [1.0])
    (row,) = of(found, "onnx").differences.by_scale
    codec = cwic.load(bundle.path)
    picture = open_rgb(pictures[0])
    codes, importance = codec.runner.encode(pad_to_multiple(picture, 8)[None])
    levels = levels_from_importance(importance[0], 1.0, bundle.levels)
    height_px, width_px = picture.shape[:2]
    file = codec.write_stream(codes[0], levels, width_px, height_px, 1.0)
    overhead = 8 * 60 / (height_px * width_px)
    assert row["bpp"] < 8 * len(file) / (height_px * width_px) < row["bpp"] + overhead
    assert row["reference_bpp"] == pytest.approx(row["bpp"], rel=0.01)


def test_the_wrong_reference(
    bundle: Bundle, checkpoint: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = load_checkpoint(checkpoint)
    other.tensors["synthesis.1.bias"] += 1
    save_checkpoint(tmp_path / "other.safetensors", other)
    with pytest.raises(ExportError, match="pass the checkpoint that the bundle was exported from"):
        validate_bundle(bundle.path, tmp_path / "other.safetensors", pictures)


def test_another_encoder_of_the_same_model_is_found(
    bundle: Bundle, checkpoint: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = load_checkpoint(checkpoint)
    other.tensors["normalise.running_mean"] += 0.1
    save_checkpoint(tmp_path / "other.safetensors", other)
    found = validate_bundle(bundle.path, tmp_path / "other.safetensors", pictures[:1])
    assert all("a code flips at" in a.problems[0] for a in found.artefacts)


def test_inputs_that_cannot_be_used(bundle: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="at least one picture"):
        validate_bundle(bundle.path, checkpoint, [])
    with pytest.raises(ImageError, match="does not exist"):
        validate_bundle(bundle.path, checkpoint, [tmp_path / "absent.png"])
