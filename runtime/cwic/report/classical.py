"""JPEG and WebP by Pillow, to stand beside cwic."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

__all__ = ["CLASSICAL", "Classical", "Encodings", "available", "decode"]


@dataclass(frozen=True)
class Classical:
    """A codec with one quality setting.

    Attributes:
        name: how tables call it.
        mime: its type in data URLs.
        feature: Pillow's name of its library.
        qualities: all settings that the search may take, from the smallest file up.
        curve: the settings of the rate-distortion plot, ascending.
        save: further options of ``Image.save``.
        options: the same in words.
        largest_side_px: what its format can hold.
    """

    name: str
    mime: str
    feature: str
    qualities: range
    curve: tuple[int, ...]
    save: Mapping[str, Any]
    options: str
    largest_side_px: int


CLASSICAL = (
    Classical(
        "JPEG",
        "image/jpeg",
        "jpg",
        range(1, 96),  # Pillow's documentation advises against more than 95
        (2, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95),
        MappingProxyType({"format": "JPEG", "optimize": True, "subsampling": "4:2:0"}),
        "optimised Huffman tables, 4:2:0",
        65500,
    ),
    Classical(
        "WebP",
        "image/webp",
        "webp",
        range(101),
        (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 100),
        MappingProxyType({"format": "WEBP", "method": 6}),
        "lossy, method 6",
        16383,
    ),
)


def available(width_px: int, height_px: int) -> tuple[Classical, ...]:
    """The codecs that this Pillow has and that can hold a picture of this size."""
    side = max(width_px, height_px)
    return tuple(c for c in CLASSICAL if features.check(c.feature) and side <= c.largest_side_px)


class Encodings:
    """The files of one picture by one codec, each made once.

    Args:
        codec: the codec.
        picture: uint8 [H, W, 3].
    """

    def __init__(self, codec: Classical, picture: NDArray[np.uint8]) -> None:
        self.codec = codec
        self._image = Image.fromarray(picture)
        self.encode = lru_cache(maxsize=None)(self.encode_again)

    def encode_again(self, quality: int) -> bytes:
        """The file at a quality, made anew; ``encode`` remembers what it has made."""
        out = io.BytesIO()
        self._image.save(out, **self.codec.save, quality=quality)
        return out.getvalue()

    def largest_fitting(self, size_bytes: int) -> int:
        """The quality whose file comes nearest to ``size_bytes`` and not above it.

        Bisection: file size grows with quality but for ripples of a few bytes. The lowest
        quality, where even its file is larger.
        """
        qualities = self.codec.qualities
        fitting = bisect_right(qualities, size_bytes, key=lambda q: len(self.encode(q)))
        return qualities[max(0, fitting - 1)]


def decode(data: bytes) -> NDArray[np.uint8]:
    """Pixels of a file that :class:`Encodings` made, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.array(picture.convert("RGB"))
