"""Where the bits of a stream went: by section and by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cwic.codec import Codec
from cwic.container import Stream
from cwic.level_model import Intervals
from cwic.scan import PASSES
from cwic.tiles import tile_grid

__all__ = ["Spending", "spending"]


@dataclass(frozen=True)
class Spending:
    """What a stream is made of.

    Attributes:
        sections: bytes by name; they sum to the file.
        position_bits: bits that the entropy model spent on level and codes of each position,
            float [h/8, w/8]; without headers, checksums and the coder's rounding. For a
            progressive stream, those of a plain one with the same levels: nearly the same.
        tiles: number of tiles.
    """

    sections: dict[str, int]
    position_bits: NDArray[np.float64]
    tiles: int


def spending(codec: Codec, data: bytes, max_pixels: int) -> Spending:
    """Take a stream of ``codec`` apart.

    Args:
        codec: the codec that made it.
        data: the stream.
        max_pixels: as in :meth:`Codec.decode`.

    Raises:
        StreamError: it is damaged.
    """
    stream = Stream.from_bytes(data, max_pixels)
    sections = {"levels": stream.levels_bytes, "codes": stream.codes_bytes}
    if stream.extras:
        sections["metadata"] = sum(len(section) for section in stream.extras.values())
    rest = len(data) - sum(sections.values())
    codes, levels = codec.read_codes(stream)
    bits = np.empty(levels.shape)
    for tile in tile_grid(levels.shape[0], levels.shape[1], stream.header.tile):
        rows, columns = tile.area
        bits[rows, columns] = _tile_bits(codec, codes[:, rows, columns], levels[rows, columns])
    return Spending({"header and checksums": rest, **sections}, bits, len(stream.tiles))


def _tile_bits(
    codec: Codec, codes: NDArray[np.uint8], levels: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Symbols of levels come in the order of coding; here each finds back to its position."""
    order = np.concatenate([scan.positions(*levels.shape) for scan in PASSES])
    bits = codec.context.codes.position_bits(codes, levels)
    bits[order] += _cost(codec.context.levels.encode(levels))
    return bits.reshape(levels.shape)


def _cost(symbols: Intervals) -> NDArray[np.float64]:
    cost: NDArray[np.float64] = 16 - np.log2(symbols.freqs.astype(np.float64))
    return cost
