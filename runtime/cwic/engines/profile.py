"""The picture sizes that an engine takes: smallest, best and largest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cwic.errors import UsageError

__all__ = ["DEFAULT_SIZES", "Profile", "Shapes"]

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, Shape, Shape]
"""Smallest, best and largest shape of one input."""

DEFAULT_SIZES = ("64x64", "1080x1920", "2160x3840")
_LARGEST_SIDE_PX = 1 << 16
_LARGEST_BATCH = 1 << 10


@dataclass(frozen=True)
class Profile:
    """Sizes as (height, width) in pixels, and pictures a call.

    An engine runs 1 to ``batch`` pictures of any size between ``smallest`` and ``largest``,
    each side for itself, and is tuned for ``batch`` pictures of the size ``best``.
    """

    smallest: tuple[int, int]
    best: tuple[int, int]
    largest: tuple[int, int]
    batch: int = 1

    @classmethod
    def parse(
        cls, sizes: Sequence[str] = DEFAULT_SIZES, *, batch: int = 1, stride: int = 8
    ) -> Profile:
        """From three texts ``HEIGHTxWIDTH``; sides are rounded up to multiples of ``stride``.

        A codec pads pictures in the same way, so nothing that fits before is lost.

        Raises:
            UsageError: a text is no size, the sizes are not in order, or ``batch`` is out of
                range.
        """
        if len(sizes) != 3:
            raise UsageError("a profile has three sizes; give for example 64x64 720x1280 1080x1920")
        if not 1 <= batch <= _LARGEST_BATCH:
            raise UsageError(f"batch {batch} is out of range; use 1 to {_LARGEST_BATCH}")
        smallest, best, largest = (_size(text, stride) for text in sizes)
        if not all(a <= b <= c for a, b, c in zip(smallest, best, largest, strict=True)):
            raise UsageError(
                f"profile {' '.join(sizes)} is not in order; give the smallest, the best and "
                "the largest size, each side at least that of the one before"
            )
        return cls(smallest, best, largest, batch)

    def shapes(self, role: str, channels: int, stride: int) -> dict[str, Shapes]:
        """Shapes of every input of the ``encoder`` or ``decoder`` of a model.

        Args:
            role: which of them.
            channels: of the bytes that the decoder takes.
            stride: pixels per position along each side.
        """
        sizes = (self.smallest, self.best, self.largest)
        batches = (1, self.batch, self.batch)
        pictures = [(b, h, w) for b, (h, w) in zip(batches, sizes, strict=True)]
        if role == "encoder":
            return {"image": _three([(b, h, w, 3) for b, h, w in pictures])}
        grids = [(b, h // stride, w // stride) for b, h, w in pictures]
        return {
            "codes": _three([(b, channels, h, w) for b, h, w in grids]),
            "levels": _three(grids),
        }

    def __str__(self) -> str:
        small, best, large = (f"{h}x{w}" for h, w in (self.smallest, self.best, self.largest))
        return f"{small} to {large}, best at {best}, batch 1 to {self.batch}"


def _three(shapes: Sequence[Shape]) -> Shapes:
    smallest, best, largest = shapes
    return smallest, best, largest


def _size(text: str, stride: int) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if found is None:
        raise UsageError(f"{text!r} is no size; write HEIGHTxWIDTH, for example 1080x1920")
    height, width = (-(-int(side) // stride) * stride for side in found.groups())
    if not (0 < height <= _LARGEST_SIDE_PX and 0 < width <= _LARGEST_SIDE_PX):
        raise UsageError(f"{text} is out of range; use sides of 1 to {_LARGEST_SIDE_PX} pixels")
    return height, width
