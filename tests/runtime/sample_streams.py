"""Streams of little content, and what damages them."""

from __future__ import annotations

import dataclasses
import random
import zlib

from cwic.container import Header, Sections, Stream

HEADER = Header(width_px=300, height_px=7, model_id=bytes(range(8)), quality=50, lanes=4, tile=32)
STREAM = Stream(HEADER, (Sections(b"levels", b"some codes"), Sections(b"more", b"codes")))
DATA = STREAM.to_bytes()
SECTIONS = DATA[-(6 + 4 + 10 + 5 + 4 * 4) :]
HEAD = DATA[: -len(SECTIONS) - 4]
NUMBERS = 16
"""Where the header's numbers begin."""
EXTRAS = {"icc": b"\0profile", "alpha": b"\xff", "exif": b"\0EXIF", "xmp": b"\0<x/>"}


def dressed(names: tuple[str, ...], grey: bool = False) -> Stream:
    """The same picture with some extra sections."""
    header = dataclasses.replace(HEADER, grey=grey, extras=names)
    return Stream(header, STREAM.tiles, {name: EXTRAS[name] for name in names})


DRESSED = dressed(tuple(EXTRAS), grey=True)


def with_crc(part: bytes) -> bytes:
    return part + zlib.crc32(part).to_bytes(4, "little")


def with_head(head: bytes) -> bytes:
    """A stream with a header of our own making and right checksums."""
    return with_crc(head) + SECTIONS


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


SIZES = (9000, 0, 4096, 4097, 1, 8192)
"""Of the codes sections of six tiles: rounds of 5, 3 and 1 chunks."""


def rounds() -> tuple[Stream, bytes]:
    """Six tiles with several chunks, and their bytes put together by hand."""
    header = Header(40 * 8, 24 * 8 + 1, b"modelid!", 7, 64, 16)
    levels = [bytes([i]) * (i + 1) for i in range(6)]
    codes = [random.Random(i).randbytes(size) for i, size in enumerate(SIZES)]  # noqa: S311
    tiles = tuple(Sections(lv, cd) for lv, cd in zip(levels, codes, strict=True))
    head = b"\x89CWC\x06\x06modelid!\x07\0" + b"\xc0\x02" + b"\xc1\x01"
    for lv, size in zip(levels, SIZES, strict=True):
        head += bytes([len(lv)])
        head += bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    data = with_crc(head) + b"".join(with_crc(part) for part in levels)
    chunks = [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (0, 1), (3, 1), (5, 1), (0, 2)]
    for tile, number in chunks:
        data += with_crc(codes[tile][4096 * number : 4096 * (number + 1)])
    return Stream(header, tiles), data
