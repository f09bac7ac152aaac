"""Where and with what a figure was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cwic.bench import cpu_name

__all__ = ["describe"]

_PACKAGES = ("cwic", "numpy", "pillow", "onnxruntime", "torch", "torchmetrics")


def describe(*packages: str) -> dict[str, Any]:
    """Commit, command, machine and versions, also those of ``packages``, as plain JSON values."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain") == "",
        "command": " ".join(["python", *sys.orig_argv[1:]]),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in (*_PACKAGES, *packages)},
        },
    }


def _git(*arguments: str) -> str | None:
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
