"""Encoding on a Ray cluster of two workers, one of which is killed in the middle.

``pytest -m slow tests/runtime/test_cluster.py``; needs the extra ``cluster``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import cluster
from cwic.batch import Pair, Result
from cwic.errors import BackendError, BundleError, UsageError


@pytest.fixture(scope="module")
def two_workers() -> Iterator[None]:
    pytest.importorskip("ray", reason="Ray is missing; pip install 'cwic[cluster]'")
    with cluster._connected("local", 2):
        yield


@pytest.fixture
def pairs(photo: NDArray[np.uint8], tmp_path: Path) -> list[Pair]:
    """24 details of a photograph in several sizes."""
    (tmp_path / "out").mkdir()
    made = []
    for i in range(24):
        source = tmp_path / f"{i:02}.png"
        detail = photo[7 * i : 7 * i + 64 + 8 * (i % 3), 9 * i : 9 * i + 96 + i]
        Image.fromarray(detail).save(source)
        made.append((source, tmp_path / "out" / f"{i:02}.cwic"))
    return made


def kill_reader(pipe: Path, then: Path) -> threading.Thread:
    """Kill the process that opens ``pipe``, whose place ``then`` takes."""

    def run() -> None:
        with pipe.open("wb"):  # returns when a worker opens the other end
            while not (found := readers(pipe)):
                time.sleep(0.01)
            then.replace(pipe)
            for process in found:
                os.kill(int(process.name), signal.SIGKILL)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def readers(pipe: Path) -> list[Path]:
    processes = Path("/proc").glob("[0-9]*")
    return [p for p in processes if int(p.name) != os.getpid() and holds(p, pipe)]


def holds(process: Path, pipe: Path) -> bool:
    try:
        return any(fd.readlink() == pipe for fd in (process / "fd").iterdir())
    except OSError:
        return False


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(
    two_workers: None, pairs: list[Pair], codec: cwic.Codec
) -> None:
    pipe = pairs[9][0]
    real = pipe.with_suffix(".later")
    pipe.rename(real)
    os.mkfifo(pipe)
    killer = kill_reader(pipe, real)
    results: list[Result] = []
    summary = cluster.encode_files(
        "local", pairs, workers=2, batch_size=4, on_result=results.append, quality=40.0
    )
    killer.join(10)
    assert not killer.is_alive()
    assert (summary.done, summary.skipped, summary.failed) == (24, 0, 0)
    assert sorted(result.source for result in results) == [source for source, _ in pairs]
    for source, target in pairs:
        expected = codec.encode(Image.open(source), quality=40)
        assert target.read_bytes() == expected
    assert summary.stream_bytes == sum(target.stat().st_size for _, target in pairs)
    again = cluster.encode_files("local", pairs, workers=2, batch_size=4, resume=True)
    assert (again.done, again.skipped, again.failed) == (0, 24, 0)


def test_without_ray_the_remedy_is_named(
    pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BackendError, match=r"pip install 'cwic\[cluster\]'"):
        cluster.encode_files("local", pairs)


def test_mistakes_need_no_cluster(pairs: list[Pair], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 workers"):
        cluster.encode_files("local", pairs, workers=0)
    with pytest.raises(UsageError, match="outside 1..100"):
        cluster.encode_files("local", pairs, quality=0)
    with pytest.raises(BundleError, match=r"model\.json"):
        cluster.encode_files("local", pairs, model=tmp_path)


@pytest.mark.slow
def test_command(pairs: list[Pair]) -> None:
    pytest.importorskip("ray", reason="Ray is missing; pip install 'cwic[cluster]'")
    folder = pairs[0][0].parent
    command = ["encode", f"{folder}/0*.png", "-o", f"{folder}/out", "--cluster", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "cwic.cli", *command, "--jobs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "10 done, 0 skipped, 0 failed" in done.stdout.splitlines()[-1]
    assert len(list(folder.glob("out/*.cwic"))) == 10
