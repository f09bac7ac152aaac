"""Layout of a ``.cwic`` stream; FORMAT.md gives every byte.

::

    magic 4 | version 1 | coder 1 | model_id 8 | quality 1 | width | height |
    per tile: levels size, codes size | CRC-32 4                            the header
    per tile: levels section | CRC-32 4
    round r = 0, 1, ...: per tile that has it: codes chunk r | CRC-32 4

``width``, ``height`` and the sizes are LEB128 numbers in their shortest form. All other
numbers are little endian. A codes section is cut into chunks of 4096 bytes, so that a stream
that was cut short still decodes, checked, up to its last whole chunk, every tile about
equally far. There is exactly one stream for a given content, and a reader refuses every
other: unknown flags, longer numbers, bytes after the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cwic.bundle import MODEL_ID_BYTES
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    StreamError,
    TruncatedError,
    UsageError,
    VersionError,
)
from cwic.tiles import tile_count

__all__ = [
    "CHUNK_BYTES",
    "DEFAULT_MAX_PIXELS",
    "MAGIC",
    "MAX_SIDE_PX",
    "VERSION",
    "Header",
    "Sections",
    "Stream",
    "accepts",
    "read_header",
]

MAGIC = b"\x89CWC"
VERSION = 2
MAX_SIDE_PX = (1 << 24) - 1
DEFAULT_MAX_PIXELS = 1 << 25
CHUNK_BYTES = 4096
STRIDE = 8
_SMALLEST_TILE = 16
_LARGEST_TILE = _SMALLEST_TILE << 7
_MAX_SECTION = (1 << 31) - 1
_FIXED = len(MAGIC) + 2 + MODEL_ID_BYTES + 1
_CRC = 4
_AGAIN = "fetch or encode it again"


@dataclass(frozen=True)
class Header:
    """What a stream says before its sections.

    Attributes:
        width_px, height_px: size of the picture, 1..2**24 - 1 each.
        model_id: the model that made it, 8 bytes.
        quality: 1..100, the quality nearest to its rate; informative.
        lanes: rANS lanes of each codes section, a power of two 1..64.
        tile: longest side of a tile in positions of 8 pixels, a power of two 16..2048.
    """

    width_px: int
    height_px: int
    model_id: bytes
    quality: int
    lanes: int
    tile: int

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width in positions."""
        return -(-self.height_px // STRIDE), -(-self.width_px // STRIDE)

    def _to_bytes(self, sizes: Sequence[int]) -> bytes:
        coder = (self.lanes.bit_length() - 1) | (self.tile // _SMALLEST_TILE).bit_length() - 1 << 3
        head = MAGIC + bytes([VERSION, coder]) + self.model_id + bytes([self.quality])
        numbers = (self.width_px, self.height_px, *sizes)
        return head + b"".join(_number(number) for number in numbers)

    def _check(self) -> None:
        if not (1 <= self.width_px <= MAX_SIDE_PX and 1 <= self.height_px <= MAX_SIDE_PX):
            raise UsageError(
                f"{self.width_px}x{self.height_px} pixels do not fit the format; "
                f"cut the picture into parts of at most {MAX_SIDE_PX} a side"
            )
        powers = (self.lanes, 1, 64), (self.tile, _SMALLEST_TILE, _LARGEST_TILE)
        for value, low, high in powers:
            if not low <= value <= high or value & (value - 1):
                raise UsageError(f"{value} is not a power of two from {low} to {high}; choose one")


@dataclass(frozen=True)
class Sections:
    """The entropy-coded data of one tile.

    Attributes:
        levels: the levels section; None if it was lost (only in a salvaged stream).
        codes: the codes section, or as much of its beginning as is intact.
        complete: whether nothing of the tile is missing.
    """

    levels: bytes | None
    codes: bytes
    complete: bool = True


@dataclass(frozen=True)
class Stream:
    """A whole stream: header and the sections of every tile, by rows of tiles."""

    header: Header
    tiles: tuple[Sections, ...]

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
            UsageError: a field is out of range, or the tiles are not those of the header.
        """
        self.header._check()
        levels = [tile.levels for tile in self.tiles if tile.levels is not None and tile.complete]
        if (
            not len(levels)
            == len(self.tiles)
            == tile_count(*self.header.map_size, self.header.tile)
        ):
            raise UsageError("the stream lacks a section; encode the picture again")
        sizes = [len(part) for tile in self.tiles for part in (tile.levels or b"", tile.codes)]
        parts = [self.header._to_bytes(sizes), *levels]
        for tile, start, end in _chunks([len(tile.codes) for tile in self.tiles]):
            parts.append(self.tiles[tile].codes[start:end])
        return b"".join(part + zlib.crc32(part).to_bytes(_CRC, "little") for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Stream:
        """Parse a whole stream; nothing is allocated from its numbers before they are checked.

        Args:
            data: the whole stream.
            max_pixels: the largest width x height to accept.

        Raises:
            NotCwicError, VersionError, TruncatedError, CorruptError, LimitError.
        """
        header, sizes, at = _read_header(data, max_pixels)
        end = at + _sections_bytes(sizes)
        if len(data) < end:
            raise TruncatedError(f"the stream has {len(data)} of {end} bytes; {_AGAIN}")
        if len(data) > end:
            raise CorruptError(f"{len(data) - end} bytes follow the end of the stream; {_AGAIN}")
        return cls(header, _read_sections(data, sizes, at, salvage=False))

    @classmethod
    def salvage(cls, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Stream:
        """Parse what is intact of a stream that was cut or damaged behind its header.

        Args, errors: as :meth:`from_bytes`; what is lost is left out of the tiles' sections.
        """
        header, sizes, at = _read_header(data, max_pixels)
        return cls(header, _read_sections(data, sizes, at, salvage=True))


def accepts(data: bytes) -> bool:
    """Whether ``data`` starts as a stream does; four bytes are enough."""
    return data[: len(MAGIC)] == MAGIC


def read_header(data: bytes) -> Header:
    """The header alone, from the first bytes of a stream; sections are not looked at.

    Raises:
        NotCwicError, VersionError, TruncatedError, CorruptError.
    """
    return _read_header(data, MAX_SIDE_PX**2)[0]


def _chunks(sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """``(tile, start, end)`` of every chunk of codes sections of these sizes, in file order."""
    left = [tile for tile, size in enumerate(sizes) if size]
    start = 0
    while left:
        for tile in left:
            yield tile, start, min(start + CHUNK_BYTES, sizes[tile])
        start += CHUNK_BYTES
        left = [tile for tile in left if sizes[tile] > start]


def _sections_bytes(sizes: Sequence[int]) -> int:
    """Bytes of all sections of these sizes, checksums included."""
    checksums = sum(1 + -(-size // CHUNK_BYTES) for size in sizes[1::2])
    return sum(sizes) + _CRC * checksums


def _read_header(data: bytes, max_pixels: int) -> tuple[Header, list[int], int]:
    """Header, sizes (levels and codes of each tile in turn), and where the sections begin."""
    if not data:
        raise TruncatedError(f"the stream is empty; {_AGAIN}")
    if not accepts(data):
        if MAGIC.startswith(data):
            raise TruncatedError(f"the stream ends in its header; {_AGAIN}")
        raise NotCwicError("these bytes are not a .cwic stream; pass a file made by cwic encode")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise VersionError(
            f"the stream has version {data[len(MAGIC)]} and this release reads {VERSION}; "
            "install a release that reads it"
        )
    if len(data) < _FIXED:
        raise TruncatedError(f"the stream ends in its header; {_AGAIN}")
    coder, quality = data[5], data[_FIXED - 1]
    width_px, at = _read_number(data, _FIXED)
    height_px, at = _read_number(data, at)
    sides_fit = 1 <= width_px <= MAX_SIDE_PX and 1 <= height_px <= MAX_SIDE_PX
    if not sides_fit or coder & 7 > 6 or coder >> 6 or not 1 <= quality <= 100:
        raise CorruptError(f"a header field is out of range; {_AGAIN}")
    model_id = data[6 : 6 + MODEL_ID_BYTES]
    tile = _SMALLEST_TILE << (coder >> 3)
    header = Header(width_px, height_px, model_id, quality, 1 << (coder & 7), tile)
    # First of all, for the number of tiles follows from it.
    _check_limit(header, max_pixels)
    sizes = []
    for _ in range(2 * tile_count(*header.map_size, tile)):
        size, at = _read_number(data, at)
        sizes.append(size)
    _checked(data, 0, at, "the header")
    if max(sizes) > _MAX_SECTION:
        raise CorruptError(f"a header field is out of range; {_AGAIN}")
    return header, sizes, at + _CRC


def _check_limit(header: Header, max_pixels: int) -> None:
    if header.width_px * header.height_px > max_pixels:
        raise LimitError(
            f"the stream is {header.width_px}x{header.height_px} pixels, more than the limit "
            f"of {max_pixels}; raise max_pixels (--max-pixels) if you trust it"
        )


def _read_sections(
    data: bytes, sizes: list[int], at: int, *, salvage: bool
) -> tuple[Sections, ...]:
    levels_sizes, codes_sizes = sizes[::2], sizes[1::2]
    levels: list[bytes | None] = []
    for size in levels_sizes:
        try:
            levels.append(_checked(data, at, size, "a levels section"))
        except StreamError:
            if not salvage:
                raise
            levels.append(None)
        at += size + _CRC
    chunks: list[list[bytes]] = [[] for _ in codes_sizes]
    broken: set[int] = set()  # what follows a lost chunk cannot be decoded
    for tile, start, end in _chunks(codes_sizes):
        try:
            chunk = _checked(data, at, end - start, "a codes section")
            if tile not in broken:
                chunks[tile].append(chunk)
        except StreamError:
            if not salvage:
                raise
            broken.add(tile)
        at += end - start + _CRC
        if salvage and at > len(data) + CHUNK_BYTES + _CRC:
            break
    found = [b"".join(parts) for parts in chunks]
    return tuple(
        Sections(lv, codes, lv is not None and len(codes) == size)
        for lv, codes, size in zip(levels, found, codes_sizes, strict=True)
    )


def _checked(data: bytes, start: int, size: int, what: str) -> bytes:
    part, crc = data[start : start + size], data[start + size : start + size + _CRC]
    if len(crc) < _CRC:
        raise TruncatedError(f"the stream ends in {what}; {_AGAIN}")
    if zlib.crc32(part).to_bytes(_CRC, "little") != crc:
        raise CorruptError(f"{what} does not match its checksum; {_AGAIN}")
    return part


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(5):
        if at + place >= len(data):
            raise TruncatedError(f"the stream ends in its header; {_AGAIN}")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if byte == 0 and place:
                break
            return value, at + place + 1
    raise CorruptError(f"a number of the header is not in its shortest form; {_AGAIN}")
