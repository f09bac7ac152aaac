"""The frame of a ``.cwic`` stream, made and mended without the package.

A hostile writer is not bound to :mod:`cwic.container`: here any field takes any value, and
checksums are right over whatever lies there. Written from the format, not from the reader.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["CHUNK_BYTES", "Frame", "number", "parsed", "repaired"]

CHUNK_BYTES = 4096
_FIXED = 16
_ICC = 2
_CRC = 4
_MOST_TILES = 1 << 16


@dataclass(frozen=True)
class Frame:
    """A stream by its fields.

    Attributes:
        width, height: pixels; bytes stand for themselves, for numbers in odd forms.
        tiles: levels and codes section of each tile.
        flags: bit 0 is grey; an extra section belongs to each of bits 1 to 4 that is set.
        extras: the extra sections: ICC profile, alpha, EXIF, XMP, those that there are.
        sizes: all sizes; None: those that fit ``extras`` and ``tiles``.
    """

    width: int | bytes
    height: int | bytes
    tiles: tuple[tuple[bytes, bytes], ...] = ((b"levels", b"some codes"),)
    version: int = 6
    coder: int = 0
    model_id: bytes = b"modelid!"
    quality: int = 50
    flags: int = 0
    extras: tuple[bytes, ...] = ()
    sizes: bytes | None = None

    @property
    def header(self) -> bytes:
        """All bytes before the sections, with the right checksum."""
        sections = (*self.extras, *(section for tile in self.tiles for section in tile))
        table = b"".join(number(len(section)) for section in sections)
        sides = (v if isinstance(v, bytes) else number(v) for v in (self.width, self.height))
        return _summed(
            b"\x89CWC"
            + bytes([self.version, self.coder])
            + self.model_id
            + bytes([self.quality, self.flags])
            + b"".join(sides)
            + (table if self.sizes is None else self.sizes)
        )

    def to_bytes(self) -> bytes:
        """The whole stream."""
        early = 1 if self.flags & _ICC else 0
        parts = [self.header, *(_summed(levels) for levels, _ in self.tiles)]
        parts += [_summed(section) for section in self.extras[:early]]
        sizes = [len(codes) for _, codes in self.tiles]
        for tile, start, end in _chunks(sizes, self.coder):
            parts.append(_summed(self.tiles[tile][1][start:end]))
        parts += [_summed(section) for section in self.extras[early:]]
        return b"".join(parts)


def number(value: int, length: int = 1) -> bytes:
    """LEB128 of at least ``length`` bytes; only the shortest form is valid."""
    out = bytearray()
    while value >= 0x80 or len(out) + 1 < length:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def parsed(data: bytes) -> Frame | None:
    """The frame that ``data`` means, whatever its checksums say; sections may be cut off.

    None where the header ends too early or names no tile, or more than 65,536.
    """
    found = _numbers(data)
    if found is None:
        return None
    (width, height, *sizes), at = found
    sections = [bytearray() for _ in sizes]
    for section, first, length in _parts(data, sizes, at + _CRC, len(data)):
        sections[section] += data[first : first + length]
    whole, count = [bytes(section) for section in sections], _extras(data[15])
    tiles = tuple(zip(whole[count::2], whole[count + 1 :: 2], strict=True))
    coder, model_id, quality, flags = data[5], data[6:14], data[14], data[15]
    extras = tuple(whole[:count])
    return Frame(width, height, tiles, data[4], coder, model_id, quality, flags, extras)


def repaired(data: bytes, model_id: bytes | None = None) -> bytes:
    """``data`` with right checksums wherever its numbers say that one lies.

    Sizes stay as they are, so sections may still be cut off, or be followed by more. With a
    ``model_id``, magic, version and model become right as well.
    """
    out = bytearray(data)
    if model_id is not None and len(out) >= _FIXED:
        out[:5], out[6:14] = b"\x89CWC\6", model_id
    found = _numbers(bytes(out))
    if found is None:
        return bytes(out)
    (_, _, *sizes), at = found
    spans = [(first, length) for _, first, length in _parts(out, sizes, at + _CRC, len(out))]
    for first, length in [(0, at), *spans]:
        end = first + length
        if end + _CRC <= len(out):
            out[end : end + _CRC] = _summed(bytes(out[first:end]))[-_CRC:]
    return bytes(out)


def _summed(part: bytes) -> bytes:
    return part + zlib.crc32(part).to_bytes(_CRC, "little")


def _extras(flags: int) -> int:
    return (flags >> 1 & 15).bit_count()


def _chunks(sizes: list[int], coder: int) -> Iterator[tuple[int, int, int]]:
    """``(tile, start, end)`` of every chunk of codes sections, in file order."""
    longest = max(sizes, default=0)
    rounds = -(-longest // CHUNK_BYTES)
    shares = bool(coder & 0x40) and len(sizes) > 1
    if shares:
        rounds = max(rounds, min(16, -(-longest // 512)))
    for r in range(rounds):
        for tile, size in enumerate(sizes):
            cuts = [k * size // rounds if shares else min(size, k * 4096) for k in (r, r + 1)]
            if cuts[0] < cuts[1]:
                yield tile, cuts[0], cuts[1]


def _parts(
    data: bytes | bytearray, sizes: list[int], at: int, end: int
) -> Iterator[tuple[int, int, int]]:
    """``(section, first byte, length)`` of every checked part up to ``end``, in file order."""
    count = _extras(data[15])
    early = 1 if data[15] & _ICC else 0
    for section in (*range(count, len(sizes), 2), *range(early)):
        yield section, at, sizes[section]
        at += sizes[section] + _CRC
    for tile, first, last in _chunks(sizes[count + 1 :: 2], data[5]):
        if at >= end:
            return
        yield count + 1 + 2 * tile, at, last - first
        at += last - first + _CRC
    for section in range(early, count):
        yield section, at, sizes[section]
        at += sizes[section] + _CRC


def _numbers(data: bytes) -> tuple[list[int], int] | None:
    """Width, height and all sizes, and where they end."""
    if len(data) < _FIXED:
        return None
    numbers: list[int] = []
    at, wanted = _FIXED, 2
    while len(numbers) < wanted:
        value = place = 0
        while True:
            if at >= len(data):
                return None
            value |= (data[at] & 0x7F) << 7 * place
            at, place = at + 1, place + 1
            if data[at - 1] < 0x80 or place == 5:
                break
        numbers.append(value)
        if len(numbers) == 2:
            side_px = 128 << (data[5] >> 3 & 7)
            tiles = -(-numbers[0] // side_px) * -(-numbers[1] // side_px)
            if not 0 < tiles <= _MOST_TILES:
                return None
            wanted += _extras(data[15]) + 2 * tiles
    return numbers, at
