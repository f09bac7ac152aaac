"""onnxruntime: precisions, threads, and what is refused, with the real library."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.backends.fake_gpu import ORIN

from cwic.backends import onnxrt
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle, FileEntry
from cwic.errors import BackendError, BundleError


def test_a_precision_has_its_own_graphs(copied: Bundle, photo: NDArray[np.uint8]) -> None:
    """The decoder of the int8 pair is damaged: whether it is read shows which pair is used."""
    files = dict(copied.files)
    for role in ("encoder", "decoder"):
        path = copied.path / f"{role}.int8.onnx"
        shutil.copy(copied.path / f"{role}.onnx", path)
        files[path.name] = FileEntry.of(path, role=role, target="onnx", precision="int8")
    bundle = dataclasses.replace(copied, files=files)
    (copied.path / "decoder.int8.onnx").write_bytes(b"damaged")
    image = photo[None, :64, :64]
    runners = {name: OnnxRuntimeRunner(bundle, precision=name) for name in (None, "fp32", "int8")}
    codes, _ = runners[None].encode(image)
    for runner in runners.values():
        assert np.array_equal(runner.encode(image)[0], codes)
    levels = np.ones((1, 8, 8), np.uint8)
    sent = np.zeros((1, bundle.decoder_channels, 8, 8), np.uint8)
    assert runners["fp32"].decode(sent, levels).shape == image.shape
    with pytest.raises(BundleError, match=r"decoder\.int8\.onnx is not the file"):
        runners["int8"].decode(sent, levels)
    with pytest.raises(BundleError, match=r"no encoder\.fp16\.onnx \(.*: fp32, int8\); export it"):
        OnnxRuntimeRunner(bundle, precision="fp16").encode(image)


def test_threads_do_not_change_the_codes(photo: NDArray[np.uint8]) -> None:
    image = photo[None, :64, :96]
    one, all_ = (OnnxRuntimeRunner(Bundle.load(), threads=count) for count in (1, 0))
    assert np.array_equal(one.encode(image)[0], all_.encode(image)[0])


def test_a_graph_that_is_none(copied: Bundle, photo: NDArray[np.uint8]) -> None:
    path = copied.path / "encoder.onnx"
    path.write_bytes(b"not a graph")
    entry = FileEntry.of(path, role="encoder", target="onnx", precision="fp32")
    bundle = dataclasses.replace(copied, files={**copied.files, path.name: entry})
    with pytest.raises(BackendError, match=r"cannot load encoder\.onnx .*; export the model again"):
        OnnxRuntimeRunner(bundle).encode(photo[None, :64, :64])


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(onnxrt, "find_device", lambda: ORIN)
    for backend in ("cpu", "cuda"):
        with pytest.raises(BackendError, match=rf"; pip install 'cwic\[{backend}\]'$"):
            OnnxRuntimeRunner(Bundle.load(), backend)  # type: ignore[arg-type]


def has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.skipif(has_cuda(), reason="onnxruntime-gpu is installed")
def test_cuda_with_the_onnxruntime_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxrt, "find_device", lambda: ORIN)
    with pytest.raises(BackendError, match=r"is without CUDA; pip uninstall -y onnxruntime && "):
        OnnxRuntimeRunner(Bundle.load(), "cuda")


def test_a_provider_that_silently_falls_back_is_refused(
    monkeypatch: pytest.MonkeyPatch, photo: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    """onnxruntime takes the CPU where CUDA's libraries are missing; the cuda backend must not.

    With the onnxruntime for CPUs, asking for CUDA has the same outcome: a session without it.
    """
    import onnxruntime

    def session(*arguments: object, providers: list[object], **options: object) -> object:
        assert providers[0][0] == "CUDAExecutionProvider"  # type: ignore[index]
        return onnxruntime.InferenceSession(
            *arguments, providers=["CPUExecutionProvider"], **options
        )

    stand_in = SimpleNamespace(
        __version__=onnxruntime.__version__,
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
        preload_dlls=lambda: print("Failed to load libcublas"),
        set_default_logger_severity=onnxruntime.set_default_logger_severity,
        SessionOptions=onnxruntime.SessionOptions,
        InferenceSession=session,
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", stand_in)
    monkeypatch.setattr(onnxrt, "find_device", lambda: ORIN)
    runner = OnnxRuntimeRunner(Bundle.load(), "cuda")
    with pytest.raises(BackendError, match=r"cannot load its CUDA provider \(.*\); .*, or use"):
        runner.encode(photo[None, :64, :64])
    assert capfd.readouterr().out == ""


def test_a_missing_driver_is_said_first(tmp_path: Path) -> None:
    """Not "install onnxruntime-gpu": that would not help on a machine without a GPU."""
    try:
        onnxrt.find_device()
    except BackendError as exc:
        with pytest.raises(BackendError) as raised:
            OnnxRuntimeRunner(Bundle.load(), "cuda")
        assert str(raised.value) == str(exc)
    else:
        pytest.skip("there is a GPU")
