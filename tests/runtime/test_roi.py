"""Regions of interest: weights, and that a region really gains at equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic.errors import UsageError
from cwic.roi import parse_region, position_weights


def test_a_mask_is_averaged_over_positions() -> None:
    mask = np.zeros((16, 20), np.uint8)
    mask[:8, :8] = 255
    mask[8:, 8:12] = 255
    mask[:, 16:] = 51
    weights = position_weights(mask, 16, 20, 8)
    # The third column has 4 of its 8 pixels in the picture; the last one is repeated.
    assert weights == pytest.approx(np.array([[1, 0, 0.2], [0, 0.5, 0.2]]))


def test_a_picture_is_a_mask_too() -> None:
    mask = Image.new("RGB", (16, 8), (255, 255, 255))
    assert position_weights(mask, 8, 16, 8) == pytest.approx(np.ones((1, 2)))


def test_boxes_take_every_position_that_they_touch() -> None:
    weights = position_weights([(7, 0, 9, 1), (-5, 17, 8, 999)], 24, 24, 8, background=0.25)
    assert weights.tolist() == [[1, 1, 0.25], [0.25, 0.25, 0.25], [1, 0.25, 0.25]]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (np.zeros((8, 8), np.uint8), "mask is uint8.*make a grey"),
        (np.ones((16, 24), np.float32), "mask is float32.*make a grey"),
        (np.zeros((16, 24), np.uint8), "is empty; give"),
        ([(3, 3, 3, 9)], "no pixel of the 24x16 picture; give"),
        ([(30, 0, 40, 8)], "no pixel"),
        ([(0, 0, 8)], "is no box; give four"),
        ([("a", 0, 8, 8)], "is no box; give four"),
        ([5], "is no box; give four"),
        ([(float("nan"), 0, 8, 8)], "no pixel"),
    ],
)
def test_unusable_regions(region: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        position_weights(region, 16, 24, 8)


@pytest.mark.parametrize("background", [-0.1, 1.1, float("nan")])
def test_background_out_of_range(background: float) -> None:
    with pytest.raises(UsageError, match=r"outside 0\.\.1; use"):
        position_weights([(0, 0, 8, 8)], 16, 24, 8, background)


def _psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_region_gains_and_the_rest_pays(
    codec: cwic.Codec, photo: NDArray[np.uint8], as_mask: bool
) -> None:
    picture = photo[64:320, 128:512]
    inside = np.zeros(picture.shape[:2], bool)
    inside[64:192, 96:256] = True
    region: Any = [(96, 64, 256, 192)]
    if as_mask:
        region = np.where(inside, 255, 64).astype(np.uint8)
    budget = 3500
    plain, drawn = (codec.encode(picture, max_bytes=budget, roi=r) for r in (None, region))
    assert all(0.99 * budget <= len(data) <= budget for data in (plain, drawn))
    before, after = (np.asarray(codec.decode(data)) for data in (plain, drawn))
    assert _psnr_db(after[inside], picture[inside]) > _psnr_db(before[inside], picture[inside]) + 1
    assert _psnr_db(after[~inside], picture[~inside]) < _psnr_db(before[~inside], picture[~inside])


def test_a_full_region_changes_little(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    picture = photo[64:192, 128:256]
    whole = [(0, 0, 128, 128)]
    sizes = [len(codec.encode(picture, quality=40, roi=r)) for r in (None, whole)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)


def test_a_region_composes_with_a_psnr(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    picture = photo[64:192, 128:256]
    data = codec.encode(picture, psnr_db=27, roi=[(32, 32, 96, 96)])
    assert _psnr_db(np.asarray(codec.decode(data)), picture) >= 27


def test_regions_are_parsed(tmp_path: Path) -> None:
    assert parse_region([]) is None
    assert parse_region(["1,2,3,4", "5,6,7.5,8"]) == [(1, 2, 3, 4), (5, 6, 7.5, 8)]
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    parsed = parse_region([str(tmp_path / "mask.png")])
    assert np.array_equal(np.asarray(parsed), mask)


@pytest.mark.parametrize(
    "words", [["1,2,3"], ["1,2,3,4,5"], ["1,2,3,4", "mask.png"], ["none.png"], ["1,-,3,4"], [""]]
)
def test_other_words_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is no box; give|nor a mask: .*; check"):
        parse_region(words)
