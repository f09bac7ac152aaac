"""Makes ``container.hex`` beside it: one stream, field by field, without the package.

Run ``python tests/runtime/golden/make_container.py``. FORMAT.md shows the same bytes.
"""

from __future__ import annotations

import zlib
from pathlib import Path

TARGET = Path(__file__).with_name("container.hex")
HEADER = [
    (b"\x89CWC", "magic"),
    (b"\x06", "version 6"),
    (b"\x4a", "log2 of 4 lanes; log2 of 32 / 16 positions << 3; progressive"),
    (bytes(range(8)), "model_id"),
    (b"\x32", "quality 50"),
    (b"\x06", "flags: colour, with an ICC profile and alpha"),
    (b"\xac\x02", "width 300: 38 positions, two tiles of 19"),
    (b"\x07", "height 7: 1 position"),
    (b"\x08", "ICC profile: section of 8 bytes"),
    (b"\x01", "alpha: section of 1 byte"),
    (b"\x06", "left tile: levels section of 6 bytes"),
    (b"\x0a", "codes section of 10 bytes"),
    (b"\x04", "right tile: levels section of 4 bytes"),
    (b"\x05", "codes section of 5 bytes"),
]
PARTS = [
    (HEADER, "the header"),
    ([(b"levels", "levels of the left tile")], "these levels"),
    ([(b"more", "levels of the right tile")], "these levels"),
    ([(b"\0", "as it is:"), (b"profile", "ICC profile")], "this section"),
    ([(b"some codes", "codes of the left tile, chunk 0")], "this chunk"),
    ([(b"codes", "codes of the right tile, chunk 0")], "this chunk"),
    ([(b"\xff", "opaque everywhere")], "this section"),
]


def text() -> str:
    lines = []
    for fields, what in PARTS:
        lines += [f"{data.hex(' '):30} # {meaning}" for data, meaning in fields]
        crc = zlib.crc32(b"".join(data for data, _ in fields)).to_bytes(4, "little")
        lines.append(f"{crc.hex(' '):30} # CRC-32 of {what}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="ascii")
