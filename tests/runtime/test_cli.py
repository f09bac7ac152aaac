"""The command line as a user meets it: real processes, files, one-line errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic.container import Header, Sections, Stream


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cwic.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def fails(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The one line on stderr of a command that failed as it should."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("cwic: ")
    return done.stderr


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("cli") / "photo.png"
    Image.fromarray(photo[100:260, 200:432]).save(path)
    return path


@pytest.fixture(scope="module")
def encoded(picture: Path) -> Path:
    target = picture.with_name("a.cwic")
    assert run("encode", picture, "-o", target).returncode == 0
    return target


def test_round_trip(picture: Path, encoded: Path, tmp_path: Path) -> None:
    done = run("decode", encoded, "-o", tmp_path / "b.png")
    assert done.returncode == 0, done.stderr
    assert "232x160" in done.stdout
    restored = Image.open(tmp_path / "b.png")
    assert restored.size == (232, 160)
    expected = cwic.load().decode(encoded.read_bytes())
    assert np.array_equal(np.asarray(restored), np.asarray(expected))
    assert (tmp_path / "b.png").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("option", "value"), [("-q", 20), ("--bpp", 0.4), ("--max-bytes", 2500)])
def test_rates(picture: Path, tmp_path: Path, option: str, value: float) -> None:
    done = run("encode", picture, "-o", tmp_path / "a.cwic", option, value)
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "a.cwic").stat().st_size
    assert f"{size} bytes" in done.stdout
    if option == "--bpp":
        assert 8 * size <= 0.4 * 232 * 160
    if option == "--max-bytes":
        assert size <= 2500


def test_info_needs_no_model(encoded: Path) -> None:
    done = run("info", encoded)
    assert done.returncode == 0
    model_id = cwic.load().bundle.model_id.hex()
    assert "232x160" in done.stdout
    assert f"model {model_id}" in done.stdout
    assert f"{encoded.stat().st_size} bytes" in done.stdout
    stream = Stream.from_bytes(encoded.read_bytes())
    sizes = f"levels {stream.levels_bytes} + codes {stream.codes_bytes} bytes"
    assert f"{sizes}, tiles 1, {stream.header.lanes} lanes, checksums right" in done.stdout


def test_info_counts_tiles(encoded: Path, tmp_path: Path) -> None:
    """Of a stream that no model could decode: nothing but the layout is looked at."""
    header = Header(5000, 9, b"nobodys!", 3, 64, 16)
    tiles = tuple(Sections(bytes(i), bytes(7)) for i in range(40))
    path = tmp_path / "odd.cwic"
    path.write_bytes(Stream(header, tiles).to_bytes())
    done = run("info", encoded, path)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{encoded}: 232x160, ")
    assert "5000x9" in second
    assert f"model {b'nobodys!'.hex()}, quality 3, levels 780 + codes 280 bytes" in second
    assert second.endswith("tiles 40, 64 lanes, checksums right")


def test_several_inputs_and_default_names(picture: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        path.write_bytes(picture.read_bytes())
    assert run("encode", *paths).returncode == 0
    assert run("decode", tmp_path / "one.cwic").returncode == 0
    assert (tmp_path / "one.restored.png").exists()
    assert paths[0].read_bytes() == picture.read_bytes()
    (tmp_path / "out").mkdir()
    files = [path.with_suffix(".cwic") for path in paths]
    assert run("decode", *files, "-o", tmp_path / "out").returncode == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]


def test_outputs_never_overwrite_inputs_or_each_other(picture: Path, tmp_path: Path) -> None:
    path = tmp_path / "same.png"
    path.write_bytes(picture.read_bytes())
    assert "one place" in fails(run("encode", path, "-o", path))
    assert "not a folder" in fails(run("encode", path, path, "-o", tmp_path / "none"))
    assert path.read_bytes() == picture.read_bytes()


DAMAGED = {
    "flipped": lambda good: good[:60] + bytes([good[60] ^ 1]) + good[61:],
    "truncated": lambda good: good[: len(good) // 2],
    "png": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(50),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("command", ["decode", "info"])
def test_damaged_files(encoded: Path, tmp_path: Path, kind: str, command: str) -> None:
    (tmp_path / "bad.cwic").write_bytes(DAMAGED[kind](encoded.read_bytes()))
    options = ["-o", tmp_path / "b.png"] if command == "decode" else []
    line = fails(run(command, tmp_path / "bad.cwic", *options))
    assert "; " in line
    assert "bad.cwic: " in line
    assert [p.name for p in tmp_path.iterdir()] == ["bad.cwic"]


@pytest.mark.parametrize("lost", ["codes", "levels", "nothing"])
def test_partial_takes_what_is_intact(encoded: Path, tmp_path: Path, lost: str) -> None:
    good = encoded.read_bytes()
    (tile,) = Stream.from_bytes(good).tiles
    behind = {"codes": len(tile.codes) + 3, "levels": len(tile.codes) + 4, "nothing": -1}[lost]
    path, target = tmp_path / "cut.cwic", tmp_path / "b.png"
    path.write_bytes(good[: len(good) - 1 - behind])
    if lost != "nothing":
        assert "the stream has " in fails(run("decode", path, "-o", target))
        assert not target.exists()
    done = run("decode", "--partial", path, "-o", target)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    said = {
        "codes": ", 0 % of the known codes; coarse tiles: 1 of 1",
        "levels": ", 0 % of the known codes; lost tiles: 1 of 1",
        "nothing": "",
    }
    assert done.stdout == f"{target}: 232x160{said[lost]}\n"
    expected = cwic.load().salvage(path.read_bytes()).image
    assert np.array_equal(np.asarray(Image.open(target)), np.asarray(expected))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("header", "a header field is out of range; fetch"),
        ("checksum", "the header does not match its checksum; fetch"),
        ("png", "not a .cwic stream; pass"),
        ("empty", "the stream is empty; fetch"),
    ],
)
def test_partial_needs_a_whole_header(
    encoded: Path, tmp_path: Path, kind: str, expected: str
) -> None:
    good = encoded.read_bytes()
    bad = {
        "header": good[:14] + b"\0" + good[15:],
        "checksum": good[:14] + bytes([good[14] ^ 1]) + good[15:],
    }.get(kind) or DAMAGED[kind](good)
    (tmp_path / "bad.cwic").write_bytes(bad)
    line = fails(run("decode", "--partial", tmp_path / "bad.cwic", "-o", tmp_path / "b.png"))
    assert f"bad.cwic: {expected}" in line.replace("these bytes are ", "")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.cwic"]


def test_a_failing_output_leaves_what_was_there(encoded: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.png"
    target.write_bytes(b"precious")
    bad = tmp_path / "bad.cwic"
    bad.write_bytes(encoded.read_bytes()[:-1])
    fails(run("decode", bad, "-o", target))
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["encode", "missing.png", "-o", "a.cwic"], "missing.png does not exist"),
        (["decode", "missing.cwic", "-o", "b.png"], "missing.cwic cannot be read"),
        (["encode", "{picture}", "-o", "no/such/folder/a.cwic"], "choose another output"),
        (["encode", "{picture}", "-o", "a.cwic", "--model", "nowhere"], "holds no model.json"),
        (["encode", "{picture}", "-o", "a.cwic", "-q", "0"], "outside 1..100"),
        (["encode", "{picture}", "-o", "a.cwic", "-q", "5", "--bpp", "1"], "exclude each other"),
        (["encode", "{picture}", "-o", "a.cwic", "--max-bytes", "9"], "smallest possible is"),
        (["encode", "{picture}", "-o", "a.cwic", "--bpp", "1e-9"], "smallest possible is"),
        (["encode", ".", "-o", "a.cwic"], "is a folder"),
        (["decode", "{encoded}", "-o", "b.xyz"], "no suffix of a picture format"),
        (["decode", "{encoded}", "-o", "b.png", "--max-pixels", "10"], "raise max_pixels"),
        (["encode", "{picture}", "-o", "a.cwic", "--max-pixels", "10"], "raise max_pixels"),
        (["encode", "{encoded}", "-o", "a.cwic"], "not a picture that Pillow can read"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    expected: str,
    picture: Path,
    encoded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"picture": picture, "encoded": encoded}
    assert expected in fails(run(*[a.format(**places) for a in arguments]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["encode"], ["encode", "x", "--no-such"], ["frobnicate"]])
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for command in ("encode", "decode", "info", "train", "export", "validate"):
        assert command in done.stdout


@pytest.mark.parametrize("delay_s", [0.3, 0.8, 1.3])
def test_a_killed_encode_leaves_no_half_file(picture: Path, tmp_path: Path, delay_s: float) -> None:
    command = [sys.executable, "-m", "cwic.cli", "encode", str(picture), "-o"]
    target = tmp_path / "a.cwic"
    with subprocess.Popen([*command, str(target)], stdout=subprocess.DEVNULL) as process:
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
    if target.exists():
        cwic.load().decode(target.read_bytes())
