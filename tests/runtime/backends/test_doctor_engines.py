"""What cwic doctor says of engines, over the GPU in host memory."""

from __future__ import annotations

import pytest
from tests.runtime.backends.fake_gpu import ORIN, FakeTensorRT, WithEngines

from cwic import doctor
from cwic.bundle import Bundle


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_device", lambda: ORIN)


def test_engines_that_fit_and_do_not(trt: FakeTensorRT, with_engines: WithEngines) -> None:
    with_engines(sm="86")
    with_engines(library_version="10.16.1.2", precision="fp16")
    bundle = with_engines()
    report = doctor.examine(bundle.path)
    states = {engine.file: engine for engine in report.engines}
    assert len(states) == 6
    for role in ("encoder", "decoder"):
        assert states[f"{role}.sm87-trt10.3-fp32.engine"].fits
        other_gpu = states[f"{role}.sm86-trt10.3-fp32.engine"]
        assert "is for SM 86, this GPU has SM 87" in str(other_gpu.problem)
        other_release = states[f"{role}.sm87-trt10.16-fp16.engine"]
        assert "was built by version 10.16.1.2, here is 10.3.0.26" in str(other_release.problem)
        for engine in (other_gpu, other_release):
            assert not engine.fits
            assert engine.problem in report.problems
            assert "build it: cwic engine" in str(engine.problem)
            # It says nothing of the engines beside it.
            assert str(engine.problem).count(".engine") == 1
    assert report.chosen == "tensorrt"
    assert report.versions["tensorrt"] == "10.3.0.26"


def test_an_engine_that_fits_and_fails_is_not_chosen(
    trt: FakeTensorRT, with_engines: WithEngines
) -> None:
    bundle = with_engines()
    trt.working = False
    report = doctor.examine(bundle.path)
    assert all(engine.fits for engine in report.engines)
    assert report.chosen != "tensorrt"
    assert any("Cask convolution execution failed" in problem for problem in report.problems)


def test_engines_without_a_gpu(
    with_engines: WithEngines, monkeypatch: pytest.MonkeyPatch, copied: Bundle
) -> None:
    monkeypatch.undo()
    bundle = with_engines(kind="tensorrt-rtx", library_version="1.7.1.116")
    report = doctor.examine(bundle.path)
    if report.device is not None:
        pytest.skip("there is a GPU")
    for engine in report.engines:
        assert not engine.fits
        assert "it needs tensorrt-rtx 1.7.1.116 and SM 87, and there is no GPU" in str(
            engine.problem
        )
    # A bundle for other machines is no problem of this one.
    assert report.healthy
    assert report.chosen == "cpu"
