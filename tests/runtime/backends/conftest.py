"""A machine with a GPU that is none, and a bundle with engines for it."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.backends.fake_gpu import ORIN, VERSION, FakeCuda, FakeTensorRT, WithEngines

from cwic.backends import tensorrt
from cwic.bundle import Bundle, FileEntry
from cwic.engines import library
from cwic.engines.library import Library
from cwic.engines.record import FACTS, EngineRecord, file_name


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    monkeypatch.setattr(tensorrt, "find_device", lambda: ORIN)
    return fake


@pytest.fixture
def trt(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    fake = FakeTensorRT(cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(library, "_loggers", {})
    return fake


@pytest.fixture
def copied(tmp_path: Path) -> Bundle:
    """The shipped bundle in a folder that can be written."""
    shutil.copytree(Bundle.load().path, tmp_path / "bundle")
    return Bundle.load(tmp_path / "bundle")


@pytest.fixture
def with_engines(copied: Bundle) -> WithEngines:
    """Adds "engines" of both roles to a bundle: the bytes of its ONNX files, and records."""

    def add(**record: Any) -> Bundle:
        bundle = Bundle.load(copied.path)
        values = {
            "kind": "tensorrt",
            "library_version": VERSION,
            "sm": ORIN.sm,
            "gpu": ORIN.name,
            "precision": "fp32",
            "profile": {},
            "builder": {},
            "audit": {},
            **record,
        }
        files, facts = dict(bundle.files), dict(bundle.facts.get(FACTS, {}))
        built_by = Library(values["kind"], values["library_version"], None)
        for role in ("encoder", "decoder"):
            onnx = f"{role}.onnx"
            name = file_name(role, built_by, values["sm"], values["precision"])
            shutil.copy(bundle.path / onnx, bundle.path / name)
            files[name] = FileEntry.of(
                bundle.path / name,
                role=role,
                target=values["kind"],
                precision=values["precision"],
            )
            source = {"onnx": onnx, "onnx_sha256": bundle.files[onnx].sha256}
            facts[name] = EngineRecord(**{**source, **values}).to_json()
        changed = dataclasses.replace(bundle, files=files, facts={**bundle.facts, FACTS: facts})
        changed.save()
        return Bundle.load(bundle.path)

    return add
