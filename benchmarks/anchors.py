"""The classical codecs to stand beside, each as ``encode(picture, setting) -> bytes``."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

__all__ = ["ANCHORS", "Anchor", "available", "decode", "nearest_not_smaller"]


@dataclass(frozen=True)
class Anchor:
    """One codec with its settings from the smallest file to the largest.

    Attributes:
        name: how tables call it.
        settings: values of ``option``, ascending in file size.
        option: Pillow's save option that takes a setting, or a function of it.
        save: the other save options.
        feature: Pillow's name of the library, to know whether it is there.
    """

    name: str
    settings: Sequence[float]
    option: Callable[[float], dict[str, Any]]
    save: dict[str, Any]
    feature: str

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

ANCHORS = (
    Anchor(
        "JPEG",
        range(1, 96),
        _quality,
        {"format": "JPEG", "optimize": True, "subsampling": "4:2:0"},
        "jpg",
    ),
    Anchor("WebP", range(101), _quality, {"format": "WEBP", "method": 6}, "webp"),
    Anchor(
        "JPEG 2000",
        _BPP,
        _rate,
        {"format": "JPEG2000", "irreversible": True, "mct": 1},
        "jpg_2000",
    ),
    Anchor("AVIF", range(10, 96), _quality, {"format": "AVIF", "speed": 6}, "avif"),
)


def available() -> tuple[Anchor, ...]:
    """The anchors whose library this Pillow has."""
    return tuple(a for a in ANCHORS if features.check(a.feature))


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
