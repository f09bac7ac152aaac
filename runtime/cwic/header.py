"""The header of a ``.cwic`` stream: its fields, its limits and where the sections lie.

::

    magic 4 | version 1 | coder 1 | model_id 8 | quality 1 | flags 1 | width | height |
    per extra section: size | per tile: levels size, codes size | CRC-32 4

Numbers behind the flags are LEB128 in their shortest form. FORMAT.md gives every byte.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cwic.bundle import MODEL_ID_BYTES
from cwic.chunks import chunk_count
from cwic.errors import (
    CorruptError,
    LimitError,
    NotCwicError,
    TruncatedError,
    UsageError,
    VersionError,
)
from cwic.tiles import tile_count

__all__ = [
    "AGAIN",
    "CRC_BYTES",
    "DEFAULT_MAX_PIXELS",
    "EXTRAS",
    "MAGIC",
    "MAX_METADATA_BYTES",
    "MAX_SIDE_PX",
    "STRIDE",
    "VERSION",
    "Header",
    "Layout",
    "accepts",
    "checked",
    "read_header",
    "read_layout",
]

MAGIC = b"\x89CWC"
VERSION = 6
MAX_SIDE_PX = (1 << 24) - 1
DEFAULT_MAX_PIXELS = 1 << 26
CRC_BYTES = 4
STRIDE = 8
EXTRAS = {"icc": "ICC profile", "alpha": "alpha", "exif": "EXIF", "xmp": "XMP"}
"""What a picture may have beside its colours, in words; number i has bit i + 1 of the flags."""
MAX_METADATA_BYTES = 1 << 22
"""The largest ICC profile, EXIF or XMP, uncompressed."""
AGAIN = "fetch or encode it again"
_GREY = 1
_PROGRESSIVE = 1 << 6
_SMALLEST_TILE = 16
_LARGEST_TILE = _SMALLEST_TILE << 7
_MAX_SECTION = (1 << 31) - 1
_FIXED = len(MAGIC) + 2 + MODEL_ID_BYTES + 2


@dataclass(frozen=True)
class Header:
    """What a stream says before its sections.

    Attributes:
        width_px, height_px: size of the picture, 1..2**24 - 1 each.
        model_id: the model that made it, 8 bytes.
        quality: 1..100, the quality nearest to its rate; informative.
        lanes: rANS lanes of each codes section, a power of two 1..64.
        tile: longest side of a tile in positions of 8 pixels, a power of two 16..2048.
        grey: whether the picture is decoded to grey.
        extras: the extra sections that it has, names and order of :data:`EXTRAS`.
        progressive: whether the codes come in layers, see :mod:`cwic.layers`.
    """

    width_px: int
    height_px: int
    model_id: bytes
    quality: int
    lanes: int
    tile: int
    grey: bool = False
    extras: tuple[str, ...] = ()
    progressive: bool = False

    @property
    def map_size(self) -> tuple[int, int]:
        """Height and width in positions."""
        return -(-self.height_px // STRIDE), -(-self.width_px // STRIDE)

    @property
    def mode(self) -> str:
        """Pillow's mode of the decoded picture: L, LA, RGB or RGBA."""
        return ("L" if self.grey else "RGB") + ("A" if "alpha" in self.extras else "")

    def to_bytes(self, extra_sizes: Sequence[int], tile_sizes: Sequence[int]) -> bytes:
        """The header without its checksum; sizes are those of all sections, in order.

        Raises:
            UsageError: the size of an extra section is out of range; :meth:`check` has the rest.
        """
        for name, size in zip(self.extras, extra_sizes, strict=True):
            if not _extra_fits(name, size):
                raise UsageError(f"{size} bytes of {EXTRAS[name]} do not fit; leave it out")
        coder = (self.lanes.bit_length() - 1) | (self.tile // _SMALLEST_TILE).bit_length() - 1 << 3
        coder |= _PROGRESSIVE * self.progressive
        flags = _GREY * self.grey | sum(
            2 << i for i, name in enumerate(EXTRAS) if name in self.extras
        )
        head = MAGIC + bytes([VERSION, coder]) + self.model_id + bytes([self.quality, flags])
        numbers = (self.width_px, self.height_px, *extra_sizes, *tile_sizes)
        return head + b"".join(_number(number) for number in numbers)

    def check(self) -> None:
        """Refuse fields that are out of range.

        Raises:
            UsageError
        """
        if not (1 <= self.width_px <= MAX_SIDE_PX and 1 <= self.height_px <= MAX_SIDE_PX):
            raise UsageError(
                f"{self.width_px}x{self.height_px} pixels do not fit the format; "
                f"cut the picture into parts of at most {MAX_SIDE_PX} a side"
            )
        powers = (self.lanes, 1, 64), (self.tile, _SMALLEST_TILE, _LARGEST_TILE)
        for value, low, high in powers:
            if not low <= value <= high or value & (value - 1):
                raise UsageError(f"{value} is not a power of two from {low} to {high}; choose one")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"a quality of {self.quality} is outside 1..100; use for example 50")
        if len(self.model_id) != MODEL_ID_BYTES:
            raise UsageError(
                f"a model_id has {MODEL_ID_BYTES} bytes, not {len(self.model_id)}; "
                "take that of a bundle"
            )
        if self.extras != tuple(name for name in EXTRAS if name in self.extras):
            raise UsageError(
                f"{', '.join(self.extras)} are not extra sections in their order; "
                f"choose from {', '.join(EXTRAS)}"
            )


@dataclass(frozen=True)
class Layout:
    """Where the sections of a stream lie.

    Attributes:
        header: the fields.
        start: bytes of the header, its checksum included; the levels follow.
        levels, codes: bytes of these sections of each tile.
        codes_start: first byte of the codes: behind all levels and the ICC profile.
        extras: first byte and number of bytes of each extra section.
        end: bytes of the whole stream.
    """

    header: Header
    start: int
    levels: tuple[int, ...]
    codes: tuple[int, ...]
    codes_start: int
    extras: Mapping[str, tuple[int, int]]
    end: int

    @classmethod
    def of(cls, header: Header, start: int, sizes: Sequence[int]) -> Layout:
        """The layout that follows from the numbers of a header."""
        count = len(header.extras)
        extras = dict(zip(header.extras, sizes[:count], strict=True))
        levels, codes = tuple(sizes[count::2]), tuple(sizes[count + 1 :: 2])
        places: dict[str, tuple[int, int]] = {}
        at = start + sum(levels) + CRC_BYTES * len(levels)
        # The profile is needed to show the first pixel; the rest can wait until the last.
        if "icc" in extras:
            places["icc"] = at, extras["icc"]
            at += extras.pop("icc") + CRC_BYTES
        codes_start = at
        at += sum(codes) + CRC_BYTES * chunk_count(codes, header.progressive)
        for name, size in extras.items():
            places[name] = at, size
            at += size + CRC_BYTES
        return cls(header, start, levels, codes, codes_start, places, at)


def accepts(data: bytes) -> bool:
    """Whether ``data`` starts as a stream does; four bytes are enough."""
    return data[: len(MAGIC)] == MAGIC


def read_header(data: bytes) -> Header:
    """The header alone, from the first bytes of a stream; sections are not looked at.

    Raises:
        NotCwicError, VersionError, TruncatedError, CorruptError.
    """
    return read_layout(data, MAX_SIDE_PX**2).header


def read_layout(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> Layout:
    """Header and places of all sections, from the first bytes of a stream.

    Args:
        data: the stream, or as much of its beginning as has the header.
        max_pixels: the largest width x height to accept.

    Raises:
        NotCwicError, VersionError, TruncatedError, CorruptError, LimitError.
    """
    if not data:
        raise TruncatedError(f"the stream is empty; {AGAIN}")
    if not accepts(data):
        if MAGIC.startswith(data):
            raise TruncatedError(f"the stream ends in its header; {AGAIN}")
        raise NotCwicError("these bytes are not a .cwic stream; pass a file made by cwic encode")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise VersionError(
            f"the stream has version {data[len(MAGIC)]} and this release reads {VERSION}; "
            "install a release that reads it"
        )
    if len(data) < _FIXED:
        raise TruncatedError(f"the stream ends in its header; {AGAIN}")
    coder, quality, flags = data[5], data[_FIXED - 2], data[_FIXED - 1]
    width_px, at = _read_number(data, _FIXED)
    height_px, at = _read_number(data, at)
    sides_fit = 1 <= width_px <= MAX_SIDE_PX and 1 <= height_px <= MAX_SIDE_PX
    flags_fit = flags < 2 << len(EXTRAS)
    if not sides_fit or coder & 7 > 6 or coder >> 7 or not 1 <= quality <= 100 or not flags_fit:
        raise CorruptError(f"a header field is out of range; {AGAIN}")
    header = Header(
        width_px,
        height_px,
        data[6 : 6 + MODEL_ID_BYTES],
        quality,
        lanes=1 << (coder & 7),
        tile=_SMALLEST_TILE << (coder >> 3 & 7),
        progressive=bool(coder & _PROGRESSIVE),
        grey=bool(flags & _GREY),
        extras=tuple(name for i, name in enumerate(EXTRAS) if flags & 2 << i),
    )
    # First of all, for the number of tiles follows from it.
    _check_limit(header, max_pixels)
    sizes = []
    for _ in range(len(header.extras) + 2 * tile_count(*header.map_size, header.tile)):
        size, at = _read_number(data, at)
        sizes.append(size)
    checked(data, 0, at, "the header")
    fit = max(sizes) <= _MAX_SECTION and all(map(_extra_fits, header.extras, sizes))
    if not fit:
        raise CorruptError(f"a header field is out of range; {AGAIN}")
    return Layout.of(header, at + CRC_BYTES, sizes)


def checked(data: bytes, start: int, size: int, what: str) -> bytes:
    """``size`` bytes from ``start`` on, whose CRC-32 follows them.

    Raises:
        TruncatedError, CorruptError: naming ``what``.
    """
    part, crc = data[start : start + size], data[start + size : start + size + CRC_BYTES]
    if len(crc) < CRC_BYTES:
        raise TruncatedError(f"the stream ends in {what}; {AGAIN}")
    if zlib.crc32(part).to_bytes(CRC_BYTES, "little") != crc:
        raise CorruptError(f"{what} does not match its checksum; {AGAIN}")
    return part


def _extra_fits(name: str, size: int) -> bool:
    return size >= 1 and (name == "alpha" or size <= MAX_METADATA_BYTES + 1)


def _check_limit(header: Header, max_pixels: int) -> None:
    if header.width_px * header.height_px > max_pixels:
        raise LimitError(
            f"the stream is {header.width_px}x{header.height_px} pixels, more than the limit "
            f"of {max_pixels}; raise max_pixels (--max-pixels) if you trust it"
        )


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
            raise TruncatedError(f"the stream ends in its header; {AGAIN}")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if byte == 0 and place:
                break
            return value, at + place + 1
    raise CorruptError(f"a number of the header is not in its shortest form; {AGAIN}")
