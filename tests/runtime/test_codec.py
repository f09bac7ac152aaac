"""Encode and decode of photographs with the shipped model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import cwic
from cwic import rans
from cwic.container import Stream
from cwic.errors import (
    CorruptError,
    ImageError,
    LimitError,
    ModelMismatchError,
    RateError,
    StreamError,
    UsageError,
)


def psnr(a: object, b: object) -> float:
    error = np.asarray(a, float) - np.asarray(b, float)
    return float(10 * np.log10(255**2 / np.square(error).mean()))


def test_a_photograph_comes_back(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    data = codec.encode(photo, bpp=0.5)
    restored = codec.decode(data)
    assert restored.mode == "RGB"
    assert restored.size == (768, 512)
    assert 8 * len(data) / photo[..., 0].size <= 0.5
    assert psnr(photo, restored) > 29


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (7, 8), (8, 8), (9, 17), (64, 1), (130, 129)])
def test_any_size(codec: cwic.Codec, photo: NDArray[np.uint8], size: tuple[int, int]) -> None:
    picture = photo[200 : 200 + size[0], 200 : 200 + size[1]]
    restored = np.asarray(codec.decode(codec.encode(picture, quality=90)))
    assert restored.shape == picture.shape
    assert psnr(picture, restored) > 20


def test_quality_trades_bytes_for_psnr(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    streams = [codec.encode(photo, quality=q) for q in (1, 30, 60, 100)]
    sizes = [len(s) for s in streams]
    quality = [psnr(photo, codec.decode(s)) for s in streams]
    assert sizes == sorted(sizes)
    assert quality == sorted(quality)
    assert sizes[-1] > 3 * sizes[0]


@pytest.mark.parametrize("bpp", [0.15, 0.3, 0.5, 4])
def test_bpp_is_never_exceeded_and_nearly_used(
    codec: cwic.Codec, photo: NDArray[np.uint8], bpp: float
) -> None:
    result = codec.encode_detailed(photo, bpp=bpp)
    most = codec.encode_detailed(photo, quality=100).bpp
    assert 0.98 * min(bpp, most) < result.bpp <= bpp
    assert result.levels.shape == (64, 96)


def test_a_byte_budget(codec: cwic.Codec, photo: NDArray[np.uint8]) -> None:
    assert 9_000 < len(codec.encode(photo, max_bytes=10_000)) <= 10_000
    with pytest.raises(RateError, match=r"smallest possible is \d+ bytes"):
        codec.encode(photo, max_bytes=10)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50, "bpp": 1},
        {"bpp": 1, "max_bytes": 10},
        {"quality": 0},
        {"bpp": 0},
        {"bpp": -1},
        {"bpp": float("nan")},
        {"max_bytes": 0},
    ],
)
def test_unusable_rates(
    codec: cwic.Codec, small: NDArray[np.uint8], options: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="; (use|give)"):
        codec.encode(small, **options)


def test_pillow_images_and_arrays_give_the_same_bytes(
    codec: cwic.Codec, small: NDArray[np.uint8], stream: bytes
) -> None:
    assert codec.encode(Image.fromarray(small), quality=50) == stream
    assert codec.encode(small) == stream


def test_numpy_coder_gives_the_same_bytes(
    codec: cwic.Codec,
    photo: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if rans.implementation() != "c":
        pytest.skip("cwic._rans is not built")
    by_c = codec.encode(photo, quality=60)
    pixels = np.asarray(codec.decode(by_c))
    monkeypatch.setattr(rans, "_DEFAULT", "numpy")
    assert codec.encode(photo, quality=60) == by_c
    assert np.array_equal(np.asarray(codec.decode(by_c)), pixels)


def test_encoding_is_deterministic_and_thread_safe(
    codec: cwic.Codec, photo: NDArray[np.uint8]
) -> None:
    pieces = [photo[y : y + 96, x : x + 96] for y in (0, 200) for x in (0, 300)]
    alone = [codec.encode(p, quality=40) for p in pieces]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda p: codec.encode(p, quality=40), pieces)) == alone
        restored = list(pool.map(codec.decode, alone))
    for data, picture in zip(alone, restored, strict=True):
        assert np.array_equal(np.asarray(codec.decode(data)), np.asarray(picture))


def test_every_flipped_bit_and_truncation_is_refused(codec: cwic.Codec, stream: bytes) -> None:
    for place in range(8 * len(stream)):
        flipped = bytearray(stream)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(StreamError):
            codec.decode(bytes(flipped))
    for length in range(len(stream)):
        with pytest.raises(StreamError):
            codec.decode(stream[:length])


def test_right_checksums_over_wrong_sections_are_refused(codec: cwic.Codec, stream: bytes) -> None:
    good = Stream.from_bytes(stream)
    for levels, codes in [
        (good.levels[:-2], good.codes),
        (good.levels, good.codes[:-2]),
        (good.levels + b"\0\0", good.codes),
        (good.levels, good.codes + b"\0\0"),
        (b"", good.codes),
        (good.levels, b""),
        (good.codes, good.levels),
    ]:
        with pytest.raises(StreamError):
            codec.decode(Stream(good.header, levels, codes).to_bytes())


def test_random_sections_never_crash(codec: cwic.Codec, stream: bytes) -> None:
    """Damage that the checksums do not see still ends in a picture or a StreamError."""
    good = Stream.from_bytes(stream)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        codes = bytearray(good.codes)
        codes[int(rng.integers(len(codes)))] ^= int(rng.integers(1, 256))
        try:
            codec.decode(Stream(good.header, good.levels, bytes(codes)).to_bytes())
        except CorruptError:
            refused += 1
        except StreamError:
            refused += 1
    assert refused > 50


def test_another_model_is_refused_by_name(codec: cwic.Codec, stream: bytes) -> None:
    good = Stream.from_bytes(stream)
    header = type(good.header)(**{**vars(good.header), "model_id": b"otherone"})
    with pytest.raises(ModelMismatchError, match=f"{b'otherone'.hex()}.*nano.*--model"):
        codec.decode(Stream(header, good.levels, good.codes).to_bytes())


def test_the_pixel_limit(codec: cwic.Codec, stream: bytes, small: NDArray[np.uint8]) -> None:
    pixels = small[..., 0].size
    assert codec.decode(stream, max_pixels=pixels).size == (small.shape[1], small.shape[0])
    with pytest.raises(LimitError, match=f"limit of {pixels - 1}"):
        codec.decode(stream, max_pixels=pixels - 1)


def test_pictures_that_cannot_be_coded(codec: cwic.Codec) -> None:
    with pytest.raises(ImageError):
        codec.encode(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(ImageError):
        codec.encode(Image.new("F", (4, 4)))


def test_encode_refuses_what_decode_would(codec: cwic.Codec, small: NDArray[np.uint8]) -> None:
    pixels = small[..., 0].size
    assert codec.encode(small, max_pixels=pixels)
    with pytest.raises(ImageError, match=f"limit of {pixels - 1}; shrink it, or raise max_pixels"):
        codec.encode(small, max_pixels=pixels - 1)


def test_load_refuses_what_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(cwic.BundleError, match="holds no model.json; pass"):
        cwic.load(tmp_path)
    with pytest.raises(UsageError, match="unknown backend 'warp'; use one of auto, cpu"):
        cwic.load(backend="warp")
