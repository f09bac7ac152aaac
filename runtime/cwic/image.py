"""Pictures in and out: Pillow to uint8 RGB arrays and back, orientation, padding.

What becomes of each Pillow mode:

====================  ============================================================  =========
RGB, RGBX, P          as they are                                                   RGB
L, 1                  three equal channels; decoded to one                          L
I;16*, I              read as 16 bit and rounded to 8 bit, ``(v + 128) // 257``     L
RGBA, RGBa, PA        alpha apart, without loss; RGB as it is, below alpha 0 too    RGBA
LA, La                likewise                                                      LA
RGB, L, P, I with a   that colour gets alpha 0                                      with A
transparent colour
CMYK, YCbCr, HSV,     ``Image.convert("RGB")``; their ICC profile is dropped, for   RGB
LAB                   it describes other channels
F                     refused: its range is unknown
====================  ============================================================  =========

The last column is the mode of the decoded picture. ICC profile, EXIF and XMP are carried as
they are, but for the orientation: it is applied to the pixels and taken out of EXIF and XMP,
as :func:`PIL.ImageOps.exif_transpose` does. Animations are refused; of a JPEG with several
pictures (MPO, as phones write) the first is taken.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cwic.errors import ImageError
from cwic.extras import Extras
from cwic.metadata import from_info, to_info

if TYPE_CHECKING:
    from cwic.types import ImageLike

__all__ = [
    "Canvas",
    "Picture",
    "allow_pixels",
    "as_picture",
    "crop_to",
    "open_picture",
    "open_rgb",
    "pad_to_multiple",
]

_ORIENTATION = 0x0112
_GREY_MODES = ("1", "L", "LA", "La")
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_OTHER_COLOURS = ("CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Picture:
    """A picture as the codec takes it.

    Attributes:
        source: uint8 [H, W, 3], RGB, or a loaded Pillow image without alpha that becomes so
            part by part: pixels of a large picture lie in memory once.
        grey: whether the three channels are equal and one is to be restored.
        extras: alpha and metadata.
    """

    source: NDArray[np.uint8] | Image.Image
    grey: bool = False
    extras: Extras = field(default_factory=Extras)

    @property
    def width_px(self) -> int:
        return self._size[0]

    @property
    def height_px(self) -> int:
        return self._size[1]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All of them, uint8 [H, W, 3]."""
        return self.part(slice(0, self.height_px), slice(0, self.width_px))

    def part(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Pixels of some rows and columns inside the picture, uint8 [h, w, 3]."""
        if isinstance(self.source, np.ndarray):
            return self.source[rows, columns]
        box = columns.start, rows.start, columns.stop, rows.stop
        return np.array(self.source.crop(box).convert("RGB"))

    @property
    def _size(self) -> tuple[int, int]:
        if isinstance(self.source, np.ndarray):
            return int(self.source.shape[1]), int(self.source.shape[0])
        return self.source.size


class Canvas:
    """A picture that is made part by part.

    Args:
        height_px, width_px: its size.
        grey: whether it has one channel, the luma of Pillow's ``convert("L")``.
    """

    def __init__(self, height_px: int, width_px: int, grey: bool) -> None:
        self._image = Image.new("L" if grey else "RGB", (width_px, height_px))

    def write(self, rows: slice, columns: slice, part: NDArray[np.uint8]) -> None:
        """Put pixels, uint8 [h, w, 3], into some rows and columns."""
        piece = Image.fromarray(np.ascontiguousarray(part)).convert(self._image.mode)
        self._image.paste(piece, (columns.start, rows.start))

    def finished(self, extras: Extras) -> Image.Image:
        """The picture with its alpha and metadata: mode L, LA, RGB or RGBA."""
        if extras.alpha is not None:
            self._image.putalpha(Image.fromarray(extras.alpha))
        self._image.info.update(to_info(extras.metadata))
        return self._image


def open_picture(path: str | Path) -> Picture:
    """Read a picture file.

    Raises:
        ImageError: missing, unreadable, animated, too large for Pillow or of mode F.
    """
    try:
        with Image.open(path) as picture:
            _check_pixels(picture)
            return as_picture(picture, name=str(path))
    except FileNotFoundError as exc:
        raise ImageError(f"{path} does not exist; check the path") from exc
    except IsADirectoryError as exc:
        raise ImageError(f"{path} is a folder; name a picture in it") from exc
    except UnidentifiedImageError as exc:
        raise ImageError(f"{path} is not a picture that Pillow can read; convert it first") from exc
    except Image.DecompressionBombError as exc:
        raise ImageError(
            f"{path} has more pixels than Pillow allows; raise PIL.Image.MAX_IMAGE_PIXELS "
            "if you trust the file"
        ) from exc
    except (OSError, SyntaxError, ValueError, EOFError) as exc:
        raise ImageError(f"{path} cannot be read ({exc}); the file may be damaged") from exc


def open_rgb(path: str | Path) -> NDArray[np.uint8]:
    """The pixels of :func:`open_picture` alone, uint8 [H, W, 3]."""
    return open_picture(path).pixels


def allow_pixels(count: int) -> None:
    """Raise Pillow's limit for this whole process, so that files of so many pixels open."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, count)


def _check_pixels(picture: Image.Image) -> None:
    """Refuse what Pillow only warns of: turning warnings into errors is not thread-safe."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise Image.DecompressionBombError(f"more than {limit} pixels")


def as_picture(image: ImageLike, name: str = "the picture") -> Picture:
    """Turn a Pillow image or an array into a picture by the rules of this module.

    Args:
        image: a Pillow image; a uint8 array [H, W], [H, W, 2] (grey and alpha), [H, W, 3] or
            [H, W, 4] (RGB and alpha); or a picture, which is returned.
        name: how errors call it.

    Raises:
        ImageError: it cannot be coded.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image, name)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ImageError(f"{name} is animated; extract one frame first")
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels (mode F); convert it to 8 bit first")
    image = _upright(image)
    metadata = from_info(image)
    if image.mode in _OTHER_COLOURS:
        metadata.pop("icc", None)
    clear = image.info.get("transparency")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        channels = [((wide + 128) // 257).astype(np.uint8)]
        if clear is not None:
            channels.append(np.where(wide == clear, 0, 255).astype(np.uint8))
        array = np.dstack(channels)
    else:
        grey = image.mode in _GREY_MODES
        plain = image.mode not in _ALPHA_MODES and clear is None
        mode = ("L" if grey else "RGB") + ("" if plain else "A")
        try:
            image.crop((0, 0, 1, 1)).convert(mode)
        except ValueError as exc:
            raise ImageError(f"{name} has mode {image.mode} ({exc}); convert it to RGB") from exc
        if plain:
            return Picture(image, grey, Extras(None, metadata))
        array = np.array(image.convert(mode))
    picture = _from_array(array, name)
    return Picture(picture.source, picture.grey, Extras(picture.extras.alpha, metadata))


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image  # the other way copies it
        return ImageOps.exif_transpose(image)
    except (AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error):
        return image  # EXIF that Pillow cannot read is carried, and says nothing


def _from_array(array: NDArray[np.generic], name: str) -> Picture:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            f"{name} is an array of {array.dtype}{list(array.shape)}; "
            "pass uint8 [H, W, 3] or [H, W]"
        )
    if array.ndim == 2:
        array = array[..., None]
    channels = array.shape[2]
    if channels > 4:
        raise ImageError(f"{name} has {channels} channels; pass RGB, uint8 [H, W, 3]")
    grey = channels < 3
    colours, alpha = (array[..., :1], array[..., 1:]) if grey else (array[..., :3], array[..., 3:])
    pixels = np.repeat(colours, 3, axis=2) if grey else colours
    return Picture(
        np.ascontiguousarray(pixels, np.uint8),
        grey,
        Extras(np.ascontiguousarray(alpha[..., 0], np.uint8) if alpha.size else None),
    )


def pad_to_multiple(picture: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Repeat the last row and column until both sides are multiples; [H, W, 3] in and out."""
    height, width = picture.shape[:2]
    extra = (-height % multiple, -width % multiple)
    if extra == (0, 0):
        return picture
    return np.pad(picture, ((0, extra[0]), (0, extra[1]), (0, 0)), mode="edge")


def crop_to(picture: NDArray[np.uint8], height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Undo :func:`pad_to_multiple`: the top left ``height_px`` x ``width_px`` pixels."""
    return np.ascontiguousarray(picture[:height_px, :width_px])
