"""``cwic engine`` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cwic.bundle import Bundle
from cwic.cli import main
from cwic.engines.library import Library

from .conftest import convolutions, shipped


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    try:
        main(["engine", *map(str, arguments)])
        status = 0
    except SystemExit as exc:
        status = int(exc.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_says_what_it_built(
    rtx: Library, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(
        capsys, bundle.path, "--sm", "120", "--profile", "60x60", "128x128", "256x250",
        "--batch", "2", "--kind", "tensorrt-rtx",
    )  # fmt: skip
    assert (status, err) == (0, "")
    head, encoder, decoder = out.splitlines()
    assert head == (
        f"TensorRT for RTX {rtx.version} for SM 120 (ahead of time), fp32, "
        "64x64 to 256x256, best at 128x128, batch 1 to 2"
    )
    for role, line in (("encoder", encoder), ("decoder", decoder)):
        assert f"/{role}.sm120-rtx" in line
        assert f"bytes, convolutions {len(convolutions(shipped(role)))} fp32, " in line
    assert len(Bundle.load(bundle.path).facts["engines"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sm", "87"], "use one of --sm 75, 80"),
        (["--sm", "86", "--precision", "int8"], "no int8 ONNX file"),
        (["--sm", "86", "--profile", "1", "2", "3"], "write HEIGHTxWIDTH"),
        (["--sm", "86", "--batch", "0"], "use 1 to 1024"),
        (["--sm", "86", "--timing-cache", "x"], "leave --timing-cache out"),
        (["--sm", "86", "--plugin"], "leave --plugin out"),
    ],
)
def test_a_mistake_is_one_line(
    rtx: Library,
    bundle: Bundle,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    status, _, err = run(capsys, bundle.path, "--kind", "tensorrt-rtx", *arguments)
    assert status == 1
    assert err.startswith("cwic: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(bundle.path.glob("*.engine*"))


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--precision", "fp64"], ["x", "--kind", "other"], ["x", "--profile"]]
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert "Error: " in err


def test_a_folder_that_is_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, tmp_path)
    assert (status, err.count("\n")) == (1, 1)
    assert "holds no model.json" in err
