"""Effort: about as many bytes, a better picture, and any decoder reads it.

What is special to values is in ``test_value_search.py``.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import search, searched, sign_search, tiled
from cwic.backends import Runner
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.cli import main
from cwic.container import Stream
from cwic.encoding import MOST_EFFORT
from cwic.errors import BackendError, BundleError, UsageError
from cwic.rate import levels_from_importance

Bytes = NDArray[np.uint8]


@pytest.fixture(scope="module")
def detail(photo: Bytes) -> Bytes:
    return np.ascontiguousarray(photo[160:288, 280:440])


def _psnr_db(picture: Bytes, data: bytes, codec: cwic.Codec) -> float:
    restored = np.asarray(codec.decode(data).convert("RGB"))
    return float(-10 * np.log10(np.square(restored / 255.0 - picture / 255.0).mean()))


def _read(codec: cwic.Codec, data: bytes) -> tuple[Bytes, Bytes]:
    return codec.read_codes(Stream.from_bytes(data, 1 << 30))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [20, 50, 90])
def test_the_picture_gets_better_for_its_bytes(
    signs_codec: cwic.Codec, detail: Bytes, quality: int, progressive: bool
) -> None:
    plain, other = (
        signs_codec.encode(detail, quality=quality, effort=effort, progressive=progressive)
        for effort in (0, 6)
    )
    (codes, levels), (other_codes, other_levels) = (
        _read(signs_codec, plain),
        _read(signs_codec, other),
    )
    kept = np.arange(128)[:, None, None] // 8 < np.minimum(levels, other_levels)
    assert 0 < np.unpackbits(codes ^ other_codes, axis=0)[kept].mean() < 0.1
    moved = other_levels.astype(int) - levels
    assert moved.any()
    assert abs(moved).mean() < 0.5
    assert 0.7 * len(plain) < len(other) < 1.1 * len(plain)
    better = signs_codec.encode(detail, max_bytes=len(plain), effort=6, progressive=progressive)
    assert len(better) <= len(plain)
    assert _psnr_db(detail, better, signs_codec) > _psnr_db(detail, plain, signs_codec) + 0.2


def test_regions_decide_the_levels(signs_codec: cwic.Codec, detail: Bytes) -> None:
    region = [(32, 32, 96, 96)]
    plain, better = (signs_codec.encode(detail, roi=region, effort=effort) for effort in (0, 6))
    (_, levels), (_, other_levels) = _read(signs_codec, plain), _read(signs_codec, better)
    assert np.array_equal(levels, other_levels)
    assert _psnr_db(detail, better, signs_codec) > _psnr_db(detail, plain, signs_codec) + 0.1


def test_bits_are_weighed_against_the_error(
    signs_codec: cwic.Codec, photo: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.ascontiguousarray(photo[100:356, 200:520])
    weighed = signs_codec.encode(picture, max_bytes=1200, effort=6)
    monkeypatch.setattr(sign_search, "SLOPE", 0)
    heedless = signs_codec.encode(picture, max_bytes=1200, effort=6)
    assert _psnr_db(picture, weighed, signs_codec) > _psnr_db(picture, heedless, signs_codec)


def test_more_rounds_bring_more_and_always_the_same(signs_codec: cwic.Codec, detail: Bytes) -> None:
    files = [signs_codec.encode(detail, effort=effort) for effort in (0, 3, 12)]
    found = [_psnr_db(detail, data, signs_codec) for data in files]
    assert found == sorted(found)
    assert signs_codec.encode(detail, effort=12) == files[-1]


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 83), (103, 37)])
def test_any_size(signs_codec: cwic.Codec, photo: Bytes, size: tuple[int, int]) -> None:
    picture = np.ascontiguousarray(photo[200 : 200 + size[0], 300 : 300 + size[1]])
    budget = len(signs_codec.encode(picture, quality=80))
    plain, better = (signs_codec.encode(picture, max_bytes=budget, effort=e) for e in (0, 8))
    assert signs_codec.decode(better).size == size[::-1]
    assert _psnr_db(picture, better, signs_codec) >= _psnr_db(picture, plain, signs_codec) - 0.05


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode(either: cwic.Codec, detail: Bytes, mode: str) -> None:
    source = Image.fromarray(detail)
    picture = source.quantize(64, dither=Image.Dither.NONE) if mode == "P" else source.convert(mode)
    budget = len(either.encode(picture, quality=80))
    plain, better = (either.encode(picture, max_bytes=budget, effort=e) for e in (0, 6))
    rgb = np.asarray(picture.convert("RGB"))
    assert either.decode(better).mode == either.decode(plain).mode
    assert _psnr_db(rgb, better, either) > _psnr_db(rgb, plain, either)


@pytest.mark.parametrize("budget", [150, 400, 700])
def test_a_small_budget_is_not_wasted(codec: cwic.Codec, detail: Bytes, budget: int) -> None:
    plain, better = (codec.encode(detail, max_bytes=budget, effort=e) for e in (0, 6))
    assert len(better) <= budget
    assert _psnr_db(detail, better, codec) >= _psnr_db(detail, plain, codec)


def test_a_budget_is_kept_and_used(signs_codec: cwic.Codec, photo: Bytes) -> None:
    picture = photo[100:292, 200:456]
    for budget in (900, 2500, 6000):
        plain, better = (signs_codec.encode(picture, max_bytes=budget, effort=e) for e in (0, 6))
        assert 0.99 * budget <= len(better) <= budget
        assert _psnr_db(picture, better, signs_codec) > _psnr_db(picture, plain, signs_codec) + 0.2


def test_a_psnr_takes_fewer_bytes(signs_codec: cwic.Codec, photo: Bytes) -> None:
    picture = photo[100:356, 200:520]
    plain, better = (signs_codec.encode(picture, psnr_db=32, effort=effort) for effort in (0, 12))
    assert 32 <= _psnr_db(picture, better, signs_codec) <= 32.06
    assert len(better) < 0.9 * len(plain)


def test_parts_fit_together(
    either: cwic.Codec, detail: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = either
    whole_file = codec.encode(detail, quality=80, effort=8)
    whole = _psnr_db(detail, whole_file, codec)
    plain_file = codec.encode(detail, quality=80)
    plain = _psnr_db(detail, plain_file, codec)
    sizes: list[tuple[int, int]] = []
    released: list[bool] = []
    run = codec.runner.gradient

    def watched(codes: Bytes, levels: Bytes, image: Bytes) -> Any:
        sizes.append(levels.shape[1:])
        return run(codes, levels, image)

    monkeypatch.setattr(codec.runner, "gradient", watched)
    monkeypatch.setattr(codec.runner, "release", lambda: released.append(True))
    monkeypatch.setattr(tiled, "LARGEST_SEARCHED", 100)
    monkeypatch.setattr(tiled, "SIDE", 10)
    parts_file = codec.encode(detail, quality=80, effort=8)
    parts = _psnr_db(detail, parts_file, codec)
    assert len(sizes) > 2 * 8  # a part is tried once more than it has rounds
    assert max(map(max, sizes)) <= 10 + tiled.MARGIN
    assert released == [True]  # entropy coding of a large picture needs the memory

    def gain_db(reached: float, data: bytes) -> float:
        """Against the plain file, a factor e of bytes taken for 5 dB, as it is at this quality."""
        return reached - plain + 5 * float(np.log(len(plain_file) / len(data)))

    # Parts as small as these have a price of bits of their own: of values they take fewer.
    assert gain_db(parts, parts_file) > 0.1 * gain_db(whole, whole_file) > 0
    assert len(parts_file) < 1.01 * len(whole_file)


def test_what_may_not_be_turned_is_not(signs_codec: cwic.Codec, detail: Bytes) -> None:
    codes, importance = (part[0] for part in signs_codec.runner.encode(detail[None]))
    levels = levels_from_importance(importance, 0.5, signs_codec.bundle.levels)
    movable = np.zeros(levels.shape, bool)
    movable[4:9, 5:13] = True
    found, found_levels = search.improved(
        signs_codec.runner,
        signs_codec.context.codes,
        codes,
        levels,
        detail,
        rounds=4,
        movable=movable,
    )
    assert (found_levels != levels).any()
    assert np.array_equal(found_levels[~movable], levels[~movable])
    levels = np.maximum(levels, found_levels)
    changed = np.unpackbits(found ^ codes, axis=0).astype(bool)
    assert changed.any()
    assert not changed[:, ~movable].any()
    assert not (changed & (np.arange(128)[:, None, None] >= 8 * levels.astype(int))).any()


def test_nothing_is_kept_nothing_is_done(signs_codec: cwic.Codec, detail: Bytes) -> None:
    codes, importance = (part[0] for part in signs_codec.runner.encode(detail[None]))
    found, levels = search.improved(
        signs_codec.runner,
        signs_codec.context.codes,
        codes,
        np.zeros_like(importance),
        detail,
        rounds=4,
    )
    assert np.array_equal(found, codes)
    assert not levels.any()


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 6)])
@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (1, 1)])
def test_each_block_gives_its_best(size: tuple[int, int], offset: tuple[int, int]) -> None:
    change = np.random.default_rng(3).normal(0.8, 1, (4, *size)).astype(np.float32)
    got = set(zip(*searched.best_of_blocks(change, np.array(offset)), strict=True))
    expected = set()
    for top in range(-offset[0], size[0], searched._BLOCK):
        for left in range(-offset[1], size[1], searched._BLOCK):
            inside = [
                (change[k, y, x], k, y, x)
                for k in range(4)
                for y in range(max(0, top), min(size[0], top + searched._BLOCK))
                for x in range(max(0, left), min(size[1], left + searched._BLOCK))
            ]
            best = min(inside, default=(1.0,))
            if best[0] < 0:
                expected.add(best[1:])
    assert got == expected


@pytest.mark.parametrize("effort", [-1, MOST_EFFORT + 1])
def test_an_effort_out_of_range(codec: cwic.Codec, detail: Bytes, effort: int) -> None:
    with pytest.raises(UsageError, match="outside 0..1000; use for example 12"):
        codec.encode(detail, effort=effort)


def test_a_backend_without_gradients(codec: cwic.Codec, detail: Bytes) -> None:
    class Without(Runner):
        backend = "tensorrt"

        def encode(self, image: Bytes) -> tuple[Bytes, Bytes]:
            return codec.runner.encode(image)

        def decode(self, codes: Bytes, levels: Bytes) -> Bytes:
            return codec.runner.decode(codes, levels)

    other = cwic.Codec(codec.bundle, Without())
    assert other.encode(detail) == codec.encode(detail)
    with pytest.raises(BackendError, match="tensorrt backend cannot search .* --backend cpu"):
        other.encode(detail, effort=1)


def test_a_bundle_of_an_earlier_release(codec: cwic.Codec, detail: Bytes, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(codec.bundle.path, folder)
    files = {name: e for name, e in codec.bundle.files.items() if e.role != "gradient"}
    dataclasses.replace(codec.bundle, path=folder, files=files).save()
    bundle = Bundle.load(folder)
    old = cwic.Codec(bundle, OnnxRuntimeRunner(bundle))
    assert old.encode(detail) == codec.encode(detail)
    with pytest.raises(BundleError, match=r"lists no gradient\.onnx .* export it"):
        old.encode(detail, effort=1)


def test_on_the_command_line(
    codec: cwic.Codec, detail: Bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "photo.png", tmp_path / "photo.cwic"
    Image.fromarray(detail).save(source)
    main(["encode", str(source), "-o", str(target), "--bpp", "0.5", "--effort", "4"])
    assert target.read_bytes() == codec.encode(detail, bpp=0.5, effort=4)
    with pytest.raises(SystemExit) as stopped:
        main(["encode", str(source), "-o", str(tmp_path / "no.cwic"), "--effort", "-3"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.strip().endswith("use for example 12")
    assert not (tmp_path / "no.cwic").exists()
