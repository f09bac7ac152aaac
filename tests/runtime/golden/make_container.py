"""Makes ``container.hex`` beside it: one stream, field by field, without the package.

Run ``python tests/runtime/golden/make_container.py``. FORMAT.md shows the same bytes.
"""

from __future__ import annotations

import zlib
from pathlib import Path

TARGET = Path(__file__).with_name("container.hex")
FIELDS = [
    (b"\x89CWC", "magic"),
    (b"\x01", "version 1"),
    (b"\x02", "log2 of 4 lanes"),
    (bytes(range(8)), "model_id"),
    (b"\x32", "quality 50"),
    (b"\xac\x02", "width 300"),
    (b"\x07", "height 7"),
    (b"\x06", "levels section of 6 bytes"),
    (b"\x0a", "codes section of 10 bytes"),
]


def text() -> str:
    parts = [("header", FIELDS)]
    parts += [
        (name, [(data, name)]) for name, data in (("levels", b"levels"), ("codes", b"some codes"))
    ]
    lines = []
    for name, fields in parts:
        lines += [f"{data.hex(' '):32} # {what}" for data, what in fields]
        crc = zlib.crc32(b"".join(data for data, _ in fields)).to_bytes(4, "little")
        lines.append(f"{crc.hex(' '):32} # CRC-32 of the {name}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="ascii")
