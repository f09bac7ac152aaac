"""What the machine's files say about the NVIDIA software on it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Jetson", "driver_version", "find_jetson"]

_ROOT = Path("/")
# The major version of JetPack by that of its Jetson Linux (L4T).
_JETPACK = {"35": "5", "36": "6", "38": "7"}


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    Attributes:
        model: what the device tree calls it.
        l4t: version of Jetson Linux, for example ``36.4.3``.
        jetpack: version of JetPack, only its major one where the package
            ``nvidia-jetpack`` is not installed; None if even that is unknown.
    """

    model: str
    l4t: str
    jetpack: str | None


def driver_version(root: Path = _ROOT) -> str | None:
    """Version of the kernel's NVIDIA driver, for example ``570.86.15``; None without one."""
    text = _read(root / "proc/driver/nvidia/version")
    found = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else None


def find_jetson(root: Path = _ROOT) -> Jetson | None:
    """The board if this is one, or a container that got its files."""
    release = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", _read(root / "etc/nv_tegra_release"))
    if release is None:
        return None
    model = _read(root / "proc/device-tree/model").strip("\0 \n")
    jetpack = _package_version("nvidia-jetpack") or _JETPACK.get(release[1])
    return Jetson(model or "unknown", f"{release[1]}.{release[2]}", jetpack)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _package_version(name: str) -> str | None:
    query = shutil.which("dpkg-query")
    if query is None:
        return None
    command = [query, "--showformat=${Version}", "--show", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip() or None if done.returncode == 0 else None
