"""Every command and program that README.md and the pages on training show is run here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHORT = {
    f"CWIC_TRAIN_{stage}_{option}": value
    for stage in ("MAIN", "IMPORTANCE")
    for option, value in (("STEPS", "2"), ("BATCH", "1"), ("PROGRESS", "0"))
} | {"CWIC_TRAIN_ENTROPY_STEPS": "2", "CWIC_TRAIN_ENTROPY_BATCH": "1"}


def commands(page: str) -> list[str]:
    """Shell lines of the unmarked code blocks, continued lines joined, comments removed."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M)
    unmarked = [content for language, content in blocks if not language]
    lines = "\n".join(unmarked).replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].strip() for line in lines]


def shown(page: str, program: str) -> list[str]:
    return [line for line in commands(page) if line.startswith(program + " ")]


@pytest.fixture
def folder(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    Image.fromarray(photo[:192, :256]).save(tmp_path / "photo.png")
    for name in ("photos", "held-out", "photos/train", "photos/valid"):
        (tmp_path / name).mkdir()
        for i in range(2):
            piece = Image.fromarray(photo[192 * i : 192 * i + 192, 200:400])
            piece.save(tmp_path / name / f"{i}.jpg", quality=95)
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        shlex.split(command) if "*" not in command else ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, **SHORT, "PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/training-signs.md"])
def test_cwic_commands(page: str, folder: Path) -> None:
    lines = shown(page, "cwic")
    assert len(lines) >= 3
    if page == "docs/training.md":
        (folder / "models").mkdir()
    for line in lines:
        if page != "README.md" and line.startswith("cwic export "):
            continue  # takes long, and README.md has the same
        done = run(re.sub(r" --steps \d+", "", line), folder)  # SHORT says how many
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    if page == "README.md":
        assert Image.open(folder / "restored.png").size == (256, 192)


def test_python_program(folder: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    done = run(f"{sys.executable} -c {shlex.quote(program)}", folder)
    assert done.returncode == 0, done.stderr
    assert Image.open(folder / "restored.png").size == (256, 192)


def test_make_targets_exist() -> None:
    targets = [line.split()[1] for page in ("README.md", "CONTRIBUTING.md")
               for line in shown(page, "make")]  # fmt: skip
    assert {"demo", "test", "slow"} <= set(targets)
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_make_demo(tmp_path: Path) -> None:
    venv = Path(sys.prefix)
    if not (venv / "bin" / "cwic").exists():
        pytest.skip("the package is not installed in this environment")
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    command = ["make", "demo", f"VENV={venv}", f"OUT={tmp_path}", "-o", str(venv / ".ready")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("kodim03.cwic", "kodim03.png", "kodim23.cwic", "kodim23.png", "sheet.png"):
        assert (tmp_path / name).stat().st_size > 5000
    for word in ("JPEG", "WebP", "MS-SSIM", "kodim23", "torchscript", "exported-program"):
        assert word in done.stdout
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.width > 1200
