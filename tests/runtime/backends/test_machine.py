"""What is read from the driver and from the machine's files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.backends.fake_gpu import compile_driver

from cwic.backends import host

LOOK = """
import json
from cwic.backends.device import find_device
from cwic.errors import BackendError
try:
    print(json.dumps(vars(find_device())))
except BackendError as exc:
    print(json.dumps(str(exc)))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libcuda.so.1 that was compiled just now."""
    return compile_driver(tmp_path_factory.mktemp("driver"))


def look(folder: Path, **environment: str) -> object:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, env=environment, check=True
    )
    return json.loads(done.stdout)


def test_a_device(driver: Path) -> None:
    assert look(driver) == {
        "name": "Orin",
        "sm": "87",
        "memory_mib": 7620,
        "integrated": True,
        "cuda_version": "12.6",
    }


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STATUS": "100"}, "(cuInit: no CUDA-capable device is detected); install the NVIDIA"),
        ({"STATUS": "999"}, "(cuInit: unknown error); install the NVIDIA driver"),
        ({"GPUS": "0"}, "shows no GPU; unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_driver_without_a_device(
    driver: Path, environment: dict[str, str], expected: str
) -> None:
    message = look(driver, **environment)
    assert expected in str(message)
    assert str(message).endswith("or use --backend cpu")


VERSIONS = {
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 05:01:02 UTC 2025\n"
    "GCC version:  gcc version 12.3.0\n": "570.86.15",
    "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (me@host)  "
    "Tue Jan  7 17:35:12 PST 2025\n": "540.4.0",
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n": (
        "550.54.14"
    ),
}


@pytest.mark.parametrize(("text", "expected"), VERSIONS.items(), ids=VERSIONS.values())
def test_driver_version(tmp_path: Path, text: str, expected: str) -> None:
    folder = tmp_path / "proc" / "driver" / "nvidia"
    folder.mkdir(parents=True)
    assert host.driver_version(tmp_path) is None
    (folder / "version").write_text(text)
    assert host.driver_version(tmp_path) == expected


RELEASES = {
    "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64": (
        "35.4.1",
        "5",
    ),
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64": (
        "36.4.3",
        "6",
    ),
    "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64": (
        "38.2.0",
        "7",
    ),
    "# R99 (release), REVISION: 1.0, GCID: 1": ("99.1.0", None),
}


@pytest.mark.parametrize(("text", "expected"), RELEASES.items())
def test_jetson(
    tmp_path: Path,
    text: str,
    expected: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no dpkg-query
    assert host.find_jetson(tmp_path) is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text(text + "\n")
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")
    found = host.find_jetson(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == expected
    assert found.model == "NVIDIA Jetson Orin Nano"


def test_the_package_knows_jetpack_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = tmp_path / "dpkg-query"
    query.write_text('#!/bin/sh\n[ "$3" = nvidia-jetpack ] && printf %s 6.2+b77\n')
    query.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1")
    found = host.find_jetson(tmp_path)
    assert found is not None
    assert (found.model, found.jetpack) == ("unknown", "6.2+b77")
