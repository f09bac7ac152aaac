"""What may import what: the runtime without torch, one direction between the packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = sorted(
    ".".join(p.relative_to(ROOT / "runtime").with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "runtime").rglob("*.py")
)
HEAVY = ("torch", "lightning", "onnx", "onnxscript", "torchmetrics", "cwic_training", "cwic_export")

CODE = """
import importlib, sys
for name in {blocked!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
print(sorted(set({heavy!r}) & {{m for m, v in sys.modules.items() if v is not None}}))
"""


def imports(modules: list[str], blocked: tuple[str, ...]) -> str:
    code = CODE.format(blocked=blocked, modules=modules, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_are_runtime_modules() -> None:
    assert {"cwic", "cwic.codec", "cwic.rans", "cwic.cli"} <= set(RUNTIME)


def test_every_runtime_module_loads_without_torch() -> None:
    assert imports(RUNTIME, HEAVY) == "[]"


def test_the_runtime_asks_for_no_backend_before_it_is_used() -> None:
    assert imports(RUNTIME, (*HEAVY, "onnxruntime")) == "[]"


@pytest.mark.parametrize("command", ["encode", "info", "train", "export"])
def test_help_of_a_command_loads_quickly_or_says_what_is_missing(command: str) -> None:
    code = (
        f"import sys; sys.modules['torch'] = None; from cwic.cli import main; main(['{command}'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    if command in ("train", "export"):
        assert done.returncode == 1
        assert "pip install 'cwic[" in done.stderr
    else:
        assert done.returncode == 2


def test_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
