"""CUDA's runtime: which package has it, and errors in one line."""

from __future__ import annotations

import contextlib
import importlib.util
import sys

import pytest
from tests.runtime.backends.fake_gpu import FakeCuda, Status

from cwic.backends.cuda import Buffer, Cuda
from cwic.backends.device import find_device
from cwic.errors import BackendError


@pytest.mark.parametrize("module", ["cuda.bindings.runtime", "cuda.cudart"])
def test_both_names_of_the_runtime(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, module, fake)
    assert Cuda("12.6").runtime is fake


def test_an_old_driver_gets_its_own_remedy(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = lambda size: (Status.cudaErrorInsufficientDriver, None)  # noqa: E731
    monkeypatch.setattr(cuda, "cudaMalloc", refuse)
    with pytest.raises(BackendError, match=r"InsufficientDriver\); pip install 'cuda-python~=11"):
        Cuda("11.8").call("cudaMalloc", 1)


def test_a_function_that_is_missing(cuda: FakeCuda) -> None:
    with pytest.raises(BackendError, match="cannot call cudaNoSuchThing"):
        Cuda("12.6").call("cudaNoSuchThing")


def test_a_buffer_grows_and_never_shrinks(cuda: FakeCuda) -> None:
    buffer = Buffer(Cuda("12.6"), on_host=True)
    buffer.reserve(100)
    first = buffer.address
    buffer.reserve(10)
    assert (buffer.address, buffer.size) == (first, 100)
    buffer.reserve(200)
    assert (cuda.used("host"), cuda.used("device")) == (200, 200)
    buffer.view((2, 100))[...] = 7
    assert buffer.view((200,)).sum() == 1400
    cuda.limit_bytes = 300
    with pytest.raises(BackendError):
        buffer.reserve(301)
    assert (buffer.address, buffer.size) == (0, 0)
    assert not cuda.memory


def test_a_buffer_that_the_gpu_shares_exists_once(cuda: FakeCuda) -> None:
    buffer = Buffer(Cuda("12.6"), on_host=True, shared=True)
    buffer.reserve(64)
    assert buffer.address == buffer.host_address
    assert (cuda.used("host"), cuda.used("device")) == (64, 0)


@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda-python not installed")
def test_the_real_bindings_fail_in_one_line_without_a_driver() -> None:
    real = Cuda("12.6")
    with contextlib.suppress(BackendError):
        pytest.skip(f"there is a GPU: {find_device()}")
    with pytest.raises(BackendError, match="pip install 'cuda-python~=12.0'"):
        Buffer(real, on_host=True).reserve(10)
