"""Pictures in and out: Pillow to uint8 RGB arrays and back, orientation, padding.

How each Pillow mode becomes RGB:

===================  ==============================================================
RGB, RGBX            as they are
L, 1, P, CMYK, ...   ``Image.convert("RGB")``
RGBA, LA, PA, and a  composited over white: a codec of three channels has no alpha,
palette with alpha   and white is what a page shows behind a transparent picture
I;16*, I             read as 16 bit and rounded to 8 bit: ``(v + 128) // 257``
F                    refused: its range is unknown
===================  ==============================================================

EXIF orientation is applied to the pixels. Other metadata is not carried.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cwic.errors import ImageError

if TYPE_CHECKING:
    from cwic.types import ImageLike

__all__ = ["as_rgb", "crop_to", "open_rgb", "pad_to_multiple"]

_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")


def open_rgb(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture file as uint8 [H, W, 3].

    Raises:
        ImageError: missing, unreadable, animated, too large for Pillow or of mode F.
    """
    try:
        with Image.open(path) as picture:
            _check_pixels(picture)
            return as_rgb(picture, name=str(path))
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


def _check_pixels(picture: Image.Image) -> None:
    """Refuse what Pillow only warns of: turning warnings into errors is not thread-safe."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise Image.DecompressionBombError(f"more than {limit} pixels")


def as_rgb(image: ImageLike, name: str = "the picture") -> NDArray[np.uint8]:
    """Turn a Pillow image or an array into uint8 [H, W, 3] by the rules of this module.

    Args:
        image: a Pillow image, or a uint8 array [H, W, 3] or [H, W].
        name: how errors call it.
    """
    if isinstance(image, np.ndarray):
        return _array_as_rgb(image, name)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{name} is animated; extract one frame first")
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ImageError(f"{name} has floating-point pixels (mode F); convert it to 8 bit first")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return np.repeat(((wide + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _array_as_rgb(array: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            f"{name} is an array of {array.dtype}{list(array.shape)}; "
            "pass uint8 [H, W, 3] or [H, W]"
        )
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.shape[2] != 3:
        raise ImageError(f"{name} has {array.shape[2]} channels; pass RGB, uint8 [H, W, 3]")
    return np.ascontiguousarray(array, dtype=np.uint8)


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
