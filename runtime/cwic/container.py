"""Layout of a ``.cwic`` stream; FORMAT.md gives every byte.

::

    magic 4 | version 1 | coder 1 | model_id 8 | quality 1 | width | height |
    levels size | codes size | CRC-32 4                               the header
    levels section | CRC-32 4 | codes section | CRC-32 4              the sections

``width`` to ``codes size`` are LEB128 numbers in their shortest form. All other numbers
are little endian. There is exactly one stream for a given content, and a reader refuses
every other: unknown flags, longer numbers, bytes after the end.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from cwic.bundle import MODEL_ID_BYTES
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    TruncatedError,
    UsageError,
    VersionError,
)

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MAGIC",
    "MAX_SIDE_PX",
    "VERSION",
    "Header",
    "Stream",
    "accepts",
    "read_header",
]

MAGIC = b"\x89CWC"
VERSION = 1
MAX_SIDE_PX = (1 << 24) - 1
DEFAULT_MAX_PIXELS = 1 << 25
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
        lanes: rANS lanes, a power of two 1..64.
    """

    width_px: int
    height_px: int
    model_id: bytes
    quality: int
    lanes: int


@dataclass(frozen=True)
class Stream:
    """A whole stream: header and the two entropy-coded sections."""

    header: Header
    levels: bytes
    codes: bytes

    def to_bytes(self) -> bytes:
        """The stream's bytes.

        Raises:
            UsageError: a field is out of range, for example a side over 2**24 - 1 pixels.
        """
        h = self.header
        if not (1 <= h.width_px <= MAX_SIDE_PX and 1 <= h.height_px <= MAX_SIDE_PX):
            raise UsageError(
                f"{h.width_px}x{h.height_px} pixels do not fit the format; "
                f"cut the picture into parts of at most {MAX_SIDE_PX} a side"
            )
        head = MAGIC + bytes([VERSION, h.lanes.bit_length() - 1]) + h.model_id + bytes([h.quality])
        for number in (h.width_px, h.height_px, len(self.levels), len(self.codes)):
            head += _number(number)
        return b"".join(
            part + zlib.crc32(part).to_bytes(_CRC, "little")
            for part in (head, self.levels, self.codes)
        )

    @classmethod
    def from_bytes(cls, data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Stream:
        """Parse a stream; nothing is allocated from its numbers before they are checked.

        Args:
            data: the whole stream.
            max_pixels: the largest width x height to accept.

        Raises:
            NotCwicError, VersionError, TruncatedError, CorruptError, LimitError.
        """
        header, sizes, at = _read_header(data)
        pixels = header.width_px * header.height_px
        if pixels > max_pixels:
            raise LimitError(
                f"the stream is {header.width_px}x{header.height_px} pixels, more than the limit "
                f"of {max_pixels}; raise max_pixels (--max-pixels) if you trust it"
            )
        end = at + sum(sizes) + _CRC * len(sizes)
        if len(data) < end:
            raise TruncatedError(f"the stream has {len(data)} of {end} bytes; {_AGAIN}")
        if len(data) > end:
            raise CorruptError(f"{len(data) - end} bytes follow the end of the stream; {_AGAIN}")
        sections = []
        for name, size in zip(("levels", "codes"), sizes, strict=True):
            sections.append(_checked(data, at, size, f"the {name} section"))
            at += size + _CRC
        return cls(header, *sections)


def accepts(data: bytes) -> bool:
    """Whether ``data`` starts as a stream does; four bytes are enough."""
    return data[: len(MAGIC)] == MAGIC


def read_header(data: bytes) -> Header:
    """The header alone, from the first bytes of a stream; sections are not looked at.

    Raises:
        NotCwicError, VersionError, TruncatedError, CorruptError.
    """
    return _read_header(data)[0]


def _read_header(data: bytes) -> tuple[Header, tuple[int, int], int]:
    """The header, the sizes of the two sections, and where they begin."""
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
    numbers, at = [], _FIXED
    for _ in range(4):
        number, at = _read_number(data, at)
        numbers.append(number)
    _checked(data, 0, at, "the header")
    width_px, height_px, levels_size, codes_size = numbers
    log2_lanes, quality = data[5], data[_FIXED - 1]
    sides_fit = 1 <= width_px <= MAX_SIDE_PX and 1 <= height_px <= MAX_SIDE_PX
    sizes_fit = levels_size <= _MAX_SECTION and codes_size <= _MAX_SECTION
    if not sides_fit or not sizes_fit or log2_lanes > 6 or not 1 <= quality <= 100:
        raise CorruptError(f"a header field is out of range; {_AGAIN}")
    model_id = data[6 : 6 + MODEL_ID_BYTES]
    header = Header(width_px, height_px, model_id, quality, 1 << log2_lanes)
    return header, (levels_size, codes_size), at + _CRC


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
