"""Which TensorRT is found, and what differs between them."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cwic.engines.library import Kind, Library, installed, load_library
from cwic.errors import BackendError


def fake(version: str) -> Any:
    module: Any = ModuleType("tensorrt")
    module.__version__, module.Builder = version, object
    return module


@pytest.fixture
def none(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Neither library can be imported."""
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    return monkeypatch


def test_the_library_that_is_here(rtx: Library) -> None:
    assert rtx in installed()
    assert rtx.module.__version__ == rtx.version
    assert rtx.release >= (1, 4)
    assert {"75", "80", "86", "89", "120"} <= set(rtx.sms())
    assert "87" not in rtx.sms()
    assert (rtx.ahead_of_time, rtx.has_timing_cache, rtx.has_plugins) == (True, False, False)


def test_fp32_is_fp32(rtx: Library) -> None:
    with rtx.messages_to(lambda severity, message: None) as logger:
        config = rtx.new_config(rtx.module.Builder(logger), "86")
        assert not config.get_flag(rtx.module.BuilderFlag.TF32)


@pytest.mark.parametrize("kind", [None, "tensorrt", "tensorrt-rtx"])
def test_nothing_is_installed(none: pytest.MonkeyPatch, kind: Kind | None) -> None:
    assert installed() == []
    with pytest.raises(BackendError, match=r"not installed.*; .*pip install 'cwic\[tens") as error:
        load_library(kind)
    assert "\n" not in str(error.value)


def test_tensorrt_comes_first(none: pytest.MonkeyPatch) -> None:
    none.setitem(sys.modules, "tensorrt_rtx", fake("1.7.1.116"))
    assert load_library().kind == "tensorrt-rtx"
    none.setitem(sys.modules, "tensorrt", fake("10.3.0.26"))
    assert load_library().kind == "tensorrt"
    assert [found.kind for found in installed()] == ["tensorrt", "tensorrt-rtx"]


def test_a_folder_of_that_name_is_not_the_library(none: pytest.MonkeyPatch) -> None:
    none.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    with pytest.raises(BackendError, match="TensorRT is not installed; pip install"):
        load_library("tensorrt")


@pytest.mark.parametrize(
    ("kind", "module", "version", "oldest"),
    [
        ("tensorrt", "tensorrt", "8.6.1", "10.3"),
        ("tensorrt", "tensorrt", "10.2.0.19", "10.3"),
        ("tensorrt-rtx", "tensorrt_rtx", "1.3.0.1", "1.4"),
    ],
)
def test_an_old_library_is_refused(
    none: pytest.MonkeyPatch, kind: Kind, module: str, version: str, oldest: str
) -> None:
    none.setitem(sys.modules, module, fake(version))
    with pytest.raises(BackendError, match=f"{version} is older than {oldest}; pip install"):
        load_library(kind)


def test_a_missing_shared_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr("cwic.engines.library.importlib.import_module", fail)
    with pytest.raises(BackendError, match="libnvinfer.so.10: cannot open .*; pip install"):
        load_library("tensorrt")


@pytest.mark.parametrize(
    ("kind", "version", "flags"),
    [
        ("tensorrt", "10.3.0.26", 2),
        ("tensorrt", "10.16.1.11", 2),
        ("tensorrt", "11.0.0.1", 0),
        ("tensorrt-rtx", "1.7.1.116", 0),
    ],
)
def test_networks_are_strongly_typed(kind: Kind, version: str, flags: int) -> None:
    module = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    builder: Any = SimpleNamespace(create_network=lambda value: value)
    assert Library(kind, version, module).new_network(builder) == flags


def test_rtx_types_strongly_without_being_asked(rtx: Library) -> None:
    with rtx.messages_to(lambda *_: None) as logger:
        builder = rtx.module.Builder(logger)
        network = rtx.new_network(builder)
        flag = rtx.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        assert network.get_flag(flag)


@pytest.mark.parametrize(
    ("kind", "version", "plugins"),
    [
        ("tensorrt", "10.3.0.26", False),
        ("tensorrt", "10.9.0.34", True),
        ("tensorrt", "11.4.0.106", True),
        ("tensorrt-rtx", "1.7.1.116", False),
    ],
)
def test_who_has_plugins(kind: Kind, version: str, plugins: bool) -> None:
    assert Library(kind, version, None).has_plugins is plugins


def test_tensorrt_builds_for_no_other_machine() -> None:
    assert Library("tensorrt", "10.3.0.26", None).sms() == ()


def test_messages_go_to_the_last_caller_and_back(rtx: Library) -> None:
    outer: list[str] = []
    inner: list[str] = []
    logger = rtx.logger(lambda severity, text: outer.append(f"{severity} {text}"))
    warning = rtx.module.ILogger.Severity.WARNING
    logger.log(warning, "one")
    with rtx.messages_to(lambda severity, text: inner.append(f"{severity} {text}")) as same:
        assert same is logger
        logger.log(rtx.module.ILogger.Severity.INTERNAL_ERROR, "two")
        # A real message: this is no ONNX model.
        builder = rtx.module.Builder(same)
        network = rtx.new_network(builder)
        assert not rtx.module.OnnxParser(network, same).parse(b"no model")
    logger.log(warning, "three")
    assert outer == ["warning one", "warning three"]
    assert inner[0] == "error two"
    assert any(text.startswith("error") and "ONNX" in text for text in inner[1:])


def test_names_of_types(rtx: Library) -> None:
    types = rtx.module.DataType
    names = [rtx.dtype_name(t) for t in (types.FLOAT, types.HALF, types.INT8, types.UINT8)]
    assert names == ["fp32", "fp16", "int8", "uint8"]
    assert [rtx.dtype_name(t) for t in (types.BF16, types.BOOL, types.INT64)] == [
        "bf16",
        "bool",
        "int64",
    ]
