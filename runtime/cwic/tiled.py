"""Networks over large pictures: in parts with overlap, so that memory stays bounded.

A part is run with a margin on the sides where the picture goes on, and the margin is thrown
away. What a decoder makes of a position depends on no more positions around it than the
margin has (6 in `nano`, 7 in `base`, 8 in `nano-signs-deep`), so they fit without a
seam, bit for bit up to the order of additions. Codes are what an encoder decides: any choice
of them is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.backends import Runner
from cwic.image import pad_to_multiple
from cwic.search import improved
from cwic.symbol_model import SymbolModel
from cwic.tiles import Tile, tile_grid

__all__ = ["decode", "encode", "search"]

LARGEST_WHOLE = 1 << 17
"""Positions of the largest picture that is run at once: 8.4 megapixels, about 4K."""
LARGEST_SEARCHED = 1 << 14
"""The same where codes are searched for: a gradient graph needs the sums of all its layers."""
SIDE = 64
"""Longest side of a part in positions: 512 pixels. A network needs about 8 KiB a position."""
MARGIN = 8
"""Positions around a part."""

Read = Callable[[slice, slice], NDArray[np.uint8]]
"""Pixels of some rows and columns, uint8 [h, w, 3]."""
Write = Callable[[slice, slice, NDArray[np.uint8]], None]
"""Takes the pixels of some rows and columns."""


def encode(
    runner: Runner, read: Read, height_px: int, width_px: int, stride: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes uint8 [channels, h, w] and importance uint8 [h, w] of a picture.

    Args:
        runner: of the model.
        read: gives parts of the picture, inside it.
        height_px, width_px: of the picture, any size.
        stride: pixels per position along each side.
    """
    height, width = -(-height_px // stride), -(-width_px // stride)
    codes = np.empty((0, height, width), np.uint8)
    importance = np.empty((height, width), np.uint8)
    parts = _parts(height, width, LARGEST_WHOLE)
    for tile in parts:
        wide = _with_margin(tile, height, width)
        part = _read(read, wide, height_px, width_px, stride)
        own_codes, own_importance = (array[0] for array in runner.encode(part[None]))
        if not len(codes):
            codes = np.empty((len(own_codes), height, width), np.uint8)
        inner = _inside(tile, wide)
        codes[(slice(None), *tile.area)] = own_codes[(slice(None), *inner)]
        importance[tile.area] = own_importance[inner]
    if len(parts) > 1:
        runner.release()  # the picture is large, and entropy coding needs memory too
    return codes, importance


def decode(
    runner: Runner,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    write: Write,
    height_px: int,
    width_px: int,
    stride: int,
) -> None:
    """The picture of codes uint8 [channels, h, w] and levels uint8 [h, w], part by part."""
    height, width = levels.shape
    for tile in _parts(height, width, LARGEST_WHOLE):
        wide = _with_margin(tile, height, width)
        rows, columns = wide.area
        part = runner.decode(codes[:, rows, columns][None], levels[rows, columns][None])[0]
        inner_rows, inner_columns = (_pixels(s, stride) for s in _inside(tile, wide))
        rows, columns = (_pixels(positions, stride) for positions in tile.area)
        rows, columns = _cut(rows, height_px), _cut(columns, width_px)
        kept = part[inner_rows, inner_columns][: rows.stop - rows.start]
        write(rows, columns, kept[:, : columns.stop - columns.start])


def search(
    runner: Runner,
    model: SymbolModel[Any, Any],
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    read: Read,
    height_px: int,
    width_px: int,
    stride: int,
    *,
    rounds: int,
    keep_levels: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Better codes and levels, see :func:`cwic.search.improved`, part by part.

    A part sees what was found for those before it.
    """
    codes, levels = codes.copy(), levels.copy()
    height, width = levels.shape
    parts = _parts(height, width, LARGEST_SEARCHED)
    for tile in parts:
        wide = _with_margin(tile, height, width)
        inner = _inside(tile, wide)
        movable = np.zeros((wide.height, wide.width), bool)
        movable[inner] = True
        part_codes, part_levels = improved(
            runner,
            model,
            codes[(slice(None), *wide.area)],
            levels[wide.area],
            _read(read, wide, height_px, width_px, stride),
            rounds=rounds,
            movable=movable,
            keep_levels=keep_levels,
        )
        codes[(slice(None), *tile.area)] = part_codes[(slice(None), *inner)]
        levels[tile.area] = part_levels[inner]
    if len(parts) > 1:
        runner.release()
    return codes, levels


def _read(read: Read, tile: Tile, height_px: int, width_px: int, stride: int) -> NDArray[np.uint8]:
    """The pixels of a tile of positions, continued beyond the picture."""
    rows, columns = (_pixels(positions, stride) for positions in tile.area)
    return pad_to_multiple(read(_cut(rows, height_px), _cut(columns, width_px)), stride)


def _parts(height: int, width: int, largest: int) -> list[Tile]:
    if height * width <= largest:
        return [Tile(0, 0, height, width)]
    return tile_grid(height, width, SIDE)


def _with_margin(tile: Tile, height: int, width: int) -> Tile:
    top, left = max(0, tile.top - MARGIN), max(0, tile.left - MARGIN)
    bottom = min(height, tile.top + tile.height + MARGIN)
    right = min(width, tile.left + tile.width + MARGIN)
    return Tile(top, left, bottom - top, right - left)


def _inside(tile: Tile, wide: Tile) -> tuple[slice, slice]:
    """Where ``tile`` lies in ``wide``."""
    return Tile(tile.top - wide.top, tile.left - wide.left, tile.height, tile.width).area


def _pixels(positions: slice, stride: int) -> slice:
    return slice(positions.start * stride, positions.stop * stride)


def _cut(pixels: slice, side_px: int) -> slice:
    return slice(pixels.start, min(pixels.stop, side_px))
