"""cwic doctor: in processes of its own, on this machine and on one with a sham driver."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.runtime.backends.fake_gpu import compile_driver

import cwic
from cwic.backends import choose_runner
from cwic.backends.device import find_device
from cwic.backends.onnxrt import CUDA_REMEDY
from cwic.bundle import Bundle
from cwic.errors import BackendError


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cwic.cli", "doctor", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=300,
        check=False,
    )


def report(*arguments: object, status: int, **environment: str) -> dict[str, Any]:
    done = run("--json", *arguments, **environment)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    values: dict[str, Any] = json.loads(done.stdout)
    assert values["healthy"] == (status == 0)
    for problem in values["problems"]:
        assert "\n" not in problem
        assert "; " in problem  # the remedy follows
    return values


def before(folder: Path) -> str:
    """A PYTHONPATH whose modules hide the installed ones."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture
def no_gpu() -> None:
    try:
        find_device()
    except BackendError:
        return
    pytest.skip("there is a GPU")


def test_this_machine() -> None:
    values = report(status=0)
    assert values["python"] == platform.python_version()
    assert values["versions"]["cwic"] == cwic.__version__
    assert values["versions"]["numpy"] == np.__version__
    installed = (values["versions"]["onnxruntime"], values["versions"]["onnxruntime-gpu"])
    assert onnxruntime.__version__ in installed
    assert Bundle.load().model_id.hex() in values["model"]
    assert {state["name"]: state["loads"] for state in values["providers"]}["CPUExecutionProvider"]
    by_name = {state["name"]: state for state in values["backends"]}
    assert list(by_name) == ["tensorrt", "cuda", "cpu"]
    assert by_name["cpu"]["works"]
    assert by_name["cpu"]["time_ms"] > 0
    assert values["chosen"] == choose_runner(Bundle.load()).runner.backend


def test_text_says_what_the_json_says(no_gpu: None) -> None:
    done = run()
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["system"].endswith(f"Python {platform.python_version()}")
    assert lines["auto"] == "takes cpu"
    assert lines["backend"].startswith("cpu: works, ")  # the last of the three
    assert "GPU        none: there is no NVIDIA driver here" in done.stdout


def test_an_unusable_bundle(tmp_path: Path) -> None:
    values = report("--model", tmp_path, status=1)
    assert values["model"] is None
    assert values["chosen"] is None
    assert "holds no model.json; pass a folder" in values["problems"][0]
    assert "auto takes nothing" in run("--model", tmp_path).stdout
    bundle = tmp_path / "bundle"
    shutil.copytree(Bundle.load().path, bundle)
    (bundle / "decoder.onnx").write_bytes(b"damaged")
    values = report("--model", bundle, status=1)
    assert any("decoder.onnx is not the file that was exported" in p for p in values["problems"])


def test_the_slow_coder_is_a_problem() -> None:
    values = report(status=0, CWIC_RANS="numpy")
    assert values["coder"] == "numpy"
    assert any("unset CWIC_RANS" in problem for problem in values["problems"])


@pytest.mark.parametrize("text", ["raise ImportError('blocked')", "# incomplete"])
def test_without_a_whole_onnxruntime(tmp_path: Path, text: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(text)
    values = report(status=1, PYTHONPATH=before(tmp_path))
    assert values["providers"] == []
    assert values["problems"][-1].endswith("pip install 'cwic[cpu]'")


# As onnxruntime-gpu behaves without CUDA's libraries: noise on stderr and a session on the CPU.
SHAM = """
import sys
from types import SimpleNamespace
__version__ = "1.99.0"
class SessionOptions(SimpleNamespace):
    def add_session_config_entry(self, key, value):
        pass
severity = 2
def get_available_providers():
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
def set_default_logger_severity(level):
    global severity
    severity = level
def fails(*arguments):
    raise RuntimeError("a sham computes nothing")
def InferenceSession(*arguments, providers, **options):
    if severity < 4 and "CUDA" in str(providers):
        error = "libcublasLt.so.13: cannot open shared object file"
        print(f"\\x1b[31m[E] Failed to load x.so with error: {error}\\x1b[m", file=sys.stderr)
    return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"], run=fails)
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_driver(tmp_path_factory.mktemp("driver"))


def test_a_gpu_that_nothing_uses_yet(driver: Path) -> None:
    values = report(status=0, LD_LIBRARY_PATH=str(driver))
    assert values["device"]["name"] == "Orin"
    assert values["device"]["sm"] == "87"
    problems = "\n".join(values["problems"])
    assert "tensorrt: " in problems
    assert "build them: cwic engine" in problems
    if values["versions"]["onnxruntime-gpu"] is None:
        assert f"is without CUDA; pip uninstall -y onnxruntime && {CUDA_REMEDY}" in problems
        assert values["chosen"] == "cpu"
    assert "GPU        Orin, SM 87, 7620 MiB shared" in run(LD_LIBRARY_PATH=str(driver)).stdout


def test_a_provider_that_is_listed_and_does_not_load(driver: Path, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text(SHAM)
    arguments = {"PYTHONPATH": before(tmp_path), "LD_LIBRARY_PATH": str(driver)}
    values = report(status=1, **arguments)
    (state,) = (state for state in values["providers"] if state["name"].startswith("CUDA"))
    assert not state["loads"]
    assert state["problem"] == "libcublasLt.so.13: cannot open shared object file"
    assert any(
        "libcublasLt.so.13" in problem and problem.endswith(CUDA_REMEDY)
        for problem in values["problems"]
    )
