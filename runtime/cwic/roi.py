"""Regions of interest: weights that multiply the importance of each position.

A weight of 1 leaves a position's importance as it is, 0 takes all its codes away. At a
byte budget the rate factor rises until the budget is used, so what other positions lose
goes to the region.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cwic.errors import ImageError, UsageError
from cwic.image import open_rgb

if TYPE_CHECKING:
    from cwic.types import Box, RegionLike

__all__ = ["BACKGROUND", "parse_region", "position_weights"]

BACKGROUND = 0.25
"""Weight outside the boxes."""
_BOX = re.compile(r"[-+.\deE]+(,[-+.\deE]+)*")


def parse_region(words: Sequence[str]) -> RegionLike | None:
    """A region from the words of a command line; None for no words.

    Args:
        words: boxes as ``left,top,right,bottom``, or the path of one mask.

    Raises:
        UsageError: several masks, a mask that cannot be read, or a box that is none.
    """
    if not words:
        return None
    if len(words) == 1 and not _BOX.fullmatch(words[0]):
        try:
            return open_rgb(words[0])[..., 0]
        except ImageError as exc:
            raise UsageError(f"--roi is neither a box such as 0,0,99,99 nor a mask: {exc}") from exc
    return [_parsed(word) for word in words]


def _parsed(word: str) -> Box:
    try:
        left, top, right, bottom = (float(part) for part in word.split(","))
    except ValueError as exc:
        raise UsageError(
            f"{word!r} is no box; give left,top,right,bottom in pixels, or one mask alone"
        ) from exc
    return left, top, right, bottom


def position_weights(
    region: RegionLike,
    height_px: int,
    width_px: int,
    stride: int,
    background: float = BACKGROUND,
) -> NDArray[np.float64]:
    """Weights 0..1 of the positions of a picture, [ceil(H / stride), ceil(W / stride)].

    Args:
        region: a mask of the picture's size, grey 0..255 (a Pillow image, or uint8 [H, W]),
            whose mean over a position is its weight; or boxes ``(left, top, right, bottom)``
            in pixels, whose positions have weight 1 as soon as a box touches them.
        height_px, width_px: size of the picture.
        stride: pixels per position along each side.
        background: weight of positions outside all boxes, 0..1.

    Raises:
        UsageError: a mask of another size or type, a box without a pixel of the picture, or a
            background out of range; or a region that keeps nothing of the picture.
    """
    if not 0 <= background <= 1:
        raise UsageError(f"a background of {background} is outside 0..1; use for example 0.25")
    size = -(-height_px // stride), -(-width_px // stride)
    if isinstance(region, Image.Image):
        region = np.asarray(region.convert("L"))
    if isinstance(region, np.ndarray):
        weights = _from_mask(region, height_px, width_px, stride)
    else:
        weights = np.full(size, background)
        for box in region:
            weights[_positions(box, height_px, width_px, stride)] = 1
    if not weights.any():
        raise UsageError("the region of interest is empty; give the picture some weight above 0")
    return weights


def _from_mask(
    mask: NDArray[np.uint8], height_px: int, width_px: int, stride: int
) -> NDArray[np.float64]:
    if mask.dtype != np.uint8 or mask.shape != (height_px, width_px):
        raise UsageError(
            f"the mask is {mask.dtype}{list(mask.shape)} and the picture {width_px}x{height_px} "
            "pixels; make a grey 8-bit mask of the picture's size"
        )
    extra = -height_px % stride, -width_px % stride
    padded = np.pad(mask, ((0, extra[0]), (0, extra[1])), mode="edge")
    high, wide = padded.shape[0] // stride, padded.shape[1] // stride
    means: NDArray[np.float64] = padded.reshape(high, stride, wide, stride).mean(axis=(1, 3))
    return means / 255


def _positions(box: Box, height_px: int, width_px: int, stride: int) -> tuple[slice, slice]:
    try:
        left, top, right, bottom = (float(side) for side in box)
    except (TypeError, ValueError) as exc:
        raise UsageError(f"{box!r} is no box; give four numbers: left, top, right, bottom") from exc
    left, right = max(left, 0.0), min(right, float(width_px))
    top, bottom = max(top, 0.0), min(bottom, float(height_px))
    if not (left < right and top < bottom):
        raise UsageError(
            f"the box {tuple(box)} has no pixel of the {width_px}x{height_px} picture; "
            "give left, top, right, bottom inside it"
        )
    rows = slice(int(top // stride), int(-(-bottom // stride)))
    columns = slice(int(left // stride), int(-(-right // stride)))
    return rows, columns
