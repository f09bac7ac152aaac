"""Reports of details of real photographs, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cwic
from cwic.report.build import build_report
from cwic.report.measure import Rate

HOSTILE = '<img src=x onerror="alert(1)">&{{ 7 }}.png'


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, photo: np.ndarray) -> Path:
    """Two details, one with a hostile name and sides that are no multiples of 8."""
    path = tmp_path_factory.mktemp("pictures")
    Image.fromarray(photo[180:283, 300:437]).save(path / HOSTILE)
    Image.fromarray(photo[100:228, 200:360]).save(path / "b.png")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture(scope="session")
def page(folder: Path, codec: cwic.Codec) -> str:
    return build_report([folder], codec, Rate(bpp=0.6), title=HOSTILE, curve_points=3)
