"""cwic bench: phases by a clock that the test turns, and the command as a user meets it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import bench
from cwic.backends import Runner
from cwic.errors import BundleError, ImageError, UsageError


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cwic.cli", "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Clockwork(Runner):
    """A real runner whose calls take as long as the test says, by a clock of its own."""

    def __init__(self, inner: Runner, encode_s: list[int], decode_s: list[int]) -> None:
        self.backend = inner.backend
        self._inner, self._encode_s, self._decode_s = inner, encode_s, decode_s
        self.now_s = 0.0
        self.calls: list[tuple[str, int]] = []

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        self.now_s += self._encode_s.pop(0)
        self.calls.append(("encode", image.shape[2]))
        return self._inner.encode(image)

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.now_s += self._decode_s.pop(0)
        self.calls.append(("decode", 8 * levels.shape[2]))
        return self._inner.decode(codes, levels)


def with_clock(
    monkeypatch: pytest.MonkeyPatch, encode_s: list[int], decode_s: list[int]
) -> Clockwork:
    runner = Clockwork(cwic.load(backend="cpu").runner, encode_s, decode_s)
    monkeypatch.setattr(bench, "open_runner", lambda *arguments, **options: runner)
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: runner.now_s))
    return runner


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch, small: NDArray[np.uint8]) -> None:
    with_clock(monkeypatch, [9, 8, 3, 5, 4, 7], [90, 80, 1, 1, 6, 2])
    (times,) = bench.run({"a": small}, repeats=4).pictures
    assert times.first_encode_ms == 9000
    assert times.first_decode_ms == 90_000
    assert times.encode["network"] == bench.Times(4500, 3000, 7000)
    assert times.decode["network"] == bench.Times(1500, 1000, 6000)
    # The clock stands still elsewhere: all of the time was the network's.
    for direction in (times.encode, times.decode):
        assert tuple(direction) == bench.PHASES
        assert direction["total"] == direction["network"]
        assert direction["entropy"] == direction["container"] == bench.Times(0, 0, 0)


def test_pictures_take_turns(monkeypatch: pytest.MonkeyPatch, small: NDArray[np.uint8]) -> None:
    runner = with_clock(monkeypatch, [1] * 6, [1] * 6)
    result = bench.run({"a": small[:32, :48], "b": small[:32, :64]}, repeats=1)
    turn = [(what, width) for width in (48, 64) for what in ("encode", "decode")]
    assert runner.calls == 3 * turn
    assert [picture.name for picture in result.pictures] == ["a", "b"]


def test_result_of_this_machine(codec: cwic.Codec, small: NDArray[np.uint8]) -> None:
    result = bench.run({"a": small}, backend="cpu", precision="fp32", quality=70, repeats=1)
    assert (result.backend, result.precision, result.repeats) == ("cpu", "fp32", 1)
    assert codec.bundle.model_id.hex() in result.model
    assert result.versions["numpy"] == np.__version__
    assert result.versions["python"] == platform.python_version()
    assert result.machine.cores == len(os.sched_getaffinity(0))
    (times,) = result.pictures
    assert (times.width_px, times.height_px) == (137, 103)
    data = codec.encode(small, quality=70)
    assert times.size_bytes == len(data)
    assert times.bpp == 8 * len(data) / (137 * 103)
    for direction in (times.encode, times.decode):
        assert all(phase.median_ms > 0 for phase in direction.values())
        parts = sum(direction[phase].median_ms for phase in bench.PHASES[1:])
        assert parts == pytest.approx(direction["total"].median_ms)
    assert json.loads(json.dumps(result.to_json()))["pictures"][0]["size_bytes"] == len(data)


def test_refusals(tmp_path: Path, small: NDArray[np.uint8]) -> None:
    for pictures, options in (({}, {}), ({"a": small}, {"repeats": 0})):
        with pytest.raises(UsageError, match="at least one repeat$"):
            bench.run(pictures, **options)
    with pytest.raises(UsageError, match="quality 0"):
        bench.run({"a": small}, quality=0)
    with pytest.raises(ImageError, match="max_pixels"):
        bench.run({"a": small}, max_pixels=100)
    with pytest.raises(BundleError, match="lists no encoder.int8.onnx"):
        bench.run({"a": small}, backend="cpu", precision="int8")
    with pytest.raises(BundleError, match="pass a folder written by cwic export"):
        bench.run({"a": small}, tmp_path)


def test_command(tmp_path: Path, small: NDArray[np.uint8]) -> None:
    picture = tmp_path / "a.png"
    Image.fromarray(small).save(picture)
    done = run(picture, "--backend", "cpu", "--repeats", 2)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert f"{picture}: 137x103, " in done.stdout
    assert "backend    cpu, coder " in done.stdout
    assert ["median", "min", "max", "first", "Mpixel/s"] in lines
    rows = [line for line in lines if line and line[0] in ("encode", "decode", *bench.PHASES[1:])]
    assert [row[0] for row in rows] == [*("encode", *bench.PHASES[1:]), *("decode", *bench.PHASES[1:])]  # fmt: skip  # noqa: E501
    for _, median, low, high, *_ in rows:
        assert float(low) <= float(median) <= float(high)
    done = run(picture, "--backend", "cpu", "--repeats", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["pictures"][0]["encode"]) == set(bench.PHASES)
    done = run(tmp_path / "missing.png")
    assert done.returncode == 1
    assert done.stderr == f"cwic: {tmp_path}/missing.png does not exist; check the path\n"
