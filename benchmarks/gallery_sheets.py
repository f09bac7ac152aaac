"""Sheets of the gallery: panels of 288 pixels, three in a row, a caption of two lines under each.

880 pixels wide, so that a page shows crops pixel by pixel and words at their size. Sheets are
JPEG of quality 90 without chroma subsampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cwic.files import replacing

__all__ = ["BLANK", "CROP_PX", "SMALL_CROP_PX", "Panel", "cropped", "map_of", "overview", "save"]

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]

CROP_PX = 240, 288
"""Height and width of crops that are compared."""
SMALL_CROP_PX = 192, 288
_WIDTH_PX = CROP_PX[1]
_COLUMNS, _GAP_PX, _CAPTION_PX, _FONT_PX = 3, 8, 44, 15
_PAPER, _INK, _SECOND_INK, _FRAME = "white", "black", "#444444", "#ff2020"


@dataclass(frozen=True)
class Panel:
    """A picture at most 288 pixels wide, uint8 [H, W, 3], and the lines under it."""

    pixels: Pixels
    lines: tuple[str, ...]


BLANK = Panel(np.full((1, 1, 3), 255, np.uint8), ())


def cropped(picture: Pixels, box: Box, *lines: str) -> Panel:
    """A part of a picture, pixel by pixel."""
    left, top, right, bottom = box
    return Panel(picture[top:bottom, left:right], lines)


def overview(
    picture: Pixels, frames: Sequence[Box], *lines: str, dim: NDArray[np.bool_] | None = None
) -> Panel:
    """A whole picture, made smaller, with frames around boxes; ``dim`` [H, W] is darkened."""
    pixels = picture if dim is None else np.where(dim[..., None], picture // 2, picture)
    small = _fitting(Image.fromarray(pixels), Image.Resampling.LANCZOS)
    factor = small.width / picture.shape[1]
    draw = ImageDraw.Draw(small)
    for frame in frames:
        box = [min(round(side * factor), limit - 1)
               for side, limit in zip(frame, small.size * 2, strict=True)]  # fmt: skip
        draw.rectangle(box, outline=_FRAME, width=2)
    return Panel(np.asarray(small), lines)


def map_of(values: NDArray[Any], highest: float, *lines: str) -> Panel:
    """Values [h, w] in grey, black 0, white ``highest``, of the size of :func:`overview`."""
    grey = np.minimum(values.astype(np.float64) * 255 / max(1, highest), 255).astype(np.uint8)
    small = _fitting(Image.fromarray(grey).convert("RGB"), Image.Resampling.NEAREST)
    return Panel(np.asarray(small), lines)


def _fitting(picture: Image.Image, resample: Image.Resampling) -> Image.Image:
    """Scaled to the largest size inside 288 x 192."""
    factor = min(_WIDTH_PX / picture.width, SMALL_CROP_PX[0] / picture.height)
    size = round(picture.width * factor), round(picture.height * factor)
    return picture.resize(size, resample)


def save(panels: Sequence[Panel], path: Path) -> None:
    """Write panels as a sheet, row by row; a row is as high as its highest panel."""
    rows = [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    heights = [max(p.pixels.shape[0] for p in row) + _CAPTION_PX + _GAP_PX for row in rows]
    width = _COLUMNS * _WIDTH_PX + (_COLUMNS - 1) * _GAP_PX
    sheet = Image.new("RGB", (width, sum(heights) - _GAP_PX), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        under = y + height - _CAPTION_PX - _GAP_PX
        for column, panel in enumerate(row):
            x = column * (_WIDTH_PX + _GAP_PX)
            high, wide = panel.pixels.shape[:2]
            at = x + (_WIDTH_PX - wide) // 2, under - high
            sheet.paste(Image.fromarray(panel.pixels), at)
            for number, line in enumerate(panel.lines):
                ink = _SECOND_INK if number else _INK
                draw.text((x + 2, under + 3 + 19 * number), line, ink, font)
        y += height
    with replacing(path) as temporary:
        sheet.save(temporary, format="JPEG", quality=90, subsampling="4:4:4", optimize=True)
