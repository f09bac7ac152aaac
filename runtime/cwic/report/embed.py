"""Pictures as data URLs, and maps as heat maps."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

__all__ = ["HEAT", "data_url", "fitted", "heat_url", "lossless_url"]

HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Stops of the heat maps from lowest to highest, RGB; those of viridis."""


def data_url(data: bytes, mime: str) -> str:
    """``data`` as it is."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def fitted(pixels: NDArray[np.uint8], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Shrunk to a size, or the same array if it has that size; uint8 [H, W, 3]."""
    if pixels.shape[:2] == (height_px, width_px):
        return pixels
    small = Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.LANCZOS)
    return np.asarray(small)


def lossless_url(pixels: NDArray[np.uint8]) -> str:
    """uint8 [H, W, 3] without loss: WebP, which is smaller, or PNG where Pillow lacks it."""
    out = io.BytesIO()
    if features.check("webp") and max(pixels.shape[:2]) <= 16383:
        Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=40, method=4)
        return data_url(out.getvalue(), "image/webp")
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return data_url(out.getvalue(), "image/png")


def heat_url(values: NDArray[np.float64]) -> str:
    """A map, [h, w] in 0..1, as a PNG of one pixel per position in the colours of ``HEAT``."""
    steps = np.linspace(0, 1, 256)
    stops = np.linspace(0, 1, len(HEAT))
    palette = np.stack([np.interp(steps, stops, channel) for channel in zip(*HEAT, strict=True)], 1)
    picture = Image.fromarray(np.rint(255 * values.clip(0, 1)).astype(np.uint8), "P")
    picture.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return data_url(out.getvalue(), "image/png")
