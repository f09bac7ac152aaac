"""The classical codecs to stand beside, each as ``encode(picture, setting) -> bytes``."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "ANCHORS",
    "Anchor",
    "available",
    "decode",
    "largest_not_larger",
    "nearest_not_smaller",
]


@dataclass(frozen=True)
class Anchor:
    """One codec with its settings from the smallest file to the largest.

    Attributes:
        name: how tables call it.
        settings: values of ``option``, ascending in file size.
        option: Pillow's save option that takes a setting, or a function of it.
        save: the other save options.
        points: settings that a curve is made of.
    """

    name: str
    settings: Sequence[float]
    option: Callable[[float], dict[str, Any]]
    save: dict[str, Any]
    points: Sequence[float]

    def encode(self, picture: NDArray[np.uint8], setting: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, **self.save, **self.option(setting))
        return out.getvalue()


def _quality(value: float) -> dict[str, Any]:
    return {"quality": int(value)}


def _rate(value: float) -> dict[str, Any]:
    # OpenJPEG takes compression ratios; 24 bits a pixel before, `value` after.
    return {"quality_mode": "rates", "quality_layers": [24 / value]}


_BPP = [0.05 * 1.08**i for i in range(52)]

_JPEG = {"format": "JPEG", "optimize": True}
_JPEG_POINTS = (5, 10, 15, 20, 30, 45, 60, 75, 88)
_RATES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3)

ANCHORS = (
    Anchor("JPEG", range(1, 96), _quality, {**_JPEG, "subsampling": "4:2:0"}, _JPEG_POINTS),
    Anchor(
        "JPEG 4:4:4", range(1, 96), _quality, {**_JPEG, "subsampling": "4:4:4"}, _JPEG_POINTS[1::2]
    ),
    Anchor(
        "WebP",
        range(101),
        _quality,
        {"format": "WEBP", "method": 6},
        (0, 10, 22, 36, 50, 65, 78, 88),
    ),
    Anchor(
        "JPEG 2000",
        _BPP,
        _rate,
        {"format": "JPEG2000", "irreversible": True, "mct": 1},
        _RATES,
    ),
    Anchor("JPEG 2000 defaults", _BPP, _rate, {"format": "JPEG2000"}, _RATES[1::2]),
    Anchor(
        "AVIF",
        range(10, 96),
        _quality,
        {"format": "AVIF", "speed": 6},
        (15, 27, 39, 51, 63, 75, 85),
    ),
    Anchor(
        "JPEG XL",
        range(1, 96),
        _quality,
        {"format": "JXL"},
        (1, 8, 18, 30, 45, 60, 75, 85),
    ),
)
"""JPEG is Pillow's with optimised tables; JPEG 2000 is OpenJPEG with the 9/7 wavelet and a colour
transform, and with Pillow's defaults, which are those of the library (5/3, none)."""


def available() -> tuple[Anchor, ...]:
    """The anchors that this Pillow can write; its plug-in for JPEG XL is a package of its own."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")
    Image.init()
    return tuple(a for a in ANCHORS if a.save["format"] in Image.SAVE and _works(a))


def _works(anchor: Anchor) -> bool:
    try:
        anchor.encode(np.zeros((16, 16, 3), np.uint8), anchor.points[0])
    except (OSError, ValueError):
        return False
    return True


def decode(data: bytes) -> NDArray[np.uint8]:
    """Pixels of an anchor's file, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.array(picture.convert("RGB"))


def nearest_not_smaller(anchor: Anchor, picture: NDArray[np.uint8], size_bytes: int) -> bytes:
    """The anchor's smallest file of at least ``size_bytes``, or its largest if none is.

    Bisection over the settings: file sizes ascend with them, up to ripples of a few bytes.
    """
    low, high = 0, len(anchor.settings) - 1
    best = anchor.encode(picture, anchor.settings[high])
    while low < high:
        middle = (low + high) // 2
        data = anchor.encode(picture, anchor.settings[middle])
        if len(data) >= size_bytes:
            best, high = data, middle
        else:
            low = middle + 1
    return best


def largest_not_larger(anchor: Anchor, picture: NDArray[np.uint8], size_bytes: int) -> bytes:
    """The anchor's largest file of at most ``size_bytes``, or its smallest if none is.

    Bisection, as :func:`nearest_not_smaller`.
    """
    low, high = 0, len(anchor.settings) - 1
    best = anchor.encode(picture, anchor.settings[low])
    while low < high:
        middle = (low + high + 1) // 2
        data = anchor.encode(picture, anchor.settings[middle])
        if len(data) <= size_bytes:
            best, low = data, middle
        else:
            high = middle - 1
    return best
