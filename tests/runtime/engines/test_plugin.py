"""The packing plugin, as far as it can be checked without TensorRT and without a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cwic.engines.library import Library
from cwic.engines.network import parse
from cwic.engines.plan import build_plan
from cwic.engines.plugin import KERNEL, SOURCE, compile_kernel, fuse_packing, inserter
from cwic.engines.profile import Profile
from cwic.engines.target import Target
from cwic.errors import BackendError, UsageError

from .conftest import SIGNS, VALUES, shipped

# One thread at a time, on the host.
HARNESS = """
#define __global__
#define __restrict__
struct Index { int x; };
static Index blockIdx, blockDim, threadIdx;
#include "SOURCE"
extern "C" void run(const float* e, int positions, int bytes, float* packed, int threads) {
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x * threads < bytes; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
      cwic_binarize_pack(e, positions, bytes, packed);
}
"""


def packed_by_numpy(e: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(e > 0, axis=1)


@pytest.mark.parametrize("sm", ["75", "87", "120"])
def test_the_kernel_compiles(sm: str) -> None:
    try:
        ptx = compile_kernel(sm)
    except BackendError as exc:
        if "there is none" in str(exc):
            pytest.skip("no nvcc here")
        raise
    assert f".target sm_{sm}" in ptx
    assert f".visible .entry {KERNEL}(" in ptx
    # What TensorRT passes: inputs, the two scalars, outputs.
    parameters = [line.split()[1] for line in ptx.splitlines() if f"{KERNEL}_param_" in line][:4]
    assert parameters == [".u64", ".u32", ".u32", ".u64"]


def test_without_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwic.engines.plugin.shutil.which", lambda *_, **__: None)
    with pytest.raises(BackendError, match=r"needs nvcc .*; install .* or build without --plugin"):
        compile_kernel("87")


def test_an_sm_that_nvcc_does_not_know() -> None:
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc here")
    with pytest.raises(BackendError, match=r"nvcc cannot compile .* SM 9999 .*; install a CUDA"):
        compile_kernel("9999")


def test_the_kernel_packs_as_numpy_does(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    source, library = tmp_path / "host.cpp", tmp_path / "host.so"
    source.write_text(HARNESS.replace("SOURCE", str(SOURCE)))
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True
    )
    e = np.random.default_rng(0).standard_normal((2, 24, 3, 7)).astype(np.float32)
    e[0, :4, 0, 0] = [0.0, -0.0, np.nan, np.inf]
    expected = packed_by_numpy(e)
    packed = np.full(expected.shape, -1, np.float32)
    pointers = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for a in (e, packed)]
    ctypes.CDLL(str(library)).run(pointers[0], 3 * 7, expected.size, pointers[1], 16)
    np.testing.assert_array_equal(packed, expected)


def native(library: Library) -> Any:
    """A layer in place of the plugin, with the plugin's types and shapes for 64x64 pixels."""

    def insert(network: Any, e: Any) -> Any:
        assert library.dtype_name(e.dtype) == "fp32"
        assert tuple(e.shape)[1] == 128
        return network.add_slice(e, (0, 0, 0, 0), (1, 16, 8, 8), (1, 8, 1, 1)).get_output(0)

    return insert


def test_the_plugin_takes_the_place_of_binarize_and_packing(rtx: Library) -> None:
    with rtx.messages_to(lambda *_: None) as logger:
        builder = rtx.module.Builder(logger)
        data = shipped("encoder", SIGNS).SerializeToString()
        network = parse(rtx, builder, logger, data, "encoder.onnx", "encoder")
        given: list[Any] = []

        def insert(network: Any, e: Any) -> Any:
            given.append(e)
            return native(rtx)(network, e)

        fuse_packing(network, insert)
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        makers = {layer.get_output(0).name: layer for layer in layers}
        # E are the groups of codes side by side, and the codes are what the plugin gives.
        assert str(makers[given[0].name].type).endswith("CONCATENATION")
        assert makers[given[0].name].num_inputs == 8
        assert makers["codes"].get_input(0).name == layers[-1].get_output(0).name
        outputs = [network.get_output(index) for index in range(network.num_outputs)]
        assert [t.name for t in outputs] == ["codes", "importance"]
        assert {rtx.dtype_name(t.dtype) for t in outputs} == {"uint8"}


def test_an_engine_builds_around_the_replacement(
    rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cwic.engines.plugin.inserter", lambda library, sm: native(library))
    options: dict[str, Any] = {
        "name": "encoder.onnx",
        "role": "encoder",
        "precision": "fp32",
        "shapes": Profile.parse(("64x64", "64x64", "64x64")).shapes("encoder", 16, 8),
    }
    data = shipped("encoder", SIGNS).SerializeToString()
    target = Target(rtx, "86", None)
    made = build_plan(target, data, with_plugin=True, **options)
    assert made.data.startswith(b"vtrt")


@pytest.mark.parametrize(("role", "name"), [("decoder", SIGNS), ("encoder", VALUES)])
def test_a_decoder_and_values_have_nothing_to_pack(rtx: Library, role: str, name: str) -> None:
    with rtx.messages_to(lambda *_: None) as logger:
        builder = rtx.module.Builder(logger)
        data = shipped(role, name).SerializeToString()
        network = parse(rtx, builder, logger, data, f"{role}.onnx", role)
        with pytest.raises(BackendError, match=r"no cwic::binarize .*; export .* without --plugin"):
            fuse_packing(network, native(rtx))


@pytest.mark.parametrize("version", ["10.3.0.26", "10.8.0.43"])
def test_older_tensorrt_has_no_such_plugins(version: str) -> None:
    with pytest.raises(UsageError, match=f"{version} has no .*; leave --plugin out"):
        inserter(Library("tensorrt", version, None), "87")


def test_a_plugin_that_tensorrt_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cwic.engines.plugin.compile_kernel", lambda sm: "ptx")
    # TensorRT's Python module is not here, so registering fails.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    insert = inserter(Library("tensorrt", "10.9.0.34", None), "87")
    with pytest.raises(BackendError, match=r"not take the plugin \(.*tensorrt.*; build without"):
        insert(None, None)


@pytest.mark.slow
def test_tensorrts_own_python_code_takes_the_plugin(rtx: Library, tmp_path: Path) -> None:
    """The wheel of TensorRT's bindings has the Python half of plugins, in plain text.

    The libraries that it needs are not on the package index, so RTX's classes of the same
    names stand in, and an expression builder over plain numbers for TensorRT's own.
    """
    wheel = tmp_path / "wheel"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--target", str(wheel), "tensorrt-cu13-bindings>=11,<12"),
        ],
        check=True,
    )
    package = tmp_path / "path" / "tensorrt"
    shutil.copytree(wheel / "tensorrt_bindings" / "plugin", package / "plugin")
    shutil.copy(Path(__file__).with_name("stand_in.py"), package / "__init__.py")
    shutil.copy(Path(__file__).with_name("plugin_shapes.py"), tmp_path / "path" / "check.py")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "path" / "check.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    positions, size = 135 * 240, 2 * 16 * 135 * 240
    assert done.stdout.splitlines()[-3:] == [  # a warning of the module comes first
        "(2,16,135,240)",
        f"{KERNEL} {-(-size // 256)} 256",
        f"{positions} {size}",
    ]
