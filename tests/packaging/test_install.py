"""A fresh install without torch, on every Python that is found: `pytest -m slow`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

ROUND_TRIP = """
set -e
cwic encode "$PICTURE" -o a.cwic --bpp 0.5
cwic info a.cwic
cwic decode a.cwic -o b.png
CWIC_RANS=numpy cwic encode "$PICTURE" -o n.cwic --bpp 0.5
cmp a.cwic n.cwic
"""


def interpreter(version: str) -> str | None:
    """A working interpreter of this version: on PATH, or one that pyenv keeps."""
    candidates = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += [str(p) for p in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for path in filter(None, candidates):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def environment(folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def install(python: str, folder: Path, *what: str) -> None:
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_cpu_install_round_trip(version: str, tmp_path: Path, photo_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    install(python, tmp_path / "venv", f"{ROOT}[cpu]")
    env = {**environment(tmp_path / "venv"), "PICTURE": str(photo_path)}
    run = subprocess.run(
        ["sh", "-c", ROUND_TRIP], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    packages = subprocess.run(
        [tmp_path / "venv/bin/python", "-c", "import cwic.rans as r; print(r.implementation())"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert packages.stdout.strip() == "c"
    assert not list((tmp_path / "venv").glob("lib/*/site-packages/torch"))


@pytest.mark.slow
def test_wheel_holds_the_model_and_the_coder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert "abi3" in wheel.name
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    ).stdout
    for name in (
        "cwic/models/nano/model.json",
        "cwic/models/nano/encoder.onnx",
        "cwic/_rans.abi3.so",
        "cwic/py.typed",
        "cwic_export/cli.py",
        "cwic_training/cli.py",
    ):
        assert name in listed


@pytest.mark.slow
def test_the_base_install_says_what_is_missing(tmp_path: Path, photo_path: Path) -> None:
    install(sys.executable, tmp_path / "venv", str(ROOT))
    cwic = tmp_path / "venv/bin/cwic"
    for arguments, remedy in [
        (["encode", str(photo_path), "-o", "a.cwic"], "pip install 'cwic[cpu]'"),
        (["train", "main"], "pip install 'cwic[train]'"),
        (["export", "x"], "pip install 'cwic[export]'"),
    ]:
        done = subprocess.run(
            [cwic, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert remedy in done.stderr
    assert not (tmp_path / "a.cwic").exists()
