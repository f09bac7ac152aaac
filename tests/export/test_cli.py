"""``cwic export`` and ``cwic validate`` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from cwic.bundle import Bundle
from cwic.errors import CwicError, ExportError
from cwic_export.cli import export, validate
from cwic_export.validation import run as validation_run

Replace = Callable[[str, bytes], Bundle]


def run(command: str, *arguments: str | Path) -> Result:
    commands = {"export": export, "validate": validate}
    return CliRunner().invoke(commands[command], [str(a) for a in arguments])


@pytest.fixture(scope="module")
def glob(pictures: list[Path]) -> str:
    return str(pictures[0].parent / "*.png")


def test_export_writes_what_was_asked_for(values_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    done = run("export", values_checkpoint, "-o", out, "--formats", "torchscript", "--name", "mine")
    assert done.exit_code == 0, done.output
    bundle = Bundle.load(out)
    assert bundle.name == "mine"
    assert {e.target for e in bundle.files.values()} == {"torchscript", "cwic"}
    assert "encoder.torchscript.pt" in done.stdout
    assert bundle.model_id.hex() in done.stdout


def test_an_unknown_format_is_the_users_error(checkpoint: Path, tmp_path: Path) -> None:
    done = run("export", checkpoint, "-o", tmp_path / "model", "--formats", "onnx,tflite")
    assert isinstance(done.exception, ExportError)
    assert "tflite" in str(done.exception)


def test_validate_passes(
    values_bundle: Bundle, values_checkpoint: Path, glob: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    arguments = ("--reference", values_checkpoint, "--images", glob, "--json", file)
    done = run("validate", values_bundle.path, *arguments)
    assert done.exit_code == 0, done.output
    assert "exported-program" in done.stdout
    assert "passed" in done.stdout
    assert json.loads(file.read_text())["passed"] is True


def test_validate_fails_past_tolerance(
    bundle: Bundle,
    replace: Replace,
    checkpoint: Path,
    glob: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # To export the reference again takes seconds.
    graphs = {role: bundle.read(f"{role}.onnx") for role in ("encoder", "decoder")}
    monkeypatch.setattr(validation_run, "_reference_graphs", lambda *_: graphs)
    model = onnx.load_from_string(bundle.read("decoder.onnx"))
    (bias,) = (t for t in model.graph.initializer if t.name == "synthesis.3.bias")
    array = onnx.numpy_helper.to_array(bias) + 0.1
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
    changed = replace("decoder.onnx", model.SerializeToString())
    arguments = ("--reference", checkpoint, "--images", glob)
    shown = run("validate", changed.path, *arguments)
    assert shown.exit_code == 1
    assert "onnx fp32: a pixel differs by" in shown.stdout
    printed = run("validate", changed.path, *arguments, "--json", "-")
    assert printed.exit_code == 1
    assert json.loads(printed.stdout)["passed"] is False


def test_a_glob_without_pictures_is_the_users_error(bundle: Bundle, checkpoint: Path) -> None:
    done = run("validate", bundle.path, "--reference", checkpoint, "--images", "absent/*.png")
    assert isinstance(done.exception, CwicError)
    assert "--images 'absent/*.png' matches no file" in str(done.exception)
