"""Real engines, built without a GPU, and everything that can be wrong with a bundle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import cwic
from cwic import packaged
from cwic.backends.device import Device
from cwic.bundle import Bundle
from cwic.engines import plan as plan_module
from cwic.engines.build import build_engines
from cwic.engines.library import Library
from cwic.engines.plan import Plan, build_plan
from cwic.engines.profile import Profile
from cwic.engines.record import EngineRecord
from cwic.engines.target import Target, find_target
from cwic.errors import BackendError, BundleError, CwicError, UsageError

from .conftest import SIGNS, AddOnnx, convolutions, fp16, int8, pointwise, shipped

ROLES = ("encoder", "decoder")
# What TensorRT for RTX writes first.
MAGIC = b"vtrt"


def plan(target: Target, model: onnx.ModelProto | bytes, role: str, precision: str) -> Plan:
    """Of a graph of the default model, as far as shapes go."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return build_plan(
        target,
        data,
        name=f"{role}.{precision}.onnx",
        role=role,
        precision=precision,
        shapes=Profile.parse().shapes(role, Bundle.load().decoder_channels, 8),
    )


@pytest.mark.parametrize("sm", ["86", "120"])
def test_engines_of_the_shipped_model_with_the_full_profile(
    rtx: Library, bundle: Bundle, sm: str
) -> None:
    built, names = build_engines(bundle, find_target(rtx, sm))
    release = ".".join(map(str, rtx.release))
    assert names == [f"{role}.sm{sm}-rtx{release}-fp32.engine" for role in ROLES]
    for role, name in zip(ROLES, names, strict=True):
        data = built.read(name)
        assert data.startswith(MAGIC)
        assert len(data) > 5_000_000  # the weights are inside, as fp32
        record = EngineRecord.of(built, name)
        assert (record.kind, record.library_version) == ("tensorrt-rtx", rtx.version)
        assert (record.sm, record.gpu, record.precision) == (sm, None, "fp32")
        assert record.onnx == f"{role}.onnx"
        assert record.onnx_sha256 == bundle.files[f"{role}.onnx"].sha256
        shapes = Profile.parse().shapes(role, bundle.decoder_channels, bundle.stride)
        assert record.profile == shapes
        assert record.audit["wrong"] == []
        assert set(record.audit["weighted"]) == {"fp32"}
        log = built.read(record.builder["log"]).decode()
        assert "Engine generation completed" in log
        assert "convolution\tnode_conv2d\tfp32" in log


def test_the_rest_of_the_bundle_stays_as_it_was(sm86: Target, bundle: Bundle) -> None:
    before = json.loads((bundle.path / "model.json").read_text())
    build_engines(bundle, sm86)
    after = json.loads((bundle.path / "model.json").read_text())
    assert after["model_id"] == before["model_id"]
    assert {name: after["files"][name] for name in before["files"]} == before["files"]
    assert after["facts"].pop("engines").keys() == {
        name for name in after["files"] if name.endswith(".engine")
    }
    assert after["facts"] == before["facts"]
    # A release without engines knows no other keys, and reads the manifest all the same.
    assert all(
        entry.keys() == {"sha256", "bytes", "role", "target", "precision"}
        for entry in after["files"].values()
    )
    picture = np.zeros((16, 16, 3), np.uint8)
    data = cwic.load(bundle.path, "cpu").encode(picture)
    assert cwic.load(packaged.folder(), "cpu").decode(data).size == (16, 16)


def test_a_second_build_replaces_the_first_and_adds_to_others(rtx: Library, bundle: Bundle) -> None:
    first, names86 = build_engines(bundle, Target(rtx, "86", None))
    # The bundle as it was before the first build: what that wrote must not be lost.
    second, names89 = build_engines(bundle, Target(rtx, "89", None))
    third, again = build_engines(
        second, Target(rtx, "86", None), profile=Profile.parse(("64x64", "64x64", "128x128"))
    )
    assert again == names86
    assert set(third.facts["engines"]) == {*names86, *names89}
    for name in (*names86, *names89):
        third.read(name)
    assert EngineRecord.of(third, names86[0]).profile["image"][2] == (1, 128, 128, 3)
    assert EngineRecord.of(first, names86[0]).profile["image"][2] == (1, 2160, 3840, 3)


def test_the_file_holds_the_plans_bytes(
    sm86: Target, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[Plan] = []

    def keep(*arguments: Any, **options: Any) -> Plan:
        plans.append(build_plan(*arguments, **options))
        return plans[-1]

    monkeypatch.setattr("cwic.engines.build.build_plan", keep)
    _, names = build_engines(bundle, sm86)
    for made, name in zip(plans, names, strict=True):
        assert (bundle.path / name).read_bytes() == made.data


@pytest.mark.parametrize("role", ROLES)
def test_other_precisions(sm86: Target, role: str) -> None:
    """fp16 weights halve an engine and int8 weights shrink it more."""
    plain = plan(sm86, shipped(role), role, "fp32")
    half = plan(sm86, fp16(role), role, "fp16")
    quantised = plan(sm86, int8(role), role, "int8")
    assert len(half.data) < 0.7 * len(plain.data)
    assert len(quantised.data) < 0.7 * len(plain.data)
    assert set(half.audit.weighted) == {"fp16"}
    assert quantised.audit.weighted["int8"] == len(pointwise(shipped(role)))


def test_fp16_is_built_from_the_fp16_files(sm86: Target, add_onnx: AddOnnx) -> None:
    for role in ROLES:
        bundle = add_onnx(f"{role}.fp16.onnx", fp16(role).SerializeToString(), role, "fp16")
    built, names = build_engines(bundle, sm86, precision="fp16")
    assert all(name.endswith("-fp16.engine") for name in names)
    assert [EngineRecord.of(built, name).onnx for name in names] == [
        "encoder.fp16.onnx",
        "decoder.fp16.onnx",
    ]
    assert {built.files[name].precision for name in names} == {"fp16"}


def test_a_file_that_only_calls_itself_fp16_is_refused(sm86: Target, add_onnx: AddOnnx) -> None:
    for role in ROLES:
        bundle = add_onnx(f"{role}.fp16.onnx", shipped(role).SerializeToString(), role, "fp16")
    listing = sorted(path.name for path in bundle.path.iterdir())
    manifest = (bundle.path / "model.json").read_bytes()
    with pytest.raises(BackendError, match=r"encoder.fp16.onnx was asked .* fp16, but") as error:
        build_engines(bundle, sm86, precision="fp16")
    assert f"(convolutions: {len(convolutions(shipped('encoder')))} fp32)" in str(error.value)
    assert "\n" not in str(error.value)
    # Nothing is written when one of the two fails.
    assert sorted(path.name for path in bundle.path.iterdir()) == listing
    assert (bundle.path / "model.json").read_bytes() == manifest


def test_a_precision_that_was_not_exported(sm86: Target, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no fp16 ONNX file of its encoder \(it has fp32\); exp"):
        build_engines(bundle, sm86, precision="fp16")


def without_body(role: str) -> bytes:
    model = shipped(role, SIGNS)  # whose operators are functions
    assert model.functions
    del model.functions[:]
    return bytes(model.SerializeToString())


def unknown_operator(role: str) -> bytes:
    model = shipped(role)
    model.graph.node[-1].op_type = "Frobnicate"
    return bytes(model.SerializeToString())


def other_inputs(role: str) -> bytes:
    return bytes(shipped("decoder" if role == "encoder" else "encoder").SerializeToString())


def float_output(role: str) -> bytes:
    model = shipped(role)
    last = next(n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
    last.attribute[0].i = onnx.TensorProto.FLOAT
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_body, r"no function body for its operator cwic::\w+, .*; export the model again"),
        (unknown_operator, r"does not run the operator Frobnicate of .*; update it, or export"),
        (other_inputs, r"is not the \w+ of a model: it takes .* not .*; export"),
        (float_output, r"is not the \w+ of a model: .* fp32.*; export"),
        (lambda role: b"no model at all", r"is no ONNX model; export the model again"),
        (lambda role: b"", r"is not the \w+ of a model: it takes nothing"),
    ],
    ids=["no body", "unknown operator", "the other graph", "float output", "garbage", "empty"],
)
def test_onnx_files_that_are_none(
    sm86: Target, role: str, change: Callable[[str], bytes], reason: str
) -> None:
    with pytest.raises(BackendError, match=reason) as error:
        plan(sm86, change(role), role, "fp32")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["missing", "one bit", "unlisted"])
@pytest.mark.parametrize("role", ROLES)
def test_damaged_bundles(sm86: Target, bundle: Bundle, role: str, damage: str) -> None:
    name = f"{role}.onnx"
    path = bundle.path / name
    if damage == "missing":
        path.unlink()
        reason = rf"{name} is missing or unreadable; export the model again"
    elif damage == "one bit":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        reason = rf"{name} is not the file that was exported .*; export the model again"
    else:
        files = {k: v for k, v in bundle.files.items() if k != name}
        bundle = dataclasses.replace(bundle, files=files)
        reason = rf"no fp32 ONNX file of its {role} \(it has none\); export"
    with pytest.raises(BundleError, match=reason) as error:
        build_engines(bundle, sm86)
    assert "\n" not in str(error.value)
    assert not list(bundle.path.glob("*.engine*"))


@pytest.mark.parametrize("damage", ["missing", "one bit"])
def test_a_damaged_engine_is_built_again_not_exported(
    sm86: Target, bundle: Bundle, damage: str
) -> None:
    built, (name, _) = build_engines(bundle, sm86)
    path = built.path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"\xff\x00")
    with pytest.raises(BundleError, match=rf"{name} is .*; build it again: cwic engine"):
        built.read(name)


def test_sizes_that_a_graph_cannot_take(sm86: Target) -> None:
    model = shipped("encoder")
    for axis, size in zip((1, 2), (128, 128), strict=True):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    with pytest.raises(BackendError, match="; give a") as error:
        plan(sm86, model, "encoder", "fp32")
    assert "\n" not in str(error.value)


# Which GPU an engine is for ---------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Says which GPU this machine has."""

    def set_gpu(sm: str | None) -> None:
        def find() -> Device:
            if sm is None:
                raise BackendError("there is no NVIDIA driver here; install one")
            return Device("Orin", sm, 7620, True, "12.6")

        monkeypatch.setattr("cwic.engines.target.find_device", find)

    return set_gpu


def test_rtx_builds_for_any_sm_that_it_knows(
    rtx: Library, gpu: Callable[[str | None], None]
) -> None:
    gpu(None)
    assert find_target(rtx, "75") == Target(rtx, "75", None)
    with pytest.raises(UsageError, match="no GPU here; name .* --sm 75, 80, 86"):
        find_target(rtx)
    with pytest.raises(UsageError, match="not build for SM 87; use .* --kind tensorrt on the dev"):
        find_target(rtx, "87")
    gpu("86")
    assert find_target(rtx) == Target(rtx, "86", "Orin")
    assert find_target(rtx, "120") == Target(rtx, "120", None)
    gpu("87")
    with pytest.raises(UsageError, match="not build for SM 87"):
        find_target(rtx)


def test_tensorrt_builds_for_the_gpu_that_is_here(gpu: Callable[[str | None], None]) -> None:
    library = Library("tensorrt", "10.3.0.26", None)
    gpu("87")
    assert find_target(library) == Target(library, "87", "Orin")
    assert find_target(library, "87") == Target(library, "87", "Orin")
    with pytest.raises(UsageError, match=r"\(Orin, SM 87\), not for SM 86; run .* tensorrt-rtx"):
        find_target(library, "86")
    gpu(None)
    with pytest.raises(BackendError, match="none is here; run this on the device, or .*-rtx"):
        find_target(library, "87")


# TensorRT itself: RTX's classes of the same names stand in for it --------------------------


@pytest.fixture
def tensorrt(rtx: Library) -> Target:
    """TensorRT 10.3 on an Orin, as far as RTX's module can play it."""
    return Target(Library("tensorrt", "10.3.0.26", rtx.module), "87", "Orin")


def test_engines_of_tensorrt_are_named_after_it(
    tensorrt: Target, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwic.engines.inspector.inspect", lambda *_: None)
    built, names = build_engines(bundle, tensorrt)
    assert names == [f"{role}.sm87-trt10.3-fp32.engine" for role in ROLES]
    record = EngineRecord.of(built, names[0])
    assert (record.kind, record.gpu, record.sm) == ("tensorrt", "Orin", "87")
    assert record.builder["inspected"] is False


@pytest.mark.parametrize(("datatype", "passes"), [("Half", True), ("Float", False)])
def test_the_built_engine_is_audited_too(
    tensorrt: Target, monkeypatch: pytest.MonkeyPatch, datatype: str, passes: bool
) -> None:
    sides = [{"Name": "x", "Format/Datatype": datatype}]
    layers = [
        {"Name": "fused", "Inputs": sides, "Outputs": sides, "Metadata": f"[ONNX Layer: {node}]"}
        for node in ("node_conv2d_1", "node_conv2d_2")
    ]
    information = json.dumps({"Layers": layers})
    monkeypatch.setattr("cwic.engines.inspector.inspect", lambda *_: information)
    if passes:
        assert plan(tensorrt, fp16("encoder"), "encoder", "fp16").inspected
    else:
        with pytest.raises(BackendError, match="runs node_conv2d_1 and 1 other fp16 layers"):
            plan(tensorrt, fp16("encoder"), "encoder", "fp16")


@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")
def test_the_timing_cache_is_read_and_written(
    tensorrt: Target, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwic.engines.inspector.inspect", lambda *_: None)
    read: list[bytes] = []
    original = plan_module._read_cache

    def spy(config: Any, path: Path) -> Any:
        read.append(path.read_bytes() if path.exists() else b"")
        return original(config, path)

    monkeypatch.setattr(plan_module, "_read_cache", spy)
    cache = tmp_path / "orin.cache"
    build_engines(bundle, tensorrt, timing_cache=cache)
    # The decoder's build goes on with what the encoder's wrote.
    assert read[0] == b""
    assert len(read[1]) > 100
    assert cache.stat().st_size > 100


@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")
def test_a_timing_cache_of_another_machine_is_refused(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(
        create_timing_cache=lambda data: data, set_timing_cache=lambda cache, ignore_mismatch: False
    )
    path = tmp_path / "other.cache"
    path.write_bytes(b"cache")
    with pytest.raises(UsageError, match=r"no timing cache of this .*; remove it"):
        plan_module._read_cache(config, path)
    with pytest.raises(UsageError, match=r"cannot be read .*; choose another file"):
        plan_module._read_cache(config, tmp_path)


def test_rtx_has_no_timing_cache(sm86: Target, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no timing cache; leave --timing-cache out"):
        build_engines(bundle, sm86, timing_cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    sm86: Target, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwic.engines.build.os.access", lambda folder, mode: folder != bundle.path)
    with pytest.raises(UsageError, match=r"cannot be written; copy the bundle into a folder"):
        build_engines(bundle, sm86)


def test_the_timing_cache_needs_a_folder(tensorrt: Target, bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is missing .*; choose another --timing"):
        build_engines(bundle, tensorrt, timing_cache=tmp_path / "nowhere" / "cache")


def test_a_library_that_does_not_start(rtx: Library) -> None:
    def refuse(logger: Any) -> None:
        logger.log(rtx.module.ILogger.Severity.ERROR, "CUDA initialization failure: 35")
        raise TypeError("factory function returned nullptr")

    module: Any = SimpleNamespace(Builder=refuse, ILogger=rtx.module.ILogger)
    target = Target(dataclasses.replace(rtx, module=module), "86", None)
    with pytest.raises(BackendError, match=r"does not start \(CUDA init.* 35\); update the NVIDIA"):
        plan(target, shipped("encoder"), "encoder", "fp32")


@pytest.mark.parametrize("failing", ["add_optimization_profile", "build_serialized_network"])
def test_a_builder_that_fails_says_what_the_library_said(rtx: Library, failing: str) -> None:
    """A library whose builder fails, after saying why to its logger."""

    class Failing:
        def __init__(self, inner: Any, logger: Any) -> None:
            self.__dict__.update(_inner=inner, _logger=logger)

        def __getattr__(self, name: str) -> Any:
            if name == failing:
                return self._fail
            return getattr(self._inner, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self._inner, name, value)

        def _fail(self, *_: Any) -> Any:
            self._logger.log(rtx.module.ILogger.Severity.ERROR, "out of\nworkspace")
            return -1 if failing == "add_optimization_profile" else None

        def create_builder_config(self) -> Any:
            inner = self._inner.create_builder_config()
            return Failing(inner, self._logger) if "profile" in failing else inner

    module: Any = SimpleNamespace(
        **{
            name: getattr(rtx.module, name)
            for name in (
                "OnnxParser",
                "ComputeCapability",
                "ProfilingVerbosity",
                "BuilderFlag",
                "ILogger",
            )
        }
    )
    module.Builder = lambda logger: Failing(rtx.module.Builder(logger), logger)
    target = Target(dataclasses.replace(rtx, module=module), "86", None)
    with pytest.raises(BackendError, match=r"out of workspace.*; give a") as error:
        plan(target, shipped("encoder"), "encoder", "fp32")
    assert isinstance(error.value, CwicError)


def test_building_needs_neither_torch_nor_onnx(sm86: Target, bundle: Bundle) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'onnxscript'): sys.modules[name] = None\n"
        "from cwic.cli import main\n"
        f"main(['engine', {str(bundle.path)!r}, '--kind', 'tensorrt-rtx', '--sm', '86',"
        " '--profile', '64x64', '128x128', '256x256'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    files = Bundle.load(bundle.path).files
    for line in done.stdout.splitlines()[1:]:
        path = Path(line.partition(":")[0])
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert files[path.name].sha256 == digest
