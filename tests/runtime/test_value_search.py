"""The search for values: better pictures for about the same bytes, and levels as they were."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic
from cwic import search, value_search
from cwic.container import Stream
from cwic.errors import RateError
from cwic.rate import levels_from_importance

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def codec() -> cwic.Codec:
    return cwic.load("nano")


@pytest.fixture(scope="module")
def detail(photo: Bytes) -> Bytes:
    return np.ascontiguousarray(photo[160:288, 280:440])


@pytest.fixture(scope="module")
def start(codec: cwic.Codec, detail: Bytes) -> tuple[Bytes, Bytes]:
    """What is sent of a picture, and its levels."""
    codes, importance = (part[0] for part in codec.runner.encode(detail[None]))
    levels = levels_from_importance(importance, 1.0, codec.bundle.levels)
    return codec.context.codes.sent(codes, levels), levels


def _psnr_db(picture: Bytes, data: bytes, codec: cwic.Codec) -> float:
    restored = np.asarray(codec.decode(data).convert("RGB"))
    return float(-10 * np.log10(np.square(restored / 255.0 - picture / 255.0).mean()))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [20, 50, 90])
def test_the_picture_gets_better_for_about_its_bytes(
    codec: cwic.Codec, detail: Bytes, quality: int, progressive: bool
) -> None:
    plain, better = (
        codec.encode(detail, quality=quality, effort=effort, progressive=progressive)
        for effort in (0, 8)
    )
    assert 0.94 * len(plain) < len(better) < 1.04 * len(plain)
    assert _psnr_db(detail, better, codec) > _psnr_db(detail, plain, codec) + 0.1


@pytest.mark.parametrize(("budget", "gain_db"), [(900, 0.03), (1500, 0.05), (3000, 0.05)])
def test_a_budget_is_kept_and_used(
    codec: cwic.Codec, detail: Bytes, budget: int, gain_db: float
) -> None:
    plain, better = (codec.encode(detail, max_bytes=budget, effort=effort) for effort in (0, 8))
    assert 0.96 * budget <= len(better) <= budget
    assert _psnr_db(detail, better, codec) > _psnr_db(detail, plain, codec) + gain_db


def test_a_tiny_budget_is_met_without_a_search(codec: cwic.Codec, detail: Bytes) -> None:
    assert len(codec.encode(detail, max_bytes=100, effort=4)) <= 100
    with pytest.raises(RateError, match="20 bytes are too few"):
        codec.encode(detail, max_bytes=20, effort=4)


def test_more_bytes_than_the_best_picture_takes(codec: cwic.Codec, detail: Bytes) -> None:
    plain, better = (codec.encode(detail, max_bytes=10**6, effort=effort) for effort in (0, 4))
    assert len(better) < 1.02 * len(plain)
    assert _psnr_db(detail, better, codec) > _psnr_db(detail, plain, codec)


@pytest.mark.parametrize("psnr_db", [36, 40])
def test_a_psnr_is_reached_with_fewer_bytes(
    codec: cwic.Codec, detail: Bytes, psnr_db: float
) -> None:
    plain, better = (codec.encode(detail, psnr_db=psnr_db, effort=effort) for effort in (0, 8))
    assert psnr_db <= _psnr_db(detail, better, codec) < psnr_db + 0.15
    assert len(better) < len(plain)


def test_a_region_keeps_its_levels(codec: cwic.Codec, detail: Bytes) -> None:
    files = [codec.encode(detail, roi=[(32, 32, 96, 96)], effort=effort) for effort in (0, 6)]
    levels = [codec.read_codes(Stream.from_bytes(data))[1] for data in files]
    assert np.array_equal(*levels)
    assert _psnr_db(detail, files[1], codec) > _psnr_db(detail, files[0], codec)


def test_levels_stay(codec: cwic.Codec, detail: Bytes) -> None:
    files = [codec.encode(detail, quality=60, effort=effort) for effort in (0, 6)]
    (codes, levels), (other, same) = (codec.read_codes(Stream.from_bytes(data)) for data in files)
    assert np.array_equal(levels, same)
    moved = np.abs(codes.astype(int) - other)
    assert moved.max() >= 1
    assert 0 < (moved > 0).mean() < 0.2


def test_bits_are_weighed_against_the_error(
    codec: cwic.Codec, detail: Bytes, start: tuple[Bytes, Bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, levels = start
    model = codec.context.codes
    took = []
    for slope in (value_search.SLOPE, 0.0, 5.0):
        monkeypatch.setattr(value_search, "SLOPE", slope)
        found, _ = search.improved(codec.runner, model, sent, levels, detail, rounds=4)
        took.append(model.position_bits(found, levels).sum())
    assert took[2] < took[0] < took[1]


def test_more_rounds_bring_more_and_always_the_same(codec: cwic.Codec, detail: Bytes) -> None:
    files = [codec.encode(detail, effort=effort) for effort in (0, 3, 12)]
    found = [_psnr_db(detail, data, codec) for data in files]
    assert found == sorted(found)
    assert codec.encode(detail, effort=12) == files[-1]


def test_what_may_not_be_changed_is_not(
    codec: cwic.Codec, detail: Bytes, start: tuple[Bytes, Bytes]
) -> None:
    sent, levels = start
    movable = np.zeros(levels.shape, bool)
    movable[4:9, 5:13] = True
    model = codec.context.codes
    found, same = search.improved(
        codec.runner, model, sent, levels, detail, rounds=4, movable=movable
    )
    assert np.array_equal(same, levels)
    changed = found != sent
    assert changed.any()
    assert not changed[:, ~movable].any()
    group = np.repeat(np.arange(len(model.sizes)), model.sizes)[:, None, None]
    assert not (changed & (group >= model.groups_at[levels])).any()


def test_nothing_is_kept_nothing_is_done(
    codec: cwic.Codec, detail: Bytes, start: tuple[Bytes, Bytes]
) -> None:
    levels = np.zeros_like(start[1])
    sent = codec.context.codes.sent(codec.runner.encode(detail[None])[0][0], levels)
    found, same = search.improved(codec.runner, codec.context.codes, sent, levels, detail, rounds=4)
    assert np.array_equal(found, sent)
    assert not same.any()


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 83), (103, 37)])
def test_any_size(codec: cwic.Codec, photo: Bytes, size: tuple[int, int]) -> None:
    picture = np.ascontiguousarray(photo[200 : 200 + size[0], 300 : 300 + size[1]])
    plain = codec.encode(picture, quality=80)
    better = codec.encode(picture, quality=80, effort=8)
    assert codec.decode(better).size == size[::-1]
    assert _psnr_db(picture, better, codec) >= _psnr_db(picture, plain, codec) - 0.05
