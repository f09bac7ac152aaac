"""An aarch64 Python under qemu's user mode: Debian's packages, unpacked, never started as a system.

``debootstrap --download-only`` chooses, fetches and verifies the packages without being root;
``dpkg-deb -x`` unpacks them. The network library and NumPy are the aarch64 wheels that a device
installs, and ``_rans.c`` is cross-compiled by the package's own build.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from scripts.cross_decode.native import Machine, build_wheel, install
from scripts.cross_decode.shell import CrossDecodeError, appears_whole, run

__all__ = ["COMPILER", "REMEDY", "emulated", "make_root", "missing_tools"]

COMPILER = "aarch64-linux-gnu-gcc"
REMEDY = "apt install qemu-user-static debootstrap gcc-aarch64-linux-gnu"
_TOOLS = ("qemu-aarch64-static", "debootstrap", "dpkg-deb", COMPILER)
_PACKAGES = "libpython3-dev,python3-minimal"
# qemu's user mode shows the host's /proc/cpuinfo. onnxruntime 1.28 and newer then find no ARM
# core and crash when they are imported, so the root has its own, that of a Cortex-A76.
_CORE = """processor\t: {}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm \
lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def missing_tools() -> list[str]:
    """The programs that are needed and not installed."""
    return [tool for tool in _TOOLS if _which(tool) is None]


def make_root(cache: Path, suite: str) -> Path:
    """Debian's ``suite`` for arm64 with Python and its headers, unpacked below ``cache``.

    Raises:
        CrossDecodeError: the packages cannot be fetched.
    """
    root = cache / f"root-{suite}"
    if not root.exists():
        with appears_whole(root) as made:
            fetched = made / "fetched"
            fetch = [_need("debootstrap"), "--download-only", "--arch=arm64", "--variant=minbase"]
            run([*fetch, f"--include={_PACKAGES}", suite, fetched])
            for package in sorted(fetched.glob("var/cache/apt/archives/*.deb")):
                run([_need("dpkg-deb"), "-x", package, made])
            shutil.rmtree(fetched)
    cores = "".join(_CORE.format(n) for n in range(os.cpu_count() or 1))
    (root / "proc" / "cpuinfo").write_text(cores)
    return root


def emulated(cache: Path, suite: str, cpu: str, host_python: Path) -> Machine:
    """The Python of a Debian suite on an emulated processor, with the package installed.

    Args:
        cache: folder for what is fetched and built.
        suite: of Debian, for example ``bookworm``.
        cpu: qemu's name of the processor, for example ``cortex-a76``.
        host_python: a Python of this machine whose pip fetches and builds.
    """
    root = make_root(cache, suite)
    (python,) = root.glob("usr/bin/python3.[0-9]*[0-9]")
    version = python.name.removeprefix("python")
    start = (_need("qemu-aarch64-static"), "-cpu", cpu, "-L", str(root), str(python))
    wheel = build_wheel(cache, str(host_python), "aarch64", _cross(root, version))
    packages = cache / f"packages-{suite}"
    packages.mkdir(exist_ok=True)
    glibc = int(run([*start, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))"])[8:])
    tags = [f"manylinux_2_{minor}" for minor in range(17, glibc + 1)]
    pip: list[str | Path] = [host_python, "-m", "pip", "install", "--quiet", "--target", packages]
    pip += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version]
    pip += [f"--platform={tag}_aarch64" for tag in ("linux", "manylinux2014", *reversed(tags))]
    install(pip, packages, wheel)
    name = f"aarch64/{version}" + ("" if cpu == "cortex-a76" else f"/{cpu}")
    return Machine(name, start, {"PYTHONPATH": str(packages)}, emulated=True)


def _cross(root: Path, version: str) -> dict[str, str]:
    """What makes setuptools compile for the root: its headers, and its platform's name."""
    headers = root / "usr" / "include"
    return {
        "CC": COMPILER,
        "CFLAGS": f"-I{headers / f'python{version}'} -idirafter {headers}",
        "_PYTHON_HOST_PLATFORM": "linux-aarch64",
    }


def _which(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _need(tool: str) -> str:
    path = _which(tool)
    if path is None:
        raise CrossDecodeError(f"{tool} is missing; {REMEDY}")
    return path
