"""The benchmark of many files, on small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from benchmarks import batch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image


def test_command(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(photo[90 * i : 90 * i + 75, :120]).save(tmp_path / f"{i}.png")
    output = tmp_path / "batch.json"
    arguments = ["--images", str(tmp_path / "*.png"), "-o", str(output)]
    arguments += ["--repeat", "2", "--jobs", "2"]
    done = CliRunner().invoke(batch.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(output.read_text())
    assert {"commit", "machine", "versions", "load_average", "jobs"} <= set(result)
    assert result["pictures"] == ["0.png", "1.png"]
    assert result["megapixels"] == 0.018
    assert result["stream_bytes"] > 100
    for direction in ("encode", "decode"):
        row = result[direction]
        ways = {"network", "network_jobs", "files", "files_jobs"}
        assert {name[:-3] for name in row if name.endswith("_ms")} == {
            *ways,
            *(f"{way}_cpu" for way in ways),
            "runs",
        }
        assert all(len(runs) == 2 and min(runs) > 0 for runs in row["runs_ms"].values())
        assert abs(row["ratio"] - row["network_ms"] / row["files_jobs_ms"]) < 0.01
    assert len(done.output.splitlines()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "batch.json"]
