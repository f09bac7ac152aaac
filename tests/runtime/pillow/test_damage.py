"""The Pillow plug-in: damaged files, and pictures that are too large."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError
from tests.runtime.pillow.files import XMP, opened

import cwic
from cwic import pillow_plugin
from cwic.codec import Codec
from cwic.container import Header, Stream
from cwic.pillow_plugin import CwicImageFile


@pytest.mark.parametrize("data", [b"\x89CWC", b"\x89CWC\6", b"\x89CWC\6" + bytes(50), b""])
def test_no_header(data: bytes) -> None:
    with pytest.raises(UnidentifiedImageError):
        opened(data)


def test_invalid_file(photo_path: Path) -> None:
    with photo_path.open("rb") as fp, pytest.raises(SyntaxError, match="not a .cwic stream"):
        CwicImageFile(fp)


@pytest.mark.parametrize("version", [4, 5, 7])
def test_another_version_is_named(stream: bytes, version: int) -> None:
    with (
        pytest.warns(UserWarning, match="another version; install"),
        pytest.raises(UnidentifiedImageError),
    ):
        opened(stream[:4] + bytes([version]) + stream[5:])


def test_every_truncation(rgba: bytes) -> None:
    """Not identified, or no pixels: an OSError each time."""
    for length in range(0, len(rgba), 7):
        with pytest.raises(OSError, match="cannot identify|; fetch or encode it again"):
            opened(rgba[:length]).load()


def test_flipped_bits(rgba: bytes) -> None:
    for place in range(5 * 8, 8 * len(rgba), 173):
        bad = bytearray(rgba)
        bad[place // 8] ^= 1 << place % 8
        try:
            picture = opened(bytes(bad))
        except (UnidentifiedImageError, Image.DecompressionBombError):
            continue
        with pytest.raises(OSError, match="; fetch or encode it again"):
            picture.verify()
        with pytest.raises(OSError, match="; fetch or encode it again") as error:
            opened(bytes(bad)).load()
        assert isinstance(error.value.__cause__, cwic.StreamError)


def test_verify_needs_no_model(rgba: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_plugin, "_models", None)
    opened(rgba).verify()


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_truncated_images_may_be_loaded(
    codec: Codec, rgba: bytes, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    data = rgba[: int(len(rgba) * share)]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    picture = opened(data)
    expected = codec.salvage(data).image
    assert picture.mode == expected.mode == "RGBA"
    assert np.array_equal(np.asarray(picture), np.asarray(expected))
    assert picture.info == expected.info


def test_damage_to_metadata_is_found_when_loading(rgba: bytes) -> None:
    start = rgba.index(XMP)
    picture = opened(rgba[:start] + b"?" + rgba[start + 1 :])
    assert picture.info.keys() == {"icc_profile", "exif"}
    with pytest.raises(OSError, match="the XMP does not match its checksum"):
        picture.load()


def test_another_model_is_named(codec: Codec, stream: bytes) -> None:
    good = Stream.from_bytes(stream)
    header = Header(137, 103, b"otherone", 50, 1, 128)
    with pytest.raises(OSError, match=f"made by model {b'otherone'.hex()}"):
        opened(Stream(header, good.tiles).to_bytes()).load()


def test_bytes_behind_the_stream_are_not_looked_at(stream: bytes) -> None:
    """As with Pillow's other formats, and however many there are."""
    assert np.array_equal(np.asarray(opened(stream + b"\0" * 99)), np.asarray(opened(stream)))


def test_max_image_pixels(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = 137 * 103
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(stream)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        opened(stream).load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels // 2 - 1)
    with pytest.raises(Image.DecompressionBombError, match="137x103 pixels.*MAX_IMAGE_PIXELS"):
        opened(stream)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    opened(stream).load()


def test_a_bomb_is_refused_before_its_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"\x89CWC\6\0modelid!\x32\0" + b"\xff\xff\xff\x07" * 2
    with pytest.raises(Image.DecompressionBombError):
        opened(head + b"\1" * (1 << 20))


def test_cwics_own_limit_gives_way_to_pillows(
    codec: Codec, stream: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow allows 2^26.4 pixels, the codec 2^25 unless told: the plug-in tells it."""
    seen = []
    decode = codec.decode

    def watched(data: bytes, *, max_pixels: int) -> Image.Image:
        seen.append(max_pixels)
        return decode(data, max_pixels=max_pixels)

    monkeypatch.setattr(codec, "decode", watched)
    opened(stream).load()
    assert seen[0] > 2 * (Image.MAX_IMAGE_PIXELS or 0)
