"""Many files: in the library, and as a user meets them in real processes."""

from __future__ import annotations

import os
import pty
import random
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
from cwic import batch
from cwic.batch import Pair, Result
from cwic.errors import CwicError, ImageError, UsageError
from cwic.types import EncodeOptions

SIZES = ((96, 64), (57, 131), (160, 120), (8, 8), (33, 200))


def make(photo: NDArray[np.uint8], folder: Path, count: int) -> list[Path]:
    """Details of a photograph, in several sizes, half of them in a folder below."""
    (folder / "below").mkdir(parents=True)
    paths = []
    for i in range(count):
        width, height = SIZES[i % len(SIZES)]
        path = folder / ("below" if i % 2 else "") / f"{i // 2:02}.png"
        Image.fromarray(photo[5 * i : 5 * i + height, 9 * i : 9 * i + width]).save(path)
        paths.append(path)
    return paths


@pytest.fixture
def pairs(photo: NDArray[np.uint8], tmp_path: Path) -> list[Pair]:
    (tmp_path / "out").mkdir()
    made = make(photo, tmp_path / "in", 6)
    return [(source, tmp_path / "out" / f"{i}.cwic") for i, source in enumerate(made)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cwic.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("jobs", [1, 3])
def test_files_equal_those_made_one_by_one(codec: cwic.Codec, pairs: list[Pair], jobs: int) -> None:
    results: list[Result] = []
    summary = batch.encode_files(codec, pairs, jobs=jobs, on_result=results.append, quality=60.0)
    sizes = [(s.stat().st_size, t.stat().st_size) for s, t in pairs]
    assert [t.read_bytes() for _, t in pairs] == [
        codec.encode(Image.open(source), quality=60) for source, _ in pairs
    ]
    assert (summary.done, summary.skipped, summary.failed) == (6, 0, 0)
    assert (summary.picture_bytes, summary.stream_bytes) == tuple(
        map(sum, zip(*sizes, strict=True))
    )
    pixels = sum(width * height for width, height in (*SIZES, SIZES[0]))
    assert summary.pixels == pixels
    assert summary.bpp == pytest.approx(8 * summary.stream_bytes / pixels)
    assert {(r.source, r.target, r.stream_bytes) for r in results} == {
        (source, target, size) for (source, target), (_, size) in zip(pairs, sizes, strict=True)
    }
    back = [(target, target.with_suffix(".png")) for _, target in pairs]
    again = batch.decode_files(codec, back, jobs=jobs)
    assert (again.done, again.stream_bytes, again.pixels) == (6, summary.stream_bytes, pixels)
    for stream, restored in back:
        expected = np.asarray(codec.decode(stream.read_bytes()))
        assert np.array_equal(np.asarray(Image.open(restored)), expected)


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_failure_does_not_stop_the_rest(
    codec: cwic.Codec, pairs: list[Pair], jobs: int
) -> None:
    pairs[2][0].write_bytes(pairs[2][0].read_bytes()[:-300])
    pairs[4][0].unlink()
    results: list[Result] = []
    summary = batch.encode_files(codec, pairs, jobs=jobs, on_result=results.append)
    assert (summary.done, summary.failed) == (4, 2)
    failed = {result.source: result for result in results if result.error}
    assert set(failed) == {pairs[2][0], pairs[4][0]}
    assert isinstance(failed[pairs[4][0]].error, ImageError)
    for source, result in failed.items():
        assert str(source) in result.message
        assert "; " in result.message
        assert "\n" not in result.message
    assert {t.name for t in pairs[0][1].parent.iterdir()} == {f"{i}.cwic" for i in (0, 1, 3, 5)}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UsageError("a is wrong; try b"), "a.png: a is wrong; try b"),
        (ImageError("a.png is wrong; try b"), "a.png is wrong; try b"),
        (MemoryError(), "a.png: memory is short; use fewer --jobs, or shrink the picture"),
        (KeyError("x\ny"), "a.png: an error that was not foreseen (KeyError: 'x\\ny'); report it"),
        (None, ""),
    ],
)
def test_messages_are_one_line(error: Exception | None, expected: str) -> None:
    def work(source: Path, target: Path) -> Result:
        if error is None:
            return Result(source, target)
        raise error

    results: list[Result] = []
    batch.run(work, [(Path("a.png"), Path("a.cwic"))], on_result=results.append)
    assert results[0].message.startswith(expected)
    assert "\n" not in results[0].message
    assert bool(results[0].message) is (error is not None)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_pairs_are_taken_as_they_are_needed(jobs: int) -> None:
    taken, done, most = 0, 0, 0
    lock = threading.Lock()

    def endless() -> Iterator[Pair]:
        nonlocal taken
        for i in range(40):
            taken += 1
            yield Path(str(i)), Path(str(i))

    def work(source: Path, target: Path) -> Result:
        nonlocal done, most
        with lock:
            most = max(most, taken - done)
            done += 1
        return Result(source, target)

    summary = batch.run(work, endless(), jobs=jobs)
    assert summary.done == done == taken == 40
    assert most <= max(1, 2 * jobs)


def test_an_exception_of_the_caller_drops_what_has_not_begun() -> None:
    begun: list[Path] = []

    def work(source: Path, target: Path) -> Result:
        begun.append(source)
        return Result(source, target)

    def on_result(result: Result) -> None:
        raise KeyboardInterrupt

    pairs = [(Path(str(i)), Path(str(i))) for i in range(100)]
    with pytest.raises(KeyboardInterrupt):
        batch.run(work, pairs, jobs=2, on_result=on_result)
    count = len(begun)
    assert count <= 4
    assert not [t for t in threading.enumerate() if t.name.startswith("cwic")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"quality": 0}, "outside 1..100"), ({"quality": 5, "bpp": 1}, "exclude each other")],
)
def test_wrong_options_are_said_once(
    codec: cwic.Codec, pairs: list[Pair], options: EncodeOptions, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        batch.encode_files(codec, pairs, **options)
    with pytest.raises(UsageError, match="0 jobs"):
        batch.encode_files(codec, pairs, jobs=0)


def newer(path: Path, than: Path, by_s: float = 10) -> None:
    time_s = than.stat().st_mtime + by_s
    os.utime(path, (time_s, time_s))


def touch(change: str, source: Path, target: Path, codec: cwic.Codec) -> None:
    data = target.read_bytes()
    if change == "missing":
        target.unlink()
    elif change == "half":
        target.write_bytes(data[: len(data) // 2])
    elif change == "flipped":
        target.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    elif change == "empty":
        target.write_bytes(b"")
    elif change == "other model":
        other = cwic.load().bundle
        other = type(other)(**{**vars(other), "model_id": b"nobodys!"})
        stream = cwic.Codec(other, codec.runner).encode(Image.open(source))
        target.write_bytes(stream)
    if target.exists():
        newer(target, source)
    if change == "old":
        newer(source, target)


@pytest.mark.parametrize(
    "change", ["nothing", "missing", "half", "flipped", "empty", "other model", "old"]
)
def test_resume_takes_only_whole_new_streams(
    codec: cwic.Codec, pairs: list[Pair], change: str
) -> None:
    pairs = pairs[:3]
    batch.encode_files(codec, pairs)
    expected = [target.read_bytes() for _, target in pairs]
    touch(change, *pairs[1], codec)
    results: list[Result] = []
    summary = batch.encode_files(codec, pairs, resume=True, jobs=2, on_result=results.append)
    made = [result.source for result in results if not result.skipped]
    assert made == ([] if change == "nothing" else [pairs[1][0]])
    assert (summary.done, summary.skipped) == (len(made), 3 - len(made))
    assert [target.read_bytes() for _, target in pairs] == expected
    assert batch.encode_files(codec, pairs).done == 3  # without it, all are made


@pytest.mark.parametrize("change", ["nothing", "missing", "half", "other size", "old"])
def test_resume_of_decoding(codec: cwic.Codec, pairs: list[Pair], change: str) -> None:
    batch.encode_files(codec, pairs[:2])
    back = [(target, target.with_suffix(".png")) for _, target in pairs[:2]]
    batch.decode_files(codec, back)
    expected = back[0][1].read_bytes()
    if change == "other size":
        Image.open(back[0][1]).resize((5, 5)).save(back[0][1])
    else:
        touch(change, *back[0], codec)
    summary = batch.decode_files(codec, back, resume=True)
    assert summary.done == (change != "nothing")
    assert back[0][1].read_bytes() == expected


def test_damaged_streams_name_their_file(codec: cwic.Codec, pairs: list[Pair]) -> None:
    batch.encode_files(codec, pairs[:3])
    cut = pairs[1][1]
    cut.write_bytes(cut.read_bytes()[:-50])
    back = [(target, target.with_suffix(".png")) for _, target in pairs[:3]]
    results: list[Result] = []
    assert batch.decode_files(codec, back, on_result=results.append).failed == 1
    assert results[1].message.startswith(f"{cut}: ")
    assert not cut.with_suffix(".png").exists()
    partial: list[Result] = []
    assert batch.decode_files(codec, back, partial=True, on_result=partial.append).failed == 0
    assert [bool(result.left_out) for result in partial] == [False, True, False]


def test_codec_of_several_jobs_divides_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    for jobs, threads in ((1, 0), (2, max(1, cores // 2)), (1000, 1)):
        assert vars(batch.open_codec(backend="cpu", jobs=jobs).runner)["_threads"] == threads


# The command line.


def test_patterns_and_folders(
    photo: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(photo, Path("in"), 5)
    Path("in/bad.png").write_bytes(b"no picture")
    Path("in/note.txt").touch()
    done = run("encode", "in/**/*.png", "-o", "out", "--jobs", 2)
    assert done.returncode == 1
    assert done.stderr == (
        "cwic: in/bad.png is not a picture that Pillow can read; convert it first\n"
    )
    names = ["00", "01", "02", "below/00", "below/01"]
    made = sorted(str(path) for path in Path("out").rglob("*.*"))
    assert made == [f"out/{name}.cwic" for name in names]
    *lines, last = done.stdout.splitlines()
    assert [line.partition(": ")[0] for line in sorted(lines)] == made
    total = sum(Path(path).stat().st_size for path in made)
    assert last.startswith("5 done, 0 skipped, 1 failed: ")
    assert f" to {total} bytes, " in last

    Path("in/bad.png").unlink()
    Path("out/02.cwic").unlink()
    again = run("encode", "in", "-o", "out", "--resume")
    assert again.returncode == 0, again.stderr
    first, last = again.stdout.splitlines()
    assert first.startswith("out/02.cwic: ")
    assert last.startswith("1 done, 4 skipped, 0 failed: ")

    back = run("decode", "out/*/*.cwic", "out/0[12].cwic", "-o", "back", "--jobs", 2, "--quiet")
    assert (back.returncode, back.stdout, back.stderr) == (0, "", "")
    found = {path.relative_to("back") for path in Path("back").rglob("*.png")}
    assert {str(path) for path in found} == {"below/00.png", "below/01.png", "01.png", "02.png"}
    for path in found:
        assert Image.open(Path("back") / path).size == Image.open(Path("in") / path).size


def test_collisions_are_refused_before_anything_is_made(
    photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    paths = make(photo, tmp_path / "in", 2)
    done = run("encode", *paths, "-o", tmp_path)
    assert done.returncode == 1
    assert "two files would be written to one place" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def on_terminal(*arguments: object) -> tuple[int, str]:
    """Status and screen of a command whose stderr is a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cwic.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    os.close(ours)
    return process.returncode, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # the other end is closed
        return b""


def test_progress_is_shown_on_a_terminal_alone(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    make(photo, tmp_path / "in", 3)
    (tmp_path / "in" / "bad.png").touch()
    command = ("encode", tmp_path / "in", "-o", tmp_path / "out")
    status, shown = on_terminal(*command)
    assert status == 1
    assert "4/4" in shown
    assert "cwic: " in shown
    status, shown = on_terminal(*command, "--quiet")
    assert status == 1
    assert shown.count("\n") == 1
    assert "%" not in shown
    piped = run(*command)
    assert piped.stderr.count("\n") == 1
    assert "%" not in piped.stderr


def start(folder: Path, jobs: int) -> subprocess.Popen[bytes]:
    """Encode ``in`` to ``out``."""
    command = ["encode", str(folder / "in"), "-o", str(folder / "out"), "--jobs", str(jobs)]
    return subprocess.Popen(
        # A shell's background jobs ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        args=[sys.executable, "-m", "cwic.cli", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def first_file(folder: Path) -> None:
    limit_s = time.monotonic() + 60
    while not list(folder.glob("out/**/*.cwic")):
        assert time.monotonic() < limit_s
        time.sleep(0.005)


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_and_resumed(
    codec: cwic.Codec, photo: NDArray[np.uint8], tmp_path: Path, seed: int
) -> None:
    make(photo, tmp_path / "in", 40)
    with start(tmp_path, jobs=2) as process:
        first_file(tmp_path)
        time.sleep(random.Random(seed).uniform(0, 0.15))  # noqa: S311
        process.send_signal(signal.SIGKILL)
    there = list(tmp_path.glob("out/**/*.cwic"))
    assert there
    for path in there:
        codec.decode(path.read_bytes())
    done = run("encode", tmp_path / "in", "-o", tmp_path / "out", "--resume", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith(f"{40 - len(there)} done, {len(there)} skipped, 0 failed")
    assert len(list(tmp_path.glob("out/**/*.cwic"))) == 40


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted(
    codec: cwic.Codec, photo: NDArray[np.uint8], tmp_path: Path, jobs: int
) -> None:
    paths = make(photo, tmp_path / "in", 2)
    for i in range(400):
        (tmp_path / "in" / f"copy{i}.png").symlink_to(paths[0])
    with start(tmp_path, jobs) as process:
        first_file(tmp_path)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.decode().strip() == "cwic: interrupted"
    made = [path for path in tmp_path.glob("out/**/*") if path.is_file()]
    assert 1 <= len(made) < 402
    assert not list(tmp_path.glob("out/**/.*"))
    for path in made:
        codec.decode(path.read_bytes())


def test_a_full_disk_is_one_line(
    codec: cwic.Codec, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(batch, "write_bytes", full)
    results: list[Result] = []
    batch.encode_files(codec, pairs[:1], on_result=results.append)
    assert isinstance(results[0].error, CwicError)
    assert "cannot be written (No space left on device); free space" in results[0].message
