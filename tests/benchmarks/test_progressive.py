"""The measurement of cut files."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import progressive
from numpy.typing import NDArray
from PIL import Image

import cwic


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, photo: NDArray[np.uint8]) -> dict[str, object]:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(photo[:256, :256]).save(path)
    return {**progressive.measured(cwic.load(), [path]), "pictures": ["a.png"]}


def test_curves_of_cut_files(result: dict[str, object]) -> None:
    curves = result["curves"]
    assert isinstance(curves, dict)
    assert {len(curve) for curve in curves.values()} == {len(progressive.SHARES)}
    layered, plain, own = ([p["psnr_db"] for p in curve] for curve in curves.values())
    # The first cut has no codes yet, of a picture as small as this.
    for worse, better in zip(plain[1:6], layered[1:6], strict=True):
        assert better > worse
    assert layered[-1] == pytest.approx(own[-1], abs=0.5)
    assert layered == sorted(layered)


def test_the_table(result: dict[str, object]) -> None:
    lines = progressive.table(result).splitlines()
    assert len(lines) == 2 + len(progressive.SHARES) + 2
    assert lines[2].startswith("| 6% | ")
    assert "progressive, cut: " in lines[-1]
    assert "plain, cut: " in lines[-1]
