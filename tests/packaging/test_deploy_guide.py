"""docs/deploy-jetson.md: its plain blocks are run in their order, on the CPU.

The export, which the README's test covers too, runs with `pytest -m slow`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.packaging.test_dockerfile import STAGES
from tests.packaging.test_readme import commands, folder, run, shown

from cwic.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/deploy-jetson.md"
HOST = ("export", "validate")
TEXT = (ROOT / PAGE).read_text()

__all__ = ["folder"]


def walk(lines: list[str], folder: Path) -> None:
    for line in lines:
        done = run(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert Image.open(folder / "restored.png").size == (256, 192)


def test_commands_of_the_runtime(folder: Path) -> None:
    shutil.copytree(Bundle.load().path, folder / "bundle")
    lines = [line for line in shown(PAGE, "cwic") if line.split()[1] not in HOST]
    assert [line.split()[1] for line in lines] == ["doctor", "bench", "encode", "info", "decode"]
    walk(lines, folder)


@pytest.mark.slow
def test_all_commands(folder: Path) -> None:
    shutil.copy(ROOT / "models" / "nano.safetensors", folder / "mine.safetensors")
    lines = shown(PAGE, "cwic")
    assert tuple(line.split()[1] for line in lines[:2]) == HOST
    walk(lines, folder)


def test_what_needs_a_device_or_docker_is_marked() -> None:
    plain = "\n".join(commands(PAGE))
    assert "cwic doctor" in plain
    for word in ("docker", "sudo", "engine", "tensorrt", "rsync", "pip"):
        assert not re.search(rf"\b{word}\b", plain)


def test_what_it_builds_is_in_the_dockerfile() -> None:
    targets = set(re.findall(r"--target (\S+)", TEXT))
    assert targets
    assert targets <= set(STAGES)
    dockerfile = (ROOT / "Dockerfile").read_text()
    arguments = set(re.findall(r"--build-arg (\w+)=", TEXT))
    assert arguments == {"JETSON_BASE", "CUDA_PYTHON"}
    for name in arguments:
        assert re.search(rf"^ARG {name}=", dockerfile, re.M)
