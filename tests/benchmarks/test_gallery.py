"""The gallery: what is compared, where crops lie, and that its page shows its figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import anchors, budgets, gallery, gallery_page, render
from numpy.typing import NDArray
from PIL import Image

import cwic

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A gallery of parts of both photographs, and its figures."""
    folder = tmp_path_factory.mktemp("gallery")
    paths = []
    for number in ("03", "23"):
        paths.append(tmp_path_factory.getbasetemp() / f"part{number}.png")
        with Image.open(ROOT / "assets" / f"kodim{number}.png") as photo:
            photo.crop((64, 64, 384, 320)).save(paths[-1])
    return folder, gallery.measured(cwic.load(), paths, folder)


def test_best_and_worst_are_chosen_and_drawn(made: tuple[Path, dict[str, Any]]) -> None:
    folder, result = made
    rows = {row["picture"]: row["codecs"] for row in result["compared"]}
    lead = {n: c["cwic"]["ms_ssim"] - c["WebP"]["ms_ssim"] for n, c in rows.items()}
    fair = [row["picture"] for row in result["compared"] if gallery.fair(row)]
    assert result["shown"]["best-1"]["picture"] == max(fair, key=lambda name: lead[name])
    for codecs in rows.values():
        assert all(c["size_bytes"] <= codecs["cwic"]["size_bytes"] for c in codecs.values())
    for sheet in folder.glob("*.jpg"):
        assert Image.open(sheet).width == 880
        assert sheet.stat().st_size < 500_000


def test_regions_gain_inside_at_one_budget(made: tuple[Path, dict[str, Any]]) -> None:
    for found in made[1]["regions"]:
        assert found["with"]["inside_psnr_db"] > found["without"]["inside_psnr_db"]
        assert found["with"]["outside_psnr_db"] < found["without"]["outside_psnr_db"]
        for name in ("with", "without"):
            assert found[name]["size_bytes"] <= found["budget_bytes"]


def test_maps_are_of_a_model_that_has_one(made: tuple[Path, dict[str, Any]]) -> None:
    assert len(made[1]["maps"]) == 2
    for found in made[1]["maps"]:
        assert found["lowest"] < found["mean"] < found["highest"]


def test_window_is_where_pictures_differ(photo: NDArray[np.uint8]) -> None:
    other = photo.copy()
    other[100:140, 300:380] ^= 64
    left, top, right, bottom = gallery.differing_window(photo, other, (40, 80))
    assert (left, top, right, bottom) == (300, 100, 380, 140)
    whole = gallery.differing_window(photo, other, (9999, 9999))
    assert whole == (0, 0, photo.shape[1], photo.shape[0])


@pytest.mark.parametrize("name", gallery.CODECS)
def test_largest_not_larger(name: str, photo: NDArray[np.uint8]) -> None:
    (anchor,) = (a for a in anchors.available() if a.name == name)
    picture = photo[:128, :192]
    sizes = [len(anchor.encode(picture, s)) for s in anchor.settings[::6]]
    wanted = (sizes[2] + sizes[3]) // 2
    assert sizes[2] * 0.9 <= len(anchors.largest_not_larger(anchor, picture, wanted)) <= wanted
    assert len(anchors.largest_not_larger(anchor, picture, 1)) == sizes[0]


def test_page_shows_every_sheet_with_words() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text()
    shown = re.findall(r"!\[([^\]]+)\]\((gallery/[^)]+\.jpg)\)", text)
    kept = {f"gallery/{path.name}" for path in (ROOT / "docs" / "gallery").glob("*.jpg")}
    assert {sheet for _, sheet in shown} == kept
    assert all(len(words) > 20 for words, _ in shown)
    size = sum(path.stat().st_size for path in (ROOT / "docs" / "gallery").iterdir())
    assert size < 3e6


def test_committed_gallery_is_of_the_shipped_model() -> None:
    result = json.loads((ROOT / "docs" / "gallery" / "gallery.json").read_text())
    assert result["model_id"] == cwic.load().bundle.model_id.hex()
    assert " /" not in result["command"]
    assert "crop" in gallery_page.comparisons(result)


def test_budgets_in_words() -> None:
    summary = {
        "cases": 16,
        "exceeded": 0,
        "usable": 14,
        "used_below_99_percent": 1,
        "files_made_mean": 2.2,
        "time_over_plain_median": 1.234,
    }
    words = budgets.table({"summary": summary, "pictures": ["a.png", "b.png"]})
    assert "Of 16 budgets" in words
    assert "0 were exceeded" in words
    assert "1.23 times" in words
    assert "budgets" in render.SECTIONS
