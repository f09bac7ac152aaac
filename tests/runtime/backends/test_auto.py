"""The automatic choice: order, trials, what is skipped and why."""

from __future__ import annotations

import dataclasses
import inspect

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.backends.fake_gpu import FakeTensorRT, WithEngines

from cwic import backends
from cwic.backends import BACKENDS, Runner, auto, choose_runner, open_runner
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.errors import BackendError, UsageError

Bytes = NDArray[np.uint8]
Arrays = tuple[Bytes, Bytes]


class Counting(OnnxRuntimeRunner):
    """The real runner, with a name of its own, that counts and may spoil its results."""

    def __init__(self, name: str, fault: str | None = None) -> None:
        if fault == "missing":
            raise BackendError(f"{name} is not installed; install {name}")
        super().__init__(Bundle.load())
        self.name, self.fault = name, fault
        self.runs = 0

    def encode(self, image: Bytes) -> Arrays:
        self.runs += 1
        if self.fault == "fails":
            raise BackendError(f"{self.name} fails; mend {self.name}")
        codes, importance = super().encode(image)
        return codes[:, 1:] if self.fault == "shape" else codes, importance

    def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
        self.runs += 1
        image = super().decode(codes, levels)
        return image.astype(np.float32) if self.fault == "type" else image  # type: ignore[return-value]


def choose(**faults: str | None) -> auto.Choice:
    names = {name: lambda name=name: Counting(name, faults[name]) for name in faults}
    return auto.choose(Bundle.load(), names)


@pytest.mark.parametrize("fault", ["missing", "fails", "shape", "type"])
def test_the_first_that_runs(fault: str) -> None:
    choice = choose(best=fault, middle=None, last=None)
    assert isinstance(choice.runner, Counting)
    assert choice.runner.name == "middle"
    (skipped,) = choice.skipped
    assert skipped.backend == "best"
    assert "; " in skipped.reason
    assert "\n" not in skipped.reason


def test_the_last_one_is_not_tried() -> None:
    choice = choose(best="missing", last=None)
    assert isinstance(choice.runner, Counting)
    assert (choice.runner.name, choice.runner.runs) == ("last", 0)
    choice = choose(best=None, last=None)
    assert isinstance(choice.runner, Counting)
    assert (choice.runner.name, choice.runner.runs) == ("best", 2)


def test_none_gives_every_reason() -> None:
    with pytest.raises(BackendError) as raised:
        choose(best="fails", middle="shape", last="missing")
    message = str(raised.value)
    assert "best fails; mend best" in message
    channels = Bundle.load().encoder_channels
    gives, wants = (f"uint8[1, {count}, 8, 8]" for count in (channels - 1, channels))
    assert f"{gives}, not {wants}; export the model again" in message
    assert message.endswith("last is not installed; install last")
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nano", "nano-signs"])
def test_a_probe_takes_any_stride(name: str) -> None:
    """A side of 64 that the stride does not divide would not be a legal picture."""
    bundle = Bundle.load(name)
    sides, channels = [], []

    class Shapes(Runner):
        backend = "cpu"

        def encode(self, image: Bytes) -> Arrays:
            sides.append(image.shape[1])
            grid = image.shape[1] // 24
            codes = np.zeros((1, bundle.encoder_channels, grid, grid), np.uint8)
            return codes, np.zeros((1, grid, grid), np.uint8)

        def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
            channels.append(codes.shape[1])
            return np.zeros((1, levels.shape[1] * 24, levels.shape[2] * 24, 3), np.uint8)

    auto.probe(dataclasses.replace(bundle, stride=24), Shapes())
    assert sides == [72]
    assert channels == [bundle.decoder_channels]


def test_order_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.load()
    assert list(backends.openers(bundle)) == ["tensorrt", "cuda", "cpu"]
    assert set(BACKENDS) == {"auto", *backends.openers(bundle)}
    with pytest.raises(UsageError, match="auto, cpu, cuda, tensorrt"):
        open_runner(bundle, "gpu")
    assert open_runner(bundle, "cpu").backend == "cpu"
    assert list(inspect.signature(open_runner).parameters)[:2] == ["bundle", "backend"]


def test_tensorrt_is_taken_where_it_runs(
    trt: FakeTensorRT, with_engines: WithEngines, copied: Bundle, photo: Bytes
) -> None:
    assert choose_runner(copied).runner.backend != "tensorrt"  # it has no engines yet
    bundle = with_engines()
    choice = choose_runner(bundle)
    assert choice.runner.backend == "tensorrt"
    assert not choice.skipped
    image = photo[None, 96:176, 96:200]
    for mine, reference in zip(
        open_runner(bundle).encode(image), open_runner(bundle, "cpu").encode(image), strict=True
    ):
        assert np.array_equal(mine, reference)
    trt.working = False
    choice = choose_runner(bundle)
    assert choice.runner.backend != "tensorrt"
    assert "Cask convolution execution failed" in choice.skipped[0].reason
