"""The search for values: better pictures for about the same bytes, and levels as they were."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic
from cwic import search, value_search
from cwic.container import Stream
from cwic.errors import UsageError
from cwic.rate import levels_from_importance

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def codec() -> cwic.Codec:
    return cwic.load("nano-values")


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


@pytest.mark.parametrize("target", [{"bpp": 0.4}, {"max_bytes": 1000}, {"psnr_db": 32}])
def test_other_targets_are_refused(
    codec: cwic.Codec, detail: Bytes, target: dict[str, float]
) -> None:
    message = "with nano-values an effort goes with a quality only; .* leave out the effort$"
    with pytest.raises(UsageError, match=message):
        codec.encode(detail, effort=4, **target)  # type: ignore[arg-type]


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
