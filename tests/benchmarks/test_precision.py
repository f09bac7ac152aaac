"""The measurement of precisions, and that the documented table is the measured one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import precision
from numpy.typing import NDArray

from cwic.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]


def test_rates_are_compared_at_equal_quality() -> None:
    reference = [{"bpp": r, "psnr_db": 30 + 3 * np.log2(r)} for r in (0.2, 0.4, 0.8, 1.6)]
    larger = [{**p, "bpp": 1.1 * p["bpp"]} for p in reference]
    rates = precision.rate_increases({"fp32 > fp32": reference, "int8 > int8": larger})
    assert rates == pytest.approx({"fp32 > fp32": 0, "int8 > int8": 10}, abs=0.05)


def test_measuring(photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    """With one precision under two names, nothing differs."""
    monkeypatch.setattr(precision, "_QUALITIES", (30, 60))
    codecs = precision.open_codecs(Bundle.load(), threads=1)
    assert list(codecs) == ["fp32"]
    codecs["fp16"] = codecs["fp32"]
    pictures = [photo[:64, :100], photo[100:180, :64]]
    points = precision.curves(codecs, pictures)
    assert set(points) == {"fp32 > fp32", "fp32 > fp16", "fp16 > fp32", "fp16 > fp16"}
    first, second = points["fp32 > fp32"]
    assert first["bpp"] < second["bpp"]
    assert points["fp16 > fp32"] == points["fp32 > fp32"]
    assert precision.rate_increases(points) == dict.fromkeys(points, 0.0)
    assert precision.flip_shares(codecs, pictures) == {"fp32": 0, "fp16": 0}
    speeds = precision.speeds(codecs, pictures[0], runs=1)
    assert speeds["fp32"]["encode_speedup"] == 1


@pytest.mark.parametrize(
    ("name", "channels", "flipped"),
    [
        ("nano", slice(32), 0b1000_0000),  # the high bytes of a quarter of the values
        ("nano-signs", slice(None), 0b0001_0001),
    ],
)
def test_flips_are_counted(
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    channels: slice,
    flipped: int,
) -> None:
    codecs = precision.open_codecs(Bundle.load(name), threads=1)
    other = precision.open_codecs(Bundle.load(name), threads=1)["fp32"]
    encode = other.runner.encode

    def flipping(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        codes, importance = encode(image)
        codes[:, channels] ^= np.uint8(flipped)
        return codes, importance

    monkeypatch.setattr(other.runner, "encode", flipping)
    codecs["int8"] = other
    assert precision.flip_shares(codecs, [photo[:40, :40]])["int8"] == 0.25


def test_the_document_shows_what_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "precision.json").read_text())
    assert precision.table(result) in (ROOT / "docs" / "export.md").read_text()
