"""Type names shared by the modules of the runtime."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from cwic.image import Picture

__all__ = ["Box", "EncodeOptions", "ImageLike", "RegionLike"]

ImageLike: TypeAlias = "Image.Image | NDArray[np.uint8] | Picture"
"""What can be encoded: a Pillow image, uint8 [H, W], [H, W, 2..4], or a picture that was read."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; right and bottom are outside."""

RegionLike: TypeAlias = "Image.Image | NDArray[np.uint8] | Sequence[Box]"
"""A region of interest: a grey mask of the picture's size, or boxes."""


class EncodeOptions(TypedDict, total=False):
    """Keyword arguments of :meth:`cwic.Codec.encode`."""

    quality: float | None
    bpp: float | None
    max_bytes: int | None
    psnr_db: float | None
    roi: RegionLike | None
    roi_background: float
    max_pixels: int
    metadata: bool | Collection[str]
    progressive: bool
    effort: int
