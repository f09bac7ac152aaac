"""Streams cross-decode: the comparison itself here, every side with `pytest -m slow`."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts.cross_decode import aarch64
from scripts.cross_decode.__main__ import Side
from scripts.cross_decode.compare import compare, summary
from scripts.cross_decode.native import Machine

ROOT = Path(__file__).resolve().parents[2]
HERE = Machine("here", (sys.executable,), {}, emulated=False)
Results = dict[str, list[dict[str, Any]]]


def script(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scripts.cross_decode", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def worked(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Results, Results, Path]:
    """What the C coder and the NumPy coder of this environment wrote and read, and the pixels."""
    folder = tmp_path_factory.mktemp("cross")
    crop = {
        "name": "crop",
        "pictures": [str(ROOT / "assets" / "kodim23.png")],
        "box": [300, 100, 341, 130],
        "qualities": [30],
        "progressive": [30],
    }
    sides = [Side(HERE, "c", 1), Side(HERE, "numpy", 4)]
    job = {"streams": str(folder), "items": [crop]}
    made = {side.name: side.work("encode", job)["results"] for side in sides}
    wanted = {
        e["stream"]: {**e, "path": str(folder / e["stream"]), "pixels": True}
        for entries in made.values()
        for e in entries
    }
    job = {"pixels": str(folder), "streams": list(wanted.values())}
    return made, {side.name: side.work("decode", job)["results"] for side in sides}, folder


def test_both_coders_write_and_read_the_same(worked: tuple[Results, Results, Path]) -> None:
    made, read, pixels = worked
    rows = compare(made, read, pixels)
    assert len(rows) == 4
    assert all(row.holds for row in rows)
    assert {(row.streams, row.pictures) for row in rows} == {(2, 2)}
    crop, progressive = made["here/c/1"]
    assert (crop["width_px"], crop["height_px"]) == (41, 30)
    assert (crop["quality"], progressive["quality"]) == ("30", "30, progressive")


@pytest.mark.parametrize("what", ["codes", "levels", "written"])
def test_a_difference_is_found(worked: tuple[Results, Results, Path], what: str) -> None:
    made, read, pixels = worked
    other = copy.deepcopy(read)
    other["here/numpy/4"][0][what] = "0" * 64
    rows = compare(made, other, pixels)
    wrong = {(r.encoder, r.decoder) for r in rows if not r.holds}
    assert ("here/c/1", "here/numpy/4") in wrong
    assert ("here/c/1", "here/c/1") not in wrong
    assert sum(line.startswith("FAILED") for line in summary(rows, made)) == len(wrong)


@pytest.mark.parametrize(("difference", "holds"), [(1, True), (2, False)])
def test_pixels_may_differ_by_one(
    worked: tuple[Results, Results, Path], difference: int, holds: bool
) -> None:
    made, read, pixels = worked
    picture = bytearray((pixels / read["here/c/1"][0]["pixels"]).read_bytes())
    picture[100] += difference if picture[100] < 128 else -difference
    (pixels / f"off by {difference}").write_bytes(picture)
    other = copy.deepcopy(read)
    other["here/numpy/4"][0]["pixels"] = f"off by {difference}"
    rows = {(r.encoder, r.decoder): r for r in compare(made, other, pixels)}
    row = rows["here/c/1", "here/numpy/4"]
    assert (row.pixel_difference, row.holds) == (difference, holds)


def test_a_side_that_read_nothing_does_not_hold(worked: tuple[Results, Results, Path]) -> None:
    made, read, pixels = worked
    nothing = {"here/c/1": read["here/c/1"], "idle": []}
    rows = compare({"here/c/1": made["here/c/1"]}, nothing, pixels)
    assert [row.holds for row in rows] == [True, False]


def test_missing_tools_are_one_line_with_the_remedy(tmp_path: Path) -> None:
    done = script("--cache", tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "qemu-aarch64-static" in done.stderr
    assert aarch64.REMEDY in done.stderr


@pytest.mark.slow
def test_every_side_reads_every_stream(tmp_path: Path) -> None:
    missing = aarch64.missing_tools()
    only = ["--native-only"] if missing else []
    done = script("-o", tmp_path / "result.json", *only)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    sides = result["sides"]
    assert result["holds"]
    assert len(result["comparisons"]) == len(sides) ** 2
    assert {facts["coder"] for facts in sides.values()} == {"c", "numpy"}
    assert all(
        facts["threads_of_process"] >= 4 for name, facts in sides.items() if name.endswith("/4")
    )
    if missing:
        pytest.skip(f"aarch64 was left out: {', '.join(missing)} missing; {aarch64.REMEDY}")
    assert {facts["machine"] for facts in sides.values()} >= {"aarch64"}
