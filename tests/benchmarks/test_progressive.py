"""The measurement of cut files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks import progressive
from numpy.typing import NDArray
from PIL import Image

import cwic

SHARES = (0.1, 0.25, 0.5, 0.8, 1.0)


@pytest.fixture(scope="module", params=["nano", "nano-signs"])
def result(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    photo: NDArray[np.uint8],
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.fromarray(photo[:256, :256]).save(path)
    codec = cwic.load(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progressive, "SHARES", SHARES)
        found = progressive.measured(codec, [path])
    return {**found, "pictures": ["a.png"], "layered": codec.context.codes.layered}


def test_curves_of_cut_files(result: dict[str, Any]) -> None:
    curves = result["curves"]
    assert [[p["setting"] for p in curve] for curve in curves.values()] == [list(SHARES)] * 3
    layered, plain, own = ([p["psnr_db"] for p in curve] for curve in curves.values())
    if result["layered"]:
        assert all(b > a for a, b in zip(plain[:-1], layered[:-1], strict=True))
    else:
        assert layered == plain
    assert layered[-1] == pytest.approx(own[-1], abs=0.5)
    assert layered == sorted(layered)
    assert layered[-1] > layered[0] + 3


def test_the_table(result: dict[str, Any]) -> None:
    lines = progressive.table(result).splitlines()
    assert len(lines) == 2 + len(SHARES) + 2
    assert lines[2].startswith("| 10% | ")
    assert "progressive, cut: " in lines[-1]
    assert "plain, cut: " in lines[-1]
