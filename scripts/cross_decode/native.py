"""The package as a wheel, and the Pythons of this machine with that wheel installed."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.cross_decode.shell import CrossDecodeError, appears_whole, run

__all__ = ["PYTHONS", "ROOT", "Machine", "build_wheel", "find_pythons", "install", "native"]

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "runtime", "export", "training")
_BUILT = ("__pycache__", "*.so", "*.egg-info")


@dataclass(frozen=True)
class Machine:
    """A Python with the package, on this machine or an emulated one.

    Attributes:
        name: for example ``x86-64/3.12``.
        command: runs its Python.
        env: variables that it needs.
        emulated: so slow that only crops go through its networks.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    emulated: bool


def find_pythons() -> dict[str, str]:
    """Working interpreters by version: on PATH, or kept by pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {}
    for version in PYTHONS:
        candidates = [shutil.which(f"python{version}")]
        candidates += [str(p) for p in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
        for path in filter(None, candidates):
            try:
                run([path, "-c", "import ensurepip, venv"])
            except CrossDecodeError:  # a shim of pyenv without its version, or no venv module
                continue
            found[version] = path
            break
    return found


def build_wheel(cache: Path, python: str, tag: str, env: Mapping[str, str] | None = None) -> Path:
    """The wheel of the working tree, built once for a state of its files.

    Args:
        cache: folder for what is built.
        python: the interpreter that builds; the wheel serves every later one (abi3).
        tag: names the machine that it is for.
        env: variables for the compiler.

    Raises:
        CrossDecodeError: it cannot be built, or lacks the C coder.
    """
    # From a copy: a build leaves files behind, and others may be editing the tree.
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        _copy_sources(source)
        digest = hashlib.sha256()
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes())
        folder = cache / f"wheel-{tag}-{digest.hexdigest()[:12]}"
        if not folder.exists():
            for old in cache.glob(f"wheel-{tag}-*"):
                shutil.rmtree(old)
            with appears_whole(folder) as made:
                run([python, "-m", "pip", "wheel", "--no-deps", "-w", made, source], env)
    (wheel,) = folder.glob("*.whl")
    if "cwic/_rans.abi3.so" not in zipfile.ZipFile(wheel).namelist():
        raise CrossDecodeError(
            f"the wheel for {tag} lacks the C coder; install a C compiler and Python's headers "
            "(on Debian: apt install gcc python3-dev)"
        )
    return wheel


def install(pip: Sequence[str | Path], folder: Path, wheel: Path) -> None:
    """Install ``wheel[cpu]`` into a folder, and later only what changed.

    Args:
        pip: the command ``pip install`` with the options that lead into the folder.
        folder: a virtual environment or a target folder.
        wheel: the package.
    """
    wanted = [wheel.parent.name, _requirements(wheel)]
    stamp = folder / "installed.txt"
    had = stamp.read_text().split("\n", 1) if stamp.exists() else ["", ""]
    if had[1] != wanted[1]:
        run([*pip, "--upgrade", f"{wheel}[cpu]"])
    if had != wanted:  # pip takes an older wheel of the same version for this one
        run([*pip, "--upgrade", "--force-reinstall", "--no-deps", wheel])
    stamp.write_text("\n".join(wanted))


def native(cache: Path, version: str, python: str, wheel: Path) -> Machine:
    """A virtual environment of one of this machine's Pythons."""
    machine = platform.machine().replace("x86_64", "x86-64")
    folder = cache / f"venv-{version}"
    inside = folder / "bin" / "python"
    if not inside.exists():
        run([python, "-m", "venv", "--clear", folder])
    install([inside, "-m", "pip", "install", "--quiet"], folder, wheel)
    return Machine(f"{machine}/{version}", (str(inside),), {}, emulated=False)


def _copy_sources(to: Path) -> None:
    for name in _SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, to / name, ignore=shutil.ignore_patterns(*_BUILT))
        else:
            shutil.copy2(path, to / name)


def _requirements(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    wanted = [line for line in lines if line.startswith("Requires-Dist:")]
    return "\n".join(line for line in wanted if "extra ==" not in line or '"cpu"' in line)
