"""Every Pillow mode becomes RGB by the stated rule; sizes, orientation, damage."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cwic.errors import ImageError
from cwic.image import as_rgb, crop_to, open_rgb, pad_to_multiple


def pixel(mode: str, value: object) -> list[int]:
    return as_rgb(Image.new(mode, (2, 3), value))[0, 0].tolist()


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("L", 77, [77, 77, 77]),
        ("1", 1, [255, 255, 255]),
        ("1", 0, [0, 0, 0]),
        ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("YCbCr", (128, 128, 128), [128, 128, 128]),
        ("HSV", (0, 0, 200), [200, 200, 200]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 128), [127, 127, 127]),
        ("LA", (0, 0), [255, 255, 255]),
        ("LA", (9, 255), [9, 9, 9]),
        ("I;16", 0, [0, 0, 0]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 257 * 100 + 128, [100, 100, 100]),
        ("I;16", 257 * 100 + 129, [101, 101, 101]),
        ("I", 257 * 3, [3, 3, 3]),
        ("I", 70000, [255, 255, 255]),
    ],
)
def test_modes(mode: str, value: object, expected: list[int]) -> None:
    assert pixel(mode, value) == expected


def test_palettes_with_and_without_transparency(photo: NDArray[np.uint8]) -> None:
    palette = Image.fromarray(photo[:64, :64]).quantize(16)
    assert np.array_equal(as_rgb(palette), np.array(palette.convert("RGB")))
    index = int(np.asarray(palette)[0, 0])
    out = io.BytesIO()
    palette.save(out, format="PNG", transparency=index)
    clear = as_rgb(Image.open(io.BytesIO(out.getvalue())))
    hole = np.asarray(palette) == index
    assert (clear[hole] == 255).all()
    assert np.array_equal(clear[~hole], np.array(palette.convert("RGB"))[~hole])


def test_floats_and_animations_are_refused() -> None:
    with pytest.raises(ImageError, match="mode F.*convert it"):
        as_rgb(Image.new("F", (2, 2)))
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, format="GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="animated.*extract one frame"):
        as_rgb(Image.open(io.BytesIO(out.getvalue())))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    orientation: int, photo: NDArray[np.uint8], tmp_path: Path
) -> None:
    upright = Image.fromarray(photo[100:140, 100:164])
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(open_rgb(tmp_path / "turned.png"), np.asarray(upright))


def test_arrays() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(as_rgb(grey), np.dstack([grey] * 3))
    view = np.zeros((4, 6, 3), np.uint8)[:, ::2]
    assert as_rgb(view).flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((2,), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(array: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match="pass "):
        as_rgb(array)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 9), (16, 1), (17, 23)])
def test_padding_repeats_the_edge_and_comes_off(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    padded = pad_to_multiple(picture, 8)
    assert padded.shape[0] % 8 == padded.shape[1] % 8 == 0
    assert padded.shape[0] - size[0] < 8
    assert padded.shape[1] - size[1] < 8
    assert (padded[size[0] :, : size[1]] == picture[-1]).all()
    assert (padded[: size[0], size[1] :] == picture[:, -1:]).all()
    assert np.array_equal(crop_to(padded, *size), picture)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated"])
def test_unreadable_files_are_named(kind: str, photo_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    content = {
        "empty": b"",
        "text": b"not a picture",
        "truncated": photo_path.read_bytes()[:5000],
    }
    if kind in content:
        path.write_bytes(content[kind])
    with pytest.raises(ImageError, match=r"broken\.png .*; ") as error:
        open_rgb(path)
    assert "\n" not in str(error.value)


def test_pillows_pixel_limit_is_honoured(photo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        open_rgb(photo_path)
