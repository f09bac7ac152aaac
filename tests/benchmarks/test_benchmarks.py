"""The benchmark: metrics, anchors, curves, and that committed tables are the rendered ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks import anchors, bd, demo, plot, rd, render, render_entropy
from benchmarks.metrics import ms_ssim, psnr_db
from numpy.typing import NDArray

import cwic
from cwic.bundle import Bundle
from cwic.errors import UsageError


def test_metrics_on_known_errors(photo: NDArray[np.uint8]) -> None:
    picture = photo.clip(10, 245)
    assert psnr_db(picture, picture + 10) == pytest.approx(20 * np.log10(25.5), abs=1e-3)
    assert ms_ssim(picture, picture) == pytest.approx(1, abs=1e-6)
    noisy = (picture + np.random.default_rng(0).integers(-10, 11, picture.shape)).astype(np.uint8)
    assert 0.8 < ms_ssim(picture, noisy) < 0.999


@pytest.mark.parametrize("anchor", anchors.available(), ids=lambda a: a.name)
def test_nearest_not_smaller(anchor: anchors.Anchor, photo: NDArray[np.uint8]) -> None:
    picture = photo[:128, :192]
    sizes = [len(anchor.encode(picture, s)) for s in anchor.settings[::6]]
    wanted = (sizes[2] + sizes[3]) // 2
    data = anchors.nearest_not_smaller(anchor, picture, wanted)
    assert wanted <= len(data) <= sizes[3] * 1.1
    assert anchors.decode(data).shape == picture.shape
    assert psnr_db(picture, anchors.decode(data)) > 20


def test_measure_counts_whole_files(
    photo: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    Image.fromarray(photo[:200, :256]).save(tmp_path / "a.png")
    monkeypatch.setattr(rd, "_QUALITIES", (30, 60))
    monkeypatch.setattr(rd, "_QUALITIES_WITH_EFFORT", (30,))
    few = tuple(replace(a, points=a.points[5:6]) for a in anchors.available())
    monkeypatch.setattr(anchors, "available", lambda: few)
    result = rd.measure([tmp_path / "a.png"], ["nano", "nano@1"])
    assert {"commit", "machine", "versions", "command"} <= set(result)
    points = result["curves"]["cwic nano"]
    size = len(cwic.load().encode(photo[:200, :256], quality=30))
    assert points[0]["bpp"] == pytest.approx(8 * size / (200 * 256), abs=1e-4)
    assert points[0]["psnr_db"] < points[1]["psnr_db"]
    assert points[0]["psnr_db"] < result["curves"]["cwic nano, effort 1"][0]["psnr_db"]
    with pytest.raises(UsageError, match="nano@12"):
        rd.measure([tmp_path / "a.png"], ["nano@much"])
    assert set(result["models"]) == {"cwic nano", "cwic nano, effort 1"}
    assert set(result["curves"]) == {*result["models"], *(a.name for a in anchors.available())}


def test_curves_are_drawn(tmp_path: Path) -> None:
    from PIL import Image

    result = json.loads(plot.RESULTS.read_text())
    plot.draw(result, json.loads(plot.PUBLISHED.read_text()), tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size[0] > 1000
        assert len(np.unique(np.asarray(drawn.convert("L")))) > 50


def test_interpolation_stays_inside_the_curve() -> None:
    points = [
        {"bpp": 1.0, "psnr_db": 32.0, "ms_ssim": 0.98},
        {"bpp": 0.25, "psnr_db": 28.0, "ms_ssim": 0.94},
    ]
    assert rd.point_at(points, 0.5) == {
        "psnr_db": pytest.approx(30.0),
        "ms_ssim": pytest.approx(0.96),
    }
    assert rd.point_at(points, 0.2) is None
    assert rd.point_at(points, 1.1) is None


@pytest.mark.parametrize("path", render.PAGES, ids=lambda p: p.name)
def test_committed_tables_are_the_rendered_ones(path: Path) -> None:
    assert render.page(path) == path.read_text()


def test_committed_entropy_page_is_the_rendered_one() -> None:
    assert render_entropy.rendered() == render_entropy.PAGE.read_text()


def test_bd_rate_of_known_curves() -> None:
    points = [{"bpp": 2.0**i, "psnr_db": 30.0 + 3 * i, "ms_ssim": 0.9} for i in range(5)]
    cheaper = [{**p, "bpp": 0.8 * p["bpp"]} for p in points]
    assert bd.delta_rate(points, cheaper, "psnr_db") == pytest.approx(-20)
    assert bd.delta_rate(points, [{**p, "psnr_db": 90.0} for p in points], "psnr_db") is None
    better = [{**p, "psnr_db": p["psnr_db"] + 0.7} for p in points]
    assert bd.delta_psnr_db(points, better) == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("name", "model", "pictures"),
    [
        ("kodak.json", "nano", 24),
        ("coding.json", "nano", 4),
        ("validation.json", "nano", 3),
        ("precision.json", "nano", 8),
        ("kodak-signs.json", "nano-signs", 24),
        ("progressive-signs.json", "nano-signs", 8),
    ],
)
def test_committed_results_are_of_shipped_models(name: str, model: str, pictures: int) -> None:
    result = json.loads((render.RESULTS / name).read_text())
    result = result.get("report", result)
    assert result["model_id"] == Bundle.load(model).model_id.hex()
    assert len(result["pictures"]) == pictures


def test_comparison_sheet(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    results, bits = demo.show(cwic.load(), photo[:208, :208], tmp_path / "a", bpp=0.5)
    assert [r.codec for r in results] == ["cwic", "JPEG", "WebP"]
    assert all(r.size_bytes >= results[0].size_bytes for r in results[1:])
    assert bits.shape == (26, 26)
    assert 0.8 * 8 * results[0].size_bytes < bits.sum() < 8 * results[0].size_bytes
    sheet = demo.comparison_sheet([(photo[:208, :208], results, bits)])
    assert np.asarray(sheet).std() > 20
