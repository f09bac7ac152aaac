"""Models side by side: curves from whole files, and bytes at equal quality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import variants
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

import cwic

SHIPPED = Path(cwic.__file__).parent / "models" / "nano"


def test_a_point_is_of_whole_files(photo: NDArray[np.uint8]) -> None:
    codec, picture = cwic.load(), photo[:200, :256]
    (point,) = variants.curve(codec, [picture], [codec.qualities.scale(50)])
    size = len(codec.encode(picture, quality=50))
    assert point["bpp"] == pytest.approx(8 * size / (200 * 256), abs=1e-4)
    assert point["bpp_deviation"] == 0


def test_extra_rate_is_measured_at_equal_quality() -> None:
    def points(factor: float) -> list[dict[str, float]]:
        return [{"bpp": factor * 2**k, "psnr_db": 25.0 + 4 * k} for k in range(-2, 2)]

    assert variants.extra_rate(points(1), points(1.1), "psnr_db") == pytest.approx(10)
    assert variants.extra_rate(points(1), points(0.5)[1:2], "psnr_db") == pytest.approx(-50)
    outside = [{"bpp": 1.0, "psnr_db": 50.0}]
    assert variants.extra_rate(points(1), outside, "psnr_db") is None


def test_the_command(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(photo[:200, :256]).save(tmp_path / "a.png")
    output = tmp_path / "out.json"
    arguments = ["--images", str(tmp_path / "a.png"), "-o", str(output)]
    models = ["--model", f"all={SHIPPED}@0.3,0.6,1.2", "--model", f"one = 0.6={SHIPPED}@0.6"]
    answer = CliRunner().invoke(variants.main, [*arguments, *models])
    assert answer.exit_code == 0, answer.output
    result = json.loads(output.read_text())
    assert result["extra_rate"]["one = 0.6"]["psnr_db"] == pytest.approx(0, abs=0.01)
    assert len(result["curves"]["all"]) == 3
    assert "| one = 0.6 |" in variants.table(result)
    assert "over 1 pictures, a.png" in variants.table(result)

    wrong = CliRunner().invoke(variants.main, [*arguments, "--model", f"a={SHIPPED}@x"])
    assert wrong.exit_code == 2
    assert "behind @ come numbers" in wrong.output
    nothing = CliRunner().invoke(variants.main, [*arguments, "--model", f"a={tmp_path}"])
    assert nothing.exit_code == 1
