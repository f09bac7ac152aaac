"""Layout of a ``.cwic`` stream; FORMAT.md gives every byte.

::

    header | CRC-32 4                                              see cwic.header
    per tile: levels section | CRC-32 4
    ICC profile | CRC-32 4                                         if there is one
    round r = 0, 1, ...: per tile that has it: codes chunk r | CRC-32 4
    alpha | CRC-32 4, EXIF | CRC-32 4, XMP | CRC-32 4              those that there are

A codes section is cut into chunks (:mod:`cwic.chunks`), so that damage costs no more than what
follows it in its tile, and a stream that was cut short has every tile about equally far. Extra
sections are opaque here; :mod:`cwic.metadata` and :mod:`cwic.alpha` have their content. There
is exactly one stream for given sections, and a reader refuses every other: unknown flags,
longer numbers, bytes after the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cwic.chunks import CHUNK_BYTES, chunks
from cwic.errors import CorruptError, StreamError, TruncatedError, UsageError
from cwic.header import (
    AGAIN,
    CRC_BYTES,
    DEFAULT_MAX_PIXELS,
    EXTRAS,
    MAGIC,
    MAX_SIDE_PX,
    STRIDE,
    VERSION,
    Header,
    Layout,
    accepts,
    checked,
    read_header,
    read_layout,
)
from cwic.tiles import tile_count

__all__ = [
    "CHUNK_BYTES",
    "DEFAULT_MAX_PIXELS",
    "EXTRAS",
    "MAGIC",
    "MAX_SIDE_PX",
    "STRIDE",
    "VERSION",
    "Header",
    "Sections",
    "Stream",
    "accepts",
    "read_header",
]


@dataclass(frozen=True)
class Sections:
    """The entropy-coded data of one tile.

    Attributes:
        levels: the levels section; None if it was lost (only in a salvaged stream).
        codes: the codes section, or as much of its beginning as is intact.
        complete: whether nothing of the tile is missing.
        unchecked: bytes at the end of `codes` whose checksum is missing (only of a cut stream).
    """

    levels: bytes | None
    codes: bytes
    complete: bool = True
    unchecked: int = 0


@dataclass(frozen=True)
class Stream:
    """A whole stream.

    Attributes:
        header: its fields.
        tiles: the sections of every tile, by rows of tiles.
        extras: the extra sections that the header names; in a salvaged stream those intact.
    """

    header: Header
    tiles: tuple[Sections, ...]
    extras: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def levels_bytes(self) -> int:
        """Bytes of all levels sections."""
        return sum(len(tile.levels or b"") for tile in self.tiles)

    @property
    def codes_bytes(self) -> int:
        """Bytes of all codes sections."""
        return sum(len(tile.codes) for tile in self.tiles)

    def to_bytes(self) -> bytes:
        """The stream's bytes.

        Raises:
            UsageError: a field is out of range, or the sections are not those of the header.
        """
        self.header.check()
        names = self.header.extras
        levels = [tile.levels for tile in self.tiles if tile.levels is not None and tile.complete]
        whole = (
            len(levels) == len(self.tiles) == tile_count(*self.header.map_size, self.header.tile)
        )
        if not whole or set(names) != set(self.extras):
            raise UsageError("the stream lacks a section; encode the picture again")
        sizes = [len(part) for tile in self.tiles for part in (tile.levels or b"", tile.codes)]
        head = self.header.to_bytes([len(self.extras[name]) for name in names], sizes)
        parts = [head, *levels, *(self.extras[name] for name in names if name == "icc")]
        for tile, start, end in chunks(
            [len(tile.codes) for tile in self.tiles], self.header.progressive
        ):
            parts.append(self.tiles[tile].codes[start:end])
        parts += [self.extras[name] for name in names if name != "icc"]
        return b"".join(part + zlib.crc32(part).to_bytes(CRC_BYTES, "little") for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Stream:
        """Parse a whole stream; nothing is allocated from its numbers before they are checked.

        Args:
            data: the whole stream.
            max_pixels: the largest width x height to accept.

        Raises:
            NotCwicError, VersionError, TruncatedError, CorruptError, LimitError.
        """
        layout = read_layout(data, max_pixels)
        if len(data) < layout.end:
            raise TruncatedError(f"the stream has {len(data)} of {layout.end} bytes; {AGAIN}")
        if len(data) > layout.end:
            raise CorruptError(
                f"{len(data) - layout.end} bytes follow the end of the stream; {AGAIN}"
            )
        return cls._read(data, layout, salvage=False)

    @classmethod
    def salvage(cls, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Stream:
        """Parse what is intact of a stream that was cut or damaged behind its header.

        Args, errors: as :meth:`from_bytes`; what is lost is left out of tiles and extras.
        """
        return cls._read(data, read_layout(data, max_pixels), salvage=True)

    @classmethod
    def _read(cls, data: bytes, layout: Layout, *, salvage: bool) -> Stream:
        tiles = _read_tiles(data, layout, salvage=salvage)
        extras = {}
        for name, (start, size) in layout.extras.items():
            try:
                extras[name] = checked(data, start, size, f"the {EXTRAS[name]}")
            except StreamError:
                if not salvage:
                    raise
        return cls(layout.header, tiles, extras)


def _read_tiles(data: bytes, layout: Layout, *, salvage: bool) -> tuple[Sections, ...]:
    at = layout.start
    levels: list[bytes | None] = []
    for size in layout.levels:
        try:
            levels.append(checked(data, at, size, "a levels section"))
        except StreamError:
            if not salvage:
                raise
            levels.append(None)
        at += size + CRC_BYTES
    at = layout.codes_start
    parts: list[list[bytes]] = [[] for _ in layout.codes]
    broken: set[int] = set()  # what follows a lost chunk cannot be decoded
    unchecked = [0] * len(parts)
    for tile, start, end in chunks(layout.codes, layout.header.progressive):
        if at > len(data):
            break
        try:
            chunk = checked(data, at, end - start, "a codes section")
        except TruncatedError:
            if not salvage:
                raise
            chunk = data[at : at + end - start]  # all that is left of it
            unchecked[tile] = 0 if tile in broken else len(chunk)
        except StreamError:
            if not salvage:
                raise
            broken.add(tile)
        if tile not in broken:
            parts[tile].append(chunk)
        at += end - start + CRC_BYTES
    found = [b"".join(part) for part in parts]
    return tuple(
        Sections(lv, codes, lv is not None and len(codes) == size, tail)
        for lv, codes, size, tail in zip(levels, found, layout.codes, unchecked, strict=True)
    )
