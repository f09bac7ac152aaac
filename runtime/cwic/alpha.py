"""Alpha as one section of a stream, without loss.

A section of one byte is a constant alpha. Any other is the number of a filter and a zlib
stream of height x width filtered bytes, by rows. A filter takes differences modulo 256:

0  none                 1  to the row above
2  to the pixel before  3  both, one after the other

What lies outside counts as 0. Over masks, mattes, soft edges and gradients one filter for the
whole picture took fewer bytes than PNG, which has one for each row.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from cwic.errors import CorruptError
from cwic.header import AGAIN

__all__ = ["pack", "unpack"]

_AXES = ((), (0,), (1,), (0, 1))


def pack(alpha: NDArray[np.uint8]) -> bytes:
    """The section of an alpha uint8 [H, W]."""
    if (alpha == alpha[0, 0]).all():
        return bytes([alpha[0, 0]])
    filtered = []
    for axes in _AXES:
        plane = alpha
        for axis in axes:
            plane = np.diff(plane, axis=axis, prepend=np.uint8(0))
        filtered.append(plane.tobytes())
    # zlib's usual effort chooses well enough, in a third of the time.
    number = min(range(len(_AXES)), key=lambda i: len(zlib.compress(filtered[i])))
    return bytes([number]) + zlib.compress(filtered[number], 9)


def unpack(section: bytes, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """The alpha uint8 [H, W] of a section; no more than that is allocated, whatever it holds.

    Raises:
        CorruptError: the section is not what :func:`pack` writes for such a size.
    """
    if len(section) == 1:
        return np.full((height_px, width_px), section[0], np.uint8)
    wanted = height_px * width_px
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(section[1:], wanted + 1)
    except zlib.error as exc:
        raise CorruptError(f"the alpha cannot be decompressed; {AGAIN}") from exc
    ends = inflate.eof and not inflate.unused_data
    if section[0] >= len(_AXES) or len(data) != wanted or not ends:
        raise CorruptError(f"the alpha is not of {width_px}x{height_px} pixels; {AGAIN}")
    alpha = np.frombuffer(data, np.uint8).reshape(height_px, width_px)
    for axis in _AXES[section[0]]:
        alpha = np.cumsum(alpha, axis=axis, dtype=np.uint8)
    return alpha
