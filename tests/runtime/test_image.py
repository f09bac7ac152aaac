"""Every Pillow mode by the stated rule, what is carried, sizes, orientation, damage."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from cwic.errors import ImageError
from cwic.extras import Extras
from cwic.image import (
    Canvas,
    Picture,
    as_picture,
    crop_to,
    open_picture,
    open_rgb,
    pad_to_multiple,
)
from cwic.metadata import save_options, to_info


def as_rgb(image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
    return as_picture(image).pixels


def _restored(picture: Picture) -> Image.Image:
    """The picture put together again from two parts."""
    canvas = Canvas(picture.height_px, picture.width_px, picture.grey)
    columns = slice(0, picture.width_px)
    for rows in (slice(1, picture.height_px), slice(0, 1)):
        canvas.write(rows, columns, picture.part(rows, columns))
    return canvas.finished(picture.extras)


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
        ("RGBX", (10, 20, 30, 40), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30, 255]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30, 0]),
        ("RGBa", (5, 10, 15, 128), [9, 19, 29, 128]),
        ("LA", (7, 0), [7, 7, 7, 0]),
        ("LA", (9, 255), [9, 9, 9, 255]),
        ("La", (8, 128), [15, 15, 15, 128]),
        ("I;16", 0, [0, 0, 0]),
        ("I;16", 65535, [255, 255, 255]),
        ("I;16", 257 * 100 + 128, [100, 100, 100]),
        ("I;16", 257 * 100 + 129, [101, 101, 101]),
        ("I", 257 * 3, [3, 3, 3]),
        ("I", 70000, [255, 255, 255]),
    ],
)
def test_modes(mode: str, value: object, expected: list[int]) -> None:
    picture = as_picture(Image.new(mode, (2, 3), value))
    alpha = picture.extras.alpha
    assert picture.pixels[0, 0].tolist() == expected[:3]
    assert (alpha is None) == (len(expected) == 3)
    assert alpha is None or (alpha == expected[3]).all()
    assert picture.grey == (mode[0] in "1LI")
    assert picture.pixels.shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("mode", "value", "clear", "restored"),
    [
        ("L", 7, 7, "LA"),
        ("1", 1, 255, "LA"),
        ("RGB", (1, 2, 3), (1, 2, 3), "RGBA"),
        ("I;16", 700, 700, "LA"),
    ],
)
def test_a_transparent_colour_becomes_alpha(
    mode: str, value: object, clear: object, restored: str
) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((0, 0), value)
    image.info["transparency"] = clear
    picture = as_picture(image)
    assert picture.extras.alpha is not None
    assert picture.extras.alpha.tolist() == [[0, 255]]
    assert _restored(picture).mode == restored


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_a_picture_becomes_an_image_again(mode: str, photo: NDArray[np.uint8]) -> None:
    image = Image.fromarray(photo[:40, :50]).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(photo[100:140, :50, 0]))
    picture = as_picture(image)
    restored = _restored(picture)
    assert restored.mode == mode
    assert np.array_equal(np.asarray(restored), np.asarray(image))
    assert as_picture(picture) is picture


def test_palettes_with_and_without_transparency(photo: NDArray[np.uint8]) -> None:
    palette = Image.fromarray(photo[:64, :64]).quantize(16)
    assert np.array_equal(as_rgb(palette), np.array(palette.convert("RGB")))
    index = int(np.asarray(palette)[0, 0])
    out = io.BytesIO()
    palette.save(out, format="PNG", transparency=index)
    clear = as_picture(Image.open(io.BytesIO(out.getvalue())))
    assert np.array_equal(clear.pixels, np.array(palette.convert("RGB")))
    assert clear.extras.alpha is not None
    assert np.array_equal(clear.extras.alpha == 0, np.asarray(palette) == index)
    assert not clear.grey


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
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright.copy()
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    xmp = b'<x tiff:Orientation="%d" dc:title="a"/>' % orientation
    stored.putalpha(stored.getchannel("G"))
    stored.save(tmp_path / "turned.webp", exif=exif, xmp=xmp, lossless=True, exact=True)
    picture = open_picture(tmp_path / "turned.webp")
    assert np.array_equal(picture.pixels, np.asarray(upright))
    assert np.array_equal(picture.extras.alpha, np.asarray(upright)[..., 1])
    carried = Image.Exif()
    carried.load(picture.extras.metadata["exif"])
    assert carried.get(0x0112, 1) == 1
    assert carried[0x010F] == "a maker"
    assert b'dc:title="a"' in picture.extras.metadata["xmp"]
    assert (b"Orientation" in picture.extras.metadata["xmp"]) == (orientation == 1)


ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_metadata_is_carried_as_it_is(kind: str, photo: NDArray[np.uint8], tmp_path: Path) -> None:
    """From a file and into a file again."""
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"Pillow without {kind}")
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    metadata = {"icc": ICC, "exif": exif.tobytes()[6:], "xmp": b"<x:xmpmeta/>"}
    source = Image.fromarray(photo[:16, :16])
    source.info = to_info(metadata)
    path = tmp_path / "picture"
    source.save(path, format=kind, **save_options(source, kind))
    picture = open_picture(path)
    assert picture.extras.metadata == metadata
    restored = _restored(picture)
    assert restored.info == source.info
    restored.save(path, format=kind, **save_options(restored, kind))
    assert open_picture(path).extras.metadata == metadata


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGB", "L", "RGBA"])
def test_the_profile_of_other_channels_is_dropped(mode: str) -> None:
    image = Image.new(mode, (2, 2))
    image.info["icc_profile"] = ICC
    image.info["xmp"] = b"<x/>"
    kept = {"icc", "xmp"} if mode in ("RGB", "L", "RGBA") else {"xmp"}
    assert as_picture(image).extras.metadata.keys() == kept


@pytest.mark.parametrize(
    "exif", [b"?", b"Exif\0\0", b"Exif\0\0II", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff"]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_exif_that_cannot_be_read_is_carried_and_ignored(exif: bytes) -> None:
    image = Image.new("RGB", (2, 3))
    image.info["exif"] = exif
    picture = as_picture(image)
    assert picture.pixels.shape == (3, 2, 3)
    assert picture.extras.metadata.get("exif", b"") == exif.removeprefix(b"Exif\0\0")


def test_what_is_no_metadata_is_left_out() -> None:
    image = Image.new("RGB", (2, 3))
    image.info |= {"icc_profile": None, "exif": Image.Exif(), "xmp": b"", "dpi": (72, 72)}
    assert as_picture(image).extras.metadata == {}


def test_arrays() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(as_rgb(grey), np.dstack([grey] * 3))
    for channels in (2, 3, 4):
        array = np.arange(6 * channels, dtype=np.uint8).reshape(2, 3, channels)
        picture = as_picture(array)
        assert picture.grey == (channels == 2)
        alpha = picture.extras.alpha
        assert (alpha is None) == (channels == 3)
        assert alpha is None or np.array_equal(alpha, array[..., -1])
        assert (picture.pixels == (array[..., :1] if channels == 2 else array[..., :3])).all()
    assert as_picture(grey).grey
    view = np.zeros((4, 6, 3), np.uint8)[:, ::2]
    assert as_rgb(view).flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 5), np.uint8),
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


def test_the_pixels_alone(photo_path: Path, photo: NDArray[np.uint8]) -> None:
    assert np.array_equal(open_rgb(photo_path), photo)
    assert open_picture(photo_path).extras == Extras() == Picture(photo).extras


def test_pillows_pixel_limit_is_honoured(photo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        open_rgb(photo_path)


def test_parts_of_a_picture_are_its_pixels(photo_path: Path, photo: NDArray[np.uint8]) -> None:
    for picture in (open_picture(photo_path), Picture(photo)):
        assert (picture.width_px, picture.height_px) == (768, 512)
        assert np.array_equal(picture.part(slice(3, 70), slice(700, 768)), photo[3:70, 700:])
        assert np.array_equal(picture.pixels, photo)


def test_a_large_picture_is_not_copied(photo_path: Path) -> None:
    with Image.open(photo_path) as image:
        assert as_picture(image).source is image


def test_of_several_pictures_in_a_jpeg_the_first_is_taken(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (40, 30), c) for c in ("red", "blue"))
    first.save(tmp_path / "two.mpo", format="MPO", save_all=True, append_images=[second])
    (tmp_path / "two.mpo").rename(tmp_path / "two.jpg")
    red = open_rgb(tmp_path / "two.jpg")
    assert red.shape == (30, 40, 3)
    assert red[..., 0].min() > 200
    assert red[..., 2].max() < 60
