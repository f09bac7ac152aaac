"""The TensorRT runner's own logic, over a GPU in host memory (see fake_gpu.py)."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.backends.fake_gpu import ORIN, FakeCuda, FakeTensorRT, WithEngines

from cwic.backends import open_runner, tensorrt
from cwic.backends.cuda import Cuda
from cwic.backends.device import Device
from cwic.backends.engine import Engine
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.backends.tensorrt import TensorRTRunner
from cwic.bundle import Bundle
from cwic.engines import library
from cwic.errors import BackendError, BundleError

Bytes = NDArray[np.uint8]


def crop(photo: Bytes, height: int, width: int, count: int = 1) -> Bytes:
    return np.stack([photo[8 * i : 8 * i + height, 16:][:, :width] for i in range(count)])


@pytest.fixture(scope="module")
def reference() -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(Bundle.load(), threads=1)


def agrees(runner: TensorRTRunner, reference: OnnxRuntimeRunner, image: Bytes) -> None:
    codes, importance = runner.encode(image)
    expected = reference.encode(image)
    assert np.array_equal(codes, expected[0])
    assert np.array_equal(importance, expected[1])
    levels = importance // 16
    levels += np.arange(levels.size, dtype=np.uint8).reshape(levels.shape) % 3
    sent = codes[:, : runner._bundle.decoder_channels]
    assert np.array_equal(runner.decode(sent, levels), reference.decode(sent, levels))


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("kind", ["tensorrt", "tensorrt-rtx"])
def test_results_and_graphs(
    kind: str,
    integrated: bool,
    trt: FakeTensorRT,
    cuda: FakeCuda,
    with_engines: WithEngines,
    reference: OnnxRuntimeRunner,
    photo: Bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rtx = kind == "tensorrt-rtx"
    if rtx:
        trt = FakeTensorRT(cuda, rtx=True, version="1.7.1.116")
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    device = ORIN if not integrated else ORIN.__class__(**{**vars(ORIN), "integrated": True})
    monkeypatch.setattr(tensorrt, "find_device", lambda: device)
    runner = TensorRTRunner(with_engines(kind=kind, library_version=trt.__version__))
    for turn in range(4):
        cuda.calls.clear()
        agrees(runner, reference, crop(photo, 64, 96))
        launched = not rtx and turn > 0
        # Two engines, each with a graph from its second run on; RTX makes its own.
        assert cuda.calls.count("launch") == 2 * launched
        # A graph replays its copies; an integrated GPU needs none.
        wanted = 0 if integrated or (turn > 1 and launched) else 3 + 3
        assert cuda.calls.count("copy") == wanted
    assert trt.contexts_made == 2
    assert cuda.used("device") > 0
    assert len(cuda.graphs) == (0 if rtx else 2)


def test_shapes_come_and_go(
    trt: FakeTensorRT,
    cuda: FakeCuda,
    with_engines: WithEngines,
    reference: OnnxRuntimeRunner,
    photo: Bytes,
) -> None:
    """Buffers grow with the largest picture, graphs never outlive the addresses they hold."""
    runner = TensorRTRunner(with_engines())
    sizes = [(64, 64), (128, 192), (64, 64), (64, 96), (128, 192)]
    for height, width in sizes:
        for _ in range(3):
            agrees(runner, reference, crop(photo, height, width))
    # Both engines: the first shape again after the buffers grew, the others once.
    assert trt.contexts_made == 2 * 4
    image_bytes = 128 * 192 * 3
    bundle = runner._bundle
    grids = [16 * 24 * (count + 1) for count in (bundle.encoder_channels, bundle.decoder_channels)]
    buffers = 2 * image_bytes + sum(grids)
    assert cuda.used("host") == buffers
    scratch = 4 * (image_bytes + grids[1])  # of each engine, by its inputs
    assert cuda.used("device") == buffers + scratch
    assert len(cuda.graphs) == 2 * 3


def test_few_shapes_are_kept(
    trt: FakeTensorRT, cuda: FakeCuda, with_engines: WithEngines, photo: Bytes
) -> None:
    runner = TensorRTRunner(with_engines())
    runner.encode(crop(photo, 64, 256))
    for width in range(64, 256, 8):
        for _ in range(2):
            runner.encode(crop(photo, 64, width))
    gc.collect()
    assert len(cuda.graphs) == 8


def test_batches_and_arrays_that_are_not_contiguous(
    trt: FakeTensorRT, with_engines: WithEngines, reference: OnnxRuntimeRunner, photo: Bytes
) -> None:
    trt.profile = (64, 1024)
    runner = TensorRTRunner(with_engines())
    image = photo[None, 64:128, ::-1][:, :, :64]
    assert not image.flags.c_contiguous
    codes, _ = runner.encode(image)
    assert np.array_equal(codes, reference.encode(np.ascontiguousarray(image))[0])


def test_results_are_the_callers(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes
) -> None:
    """The next run does not write into what an earlier one gave."""
    runner = TensorRTRunner(with_engines())
    codes, importance = runner.encode(crop(photo, 64, 64))
    kept = codes.copy(), importance.copy()
    runner.encode(255 - crop(photo, 64, 64))
    assert np.array_equal(codes, kept[0])
    assert np.array_equal(importance, kept[1])


def test_threads(
    trt: FakeTensorRT, with_engines: WithEngines, reference: OnnxRuntimeRunner, photo: Bytes
) -> None:
    runner = TensorRTRunner(with_engines())
    images = [crop(photo, 64, 64 + 8 * (i % 3)) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda image: agrees(runner, reference, image), images))


@pytest.mark.parametrize("obstacle", ["a layer", "memory for the graph"])
def test_what_cannot_be_captured_runs_uncaptured(
    obstacle: str,
    trt: FakeTensorRT,
    cuda: FakeCuda,
    with_engines: WithEngines,
    reference: OnnxRuntimeRunner,
    photo: Bytes,
) -> None:
    trt.capturable = obstacle != "a layer"
    cuda.instantiable = obstacle == "a layer"
    runner = TensorRTRunner(with_engines())
    for _ in range(3):
        agrees(runner, reference, crop(photo, 64, 64))
    assert cuda.calls.count("launch") == 0
    assert cuda.calls.count("capture") == 2  # each engine tries once
    assert cuda.capturing is None


def test_everything_is_freed(
    trt: FakeTensorRT, cuda: FakeCuda, with_engines: WithEngines, photo: Bytes
) -> None:
    runner = TensorRTRunner(with_engines())
    for _ in range(2):
        runner.encode(crop(photo, 64, 64))
    assert cuda.memory
    assert cuda.graphs
    assert cuda.streams
    del runner
    gc.collect()
    assert not cuda.memory
    assert not cuda.graphs
    assert not cuda.streams


def test_out_of_memory_is_said_and_survived(
    trt: FakeTensorRT,
    cuda: FakeCuda,
    with_engines: WithEngines,
    reference: OnnxRuntimeRunner,
    photo: Bytes,
) -> None:
    runner = TensorRTRunner(with_engines())
    agrees(runner, reference, crop(photo, 64, 64))
    cuda.limit_bytes = cuda.used("device") + 1000
    with pytest.raises(BackendError, match=r"cudaErrorMemoryAllocation.*; free memory on the GPU"):
        runner.encode(crop(photo, 256, 256))
    for _ in range(3):
        agrees(runner, reference, crop(photo, 64, 64))


def test_a_size_beyond_the_profile(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes
) -> None:
    trt.profile = (64, 128)
    bundle = with_engines()
    runner = TensorRTRunner(bundle)
    with pytest.raises(BackendError) as raised:
        runner.encode(crop(photo, 64, 136))
    message = str(raised.value)
    assert "takes image of 1x64x64x3 to 1x128x128x3, not 1x64x136x3" in message
    assert message.endswith(f"--profile and --batch: cwic engine {bundle.path} --kind tensorrt")


def test_a_failing_run_gives_tensorrts_reason(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes
) -> None:
    runner = TensorRTRunner(with_engines())
    trt.working = False
    with pytest.raises(BackendError, match=r"Cask convolution execution failed.*--backend cpu$"):
        runner.encode(crop(photo, 64, 64))


def test_a_library_that_does_not_start(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(logger: trt.ILogger) -> None:  # as the bindings of TensorRT do without a driver
        logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(trt, "Runtime", start)
    with pytest.raises(BackendError, match=r"does not start \(CUDA init.*35\); .*cwic doctor"):
        TensorRTRunner(with_engines()).encode(crop(photo, 64, 64))


def test_a_refused_engine_gives_tensorrts_reason(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = with_engines()
    monkeypatch.setattr(Bundle, "read", lambda self, name: b"not an engine")
    with pytest.raises(BackendError) as raised:
        TensorRTRunner(bundle).encode(crop(photo, 64, 64))
    assert "(magicTag assertion failed)" in str(raised.value)
    assert str(raised.value).endswith(f"cwic engine {bundle.path} --kind tensorrt")


def test_an_engine_that_was_tampered_with_is_not_loaded(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes
) -> None:
    bundle = with_engines()
    (name,) = (key for key in bundle.files if key.startswith("encoder") and "engine" in key)
    (bundle.path / name).write_bytes(b"x" + (bundle.path / name).read_bytes()[1:])
    with pytest.raises(BundleError, match="sha256 differs"):
        TensorRTRunner(bundle).encode(crop(photo, 64, 64))


STALE = {
    "another release": {"library_version": "10.16.1.2"},
    "another GPU": {"sm": "86"},
    "other weights": {"onnx_sha256": "0" * 64},
}


@pytest.mark.parametrize("record", STALE.values(), ids=STALE)
def test_a_stale_engine_is_refused_or_rebuilt(
    record: dict[str, str],
    trt: FakeTensorRT,
    with_engines: WithEngines,
    reference: OnnxRuntimeRunner,
    photo: Bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = with_engines(**record)
    image = crop(photo, 64, 64)
    with pytest.raises(BackendError, match="cwic engine"):
        TensorRTRunner(bundle).encode(image)
    built: list[tuple[str, str]] = []

    def build(stale: Bundle, target: Device, *, precision: str) -> tuple[Bundle, list[str]]:
        built.append((target.sm, precision))
        return with_engines(), []

    monkeypatch.setattr("cwic.engines.target.find_target", lambda library, sm: ORIN)
    monkeypatch.setattr("cwic.engines.build.build_engines", build)
    runner = open_runner(bundle, "tensorrt", rebuild=True)
    assert isinstance(runner, TensorRTRunner)
    agrees(runner, reference, image)
    assert built == [(ORIN.sm, "fp32")]


def test_the_precision_that_is_asked_for(
    trt: FakeTensorRT, with_engines: WithEngines, photo: Bytes
) -> None:
    with_engines(precision="fp16")
    bundle = with_engines()
    TensorRTRunner(bundle, precision="fp16").encode(crop(photo, 64, 64))
    with pytest.raises(BackendError, match=r"is fp32, not int8.*--precision int8"):
        TensorRTRunner(bundle, precision="int8").encode(crop(photo, 64, 64))


def test_missing_parts_are_named(
    cuda: FakeCuda, copied: Bundle, with_engines: WithEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackendError, match=r"has no TensorRT engines; .*cwic engine"):
        TensorRTRunner(copied)
    bundle = with_engines()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"TensorRT is not installed .*pip install 'cwic"):
        TensorRTRunner(bundle)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(cuda))
    monkeypatch.setattr(library, "_loggers", {})
    for module in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=r"; pip install 'cuda-python~=12.0'$"):
        TensorRTRunner(bundle)


def test_the_real_library_refuses_what_is_no_engine(cuda: FakeCuda) -> None:
    """TensorRT for RTX itself, which loads without a GPU."""
    try:
        real = library.load_library("tensorrt-rtx")
    except BackendError as exc:
        pytest.skip(str(exc))
    with pytest.raises(
        BackendError, match=r"cannot use a.engine \(.*magicTag.*; build it again: x"
    ):
        Engine(real, Cuda("12.6"), "a.engine", b"none" * 99, shared_memory=False, rebuild="x")
