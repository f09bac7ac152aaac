"""The benchmark of entropy coding: its accounts add up, and it measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import coding
from benchmarks.stages import Stopwatch, stopwatch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import rans
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle


@pytest.fixture(scope="module")
def codec() -> cwic.Codec:
    bundle = Bundle.load()
    return cwic.Codec(bundle, OnnxRuntimeRunner(bundle, threads=1), threads=1)


@pytest.fixture(scope="module")
def file(codec: cwic.Codec, photo: NDArray[np.uint8]) -> coding.Coded:
    return coding.coded(codec, photo[:256, :384], 0.5)


def test_overhead_accounts_for_every_byte(file: coding.Coded) -> None:
    found = coding.overhead([file, file])
    assert found["file_bytes"] == len(file.data)
    assert found["all_bytes"] == pytest.approx(len(file.data) - found["ideal_bytes"], abs=0.1)
    parts = [found[f"{name}_bytes"] for name in ("rans", "checksums", "header")]
    assert sum(parts) == pytest.approx(found["all_bytes"], abs=0.05)
    chunks = -(-file.stream.codes_bytes // 4096)
    assert chunks > 1
    assert parts[1] == 4 * (1 + 1 + chunks)  # header, levels, codes
    sizes = (384, 256, file.stream.levels_bytes, file.stream.codes_bytes)
    varints = sum(-(-size.bit_length() // 7) for size in sizes)
    assert parts[2] == 4 + 1 + 1 + 8 + 1 + 1 + varints  # FORMAT.md
    assert 0 < parts[0] < 5 * (1 + file.stream.header.lanes) + 5


@pytest.mark.parametrize("implementation", coding.implementations())
@pytest.mark.parametrize("model", ["nano", "nano-signs"])
def test_the_coder_is_timed_on_what_the_files_hold(
    photo: NDArray[np.uint8], implementation: rans.Implementation, model: str
) -> None:
    codec = cwic.load(model, "cpu")
    file = coding.coded(codec, photo[:128, :192], 0.5)
    symbols = coding.Symbols.of(codec, [file])
    (written,) = file.codes
    # All codes but the few values that no table has a symbol for.
    assert 0.97 * len(written.starts) < len(symbols.found) <= len(written.starts)
    assert (symbols.tables is None) == (model == "nano-signs")
    count = len(symbols.found) + 100
    jobs = symbols.jobs(count, 4, implementation)
    found = jobs["decode"]()
    assert np.array_equal(found[:-100], symbols.found)
    assert np.array_equal(found[-100:], symbols.found[:100])
    ideal_bytes = written.bits * count / len(written.starts) / 8
    assert len(jobs["encode"]()) == pytest.approx(ideal_bytes, rel=0.2)


def test_stopwatch_takes_inner_calls_off_the_outer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.stages.time.perf_counter", lambda: now[0])
    watch = Stopwatch()

    def wait(seconds: float) -> None:
        now[0] += seconds

    inner = watch.timed("inner", wait)

    def outer() -> None:
        wait(1)
        inner(2)
        inner(4)

    watch.timed("outer", outer)()
    assert watch.own == {"inner": 6000, "outer": 1000}
    assert watch.whole == {"inner": 6000, "outer": 7000}


def test_stages_of_one_thread_make_up_the_whole(
    codec: cwic.Codec, file: coding.Coded, photo: NDArray[np.uint8]
) -> None:
    stages = {"network", "coding", "context", "levels", "rans", "container", "all"}
    before = rans.encode, codec.runner.encode
    for work in (lambda: codec.encode(photo[:64, :64]), lambda: codec.decode(file.data)):
        with stopwatch(codec) as watch:
            watch.timed("all", work)()
        assert set(watch.own) == stages
        assert all(ms > 0 for ms in watch.own.values())
        assert sum(watch.own.values()) == pytest.approx(watch.whole["all"])
    assert (rans.encode, codec.runner.encode) == before


def test_mirrored_fills_any_size(photo: NDArray[np.uint8]) -> None:
    small = photo[:5, :7]
    large = coding.mirrored(small, 12, 6)
    assert large.shape == (12, 6, 3)
    assert np.array_equal(large[:10], np.concatenate([small, small[::-1]])[:, :6])


def test_command(photo: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "_LARGE_PX", (96, 160))
    monkeypatch.setattr(coding, "_SYMBOLS", 3000)
    Image.fromarray(photo[180:308, 300:492]).save(tmp_path / "a.png")
    output = tmp_path / "coding.json"
    arguments = ["--images", str(tmp_path / "*.png"), "-o", str(output), "--repeat", "1"]
    done = CliRunner().invoke(coding.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(output.read_text())
    assert {"commit", "machine", "versions", "model", "model_id"} <= set(result)
    speeds = [v for r in result["rans"] for k, v in r.items() if k.endswith("per_s")]
    assert len(speeds) == 8 * len(coding.implementations())
    assert min(speeds) > 0
    assert [o["bpp"] for o in result["overhead"]] == pytest.approx([0.25, 0.5], rel=0.03)
    assert {p["size_px"] for p in result["profile"]} == {"192x128", "160x96"}
    for entry in result["profile"]:
        for direction in ("encode", "decode"):
            times = entry[direction]
            assert times["network_ms"] + times["coding_ms"] <= times["time_ms"] * 1.01
            assert {"context_ms", "levels_ms", "rans_ms", "container_ms"} <= set(times)
    assert len(done.output.splitlines()) == len(result["rans"]) + 2 + 2 * len(result["profile"])
