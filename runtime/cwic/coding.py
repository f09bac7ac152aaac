"""Codes and levels of a picture to the sections of a stream and back, tile by tile.

No network that sees pixels takes part: this is what any two machines agree on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.blas import one_thread
from cwic.container import Header, Sections, Stream
from cwic.cores import usable_cores
from cwic.entropy_model import Coded, ContextModel, Decoded
from cwic.errors import StreamError, UsageError
from cwic.tiles import Tile, tile_grid

__all__ = ["TILE", "Available", "MapCoder", "Written"]

TILE = 128
"""Longest side of a tile in positions: 1024 pixels."""
_BITS_PER_LANE = 16_384

Bytes: TypeAlias = NDArray[np.uint8]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Written:
    """A coded map.

    Attributes:
        lanes: rANS lanes of each codes section.
        tiles: the sections of every tile, by rows of tiles.
        code_bits: ideal bits of what their codes sections hold.
    """

    lanes: int
    tiles: tuple[Sections, ...]
    code_bits: float


@dataclass(frozen=True)
class Available:
    """What can be read of a stream that was cut or damaged.

    Attributes:
        codes: uint8 [channels, h, w].
        levels: for a decoder network that has no more codes than these, uint8 [h, w].
        wanted: codes of each tile, by its number; None where the levels are lost.
        reached: how many of them were read.
    """

    codes: Bytes
    levels: Bytes
    wanted: tuple[int | None, ...]
    reached: tuple[int, ...]


class MapCoder:
    """Entropy coder of one model.

    Args:
        context: the entropy model.
        threads: tiles that are coded at a time, each on one core (:mod:`cwic.blas`); 0: as many as
            there are cores. Each takes about 50 MiB.
        tile: longest side of a tile that is written, in positions.
    """

    def __init__(self, context: ContextModel, threads: int = 0, tile: int = TILE) -> None:
        if threads < 0:
            raise UsageError(f"{threads} threads cannot code; use 1 or more, or 0 for all cores")
        self.context, self.tile = context, tile
        self.threads = threads or usable_cores()

    @one_thread()
    def write(self, codes: Bytes, levels: Bytes, *, progressive: bool = False) -> Written:
        """Code codes, as decoder networks take them, and levels uint8 [h, w]."""
        grid = tile_grid(levels.shape[0], levels.shape[1], self.tile)

        def model(tile: Tile) -> Coded:
            rows, columns = tile.area
            return self.context.encode(
                codes[:, rows, columns], levels[rows, columns], progressive=progressive
            )

        # One tile says how many lanes all have, so that only the tiles at work are in memory.
        largest = max(grid, key=lambda tile: self._count(levels[tile.area]))
        modelled = model(largest)
        lanes = _lanes(modelled.codes.bits)

        def write(tile: Tile) -> tuple[Sections, float]:
            coded = modelled if tile is largest else model(tile)
            sections = Sections(coded.levels.to_bytes(1), coded.codes.to_bytes(lanes))
            return sections, coded.codes.bits

        tiles = self._map(write, grid)
        code_bits = sum(bits for _, bits in tiles)
        return Written(lanes, tuple(sections for sections, _ in tiles), code_bits)

    @one_thread()
    def read(self, stream: Stream) -> tuple[Bytes, Bytes]:
        """Codes, as decoder networks take them, and levels uint8 [h, w] of a whole stream.

        Raises:
            StreamError: the sections are not what a writer writes.
        """
        header = stream.header
        codes, levels = self._nothing(*header.map_size)

        def read(job: tuple[Tile, Sections]) -> None:
            tile, sections = job
            decoder = rans.Decoder(sections.codes, header.lanes)
            found = self.context.decode_codes(
                decoder, self._levels(*job, header), progressive=header.progressive
            )
            decoder.finish()
            codes[(slice(None), *tile.area)], levels[tile.area] = found.codes, found.levels

        self._map(read, _jobs(stream))
        return codes, levels

    @one_thread()
    def read_available(self, stream: Stream) -> Available:
        """What is intact: a tile whose codes end early keeps its whole passes."""
        codes, shown = self._nothing(*stream.header.map_size)

        def read(job: tuple[Tile, Sections]) -> tuple[int | None, int]:
            tile, sections = job
            try:
                levels = self._levels(tile, sections, stream.header)
            except StreamError:
                return None, 0
            found = self._intact(sections, levels, stream.header)
            codes[(slice(None), *tile.area)] = found.codes
            shown[tile.area] = self.context.codes.shown(found.levels, found.reached)
            return self._count(found.levels), self.context.codes.count(found.reached)

        counts = self._map(read, _jobs(stream))
        return Available(
            codes, shown, tuple(wanted for wanted, _ in counts), tuple(got for _, got in counts)
        )

    def _count(self, levels: Bytes) -> int:
        return self.context.codes.count(self.context.codes.groups_at[levels])

    def _nothing(self, height: int, width: int) -> tuple[Bytes, Bytes]:
        model = self.context.codes
        codes = np.full((model.channels, height, width), model.none, np.uint8)
        return codes, np.zeros((height, width), np.uint8)

    def _intact(self, sections: Sections, levels: Bytes, header: Header) -> Decoded:
        """What can be read; without bytes that no checksum covers where they cannot be right."""
        data, checked = sections.codes, len(sections.codes) - sections.unchecked
        with contextlib.suppress(StreamError):
            return self._begun(data, levels, header, whole=sections.complete)
        if checked < len(data):
            with contextlib.suppress(StreamError):
                return self._begun(data[:checked], levels, header, whole=False)
        codes, reached = self._nothing(*levels.shape)
        return Decoded(codes, levels, reached)

    def _begun(self, data: bytes, levels: Bytes, header: Header, *, whole: bool) -> Decoded:
        """What the beginning of a codes section says.

        Raises:
            StreamError: it says all there is, and is not what a writer writes.
        """
        # A stream of 16-bit words may have been cut in the middle of one.
        odd = (len(data) - rans.head_bytes(header.lanes)) % 2
        decoder = rans.Decoder(data[: len(data) - odd], header.lanes)
        found = self.context.decode_codes(
            decoder, levels, progressive=header.progressive, available=True
        )
        if whole or self._count(found.levels) == self.context.codes.count(found.reached):
            decoder.finish()
        return found

    def _levels(self, tile: Tile, sections: Sections, header: Header) -> Bytes:
        if sections.levels is None:
            raise StreamError("a tile has no levels; fetch or encode it again")
        decoder = rans.Decoder(sections.levels, 1)
        levels = self.context.decode_levels(
            decoder, tile.height, tile.width, progressive=header.progressive
        )
        decoder.finish()
        return levels

    def _map(self, work: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
        """``work`` on every item, in threads where there are several."""
        jobs = list(items)
        if min(self.threads, len(jobs)) == 1:
            return [work(job) for job in jobs]
        with ThreadPoolExecutor(min(self.threads, len(jobs))) as pool:
            return list(pool.map(work, jobs))


def _jobs(stream: Stream) -> list[tuple[Tile, Sections]]:
    height, width = stream.header.map_size
    return list(zip(tile_grid(height, width, stream.header.tile), stream.tiles, strict=True))


def _lanes(bits: float) -> int:
    """More lanes decode faster and cost about four bytes each: one per 2 KiB, up to 64."""
    wanted = max(1, int(bits) // _BITS_PER_LANE)
    return min(64, 1 << (wanted.bit_length() - 1))
