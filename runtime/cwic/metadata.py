"""ICC profile, EXIF and XMP: as sections of a stream, and by the names Pillow has for them.

A section is a byte 0 and the bytes as they are, or a byte 1 and a zlib stream of them,
whichever is shorter. EXIF begins with its TIFF header, as in PNG and WebP; Pillow puts
``Exif\\0\\0`` before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cwic.errors import CorruptError, ImageError
from cwic.header import AGAIN, EXTRAS, MAX_METADATA_BYTES

__all__ = ["METADATA", "from_info", "pack", "save_options", "to_info", "unpack"]

METADATA = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp"}
"""Names of the metadata, and Pillow's keys of them in ``Image.info``."""
_EXIF_PREFIX = b"Exif\0\0"


def pack(name: str, value: bytes) -> bytes:
    """The section of some metadata.

    Raises:
        ImageError: it is larger than the format allows.
    """
    if len(value) > MAX_METADATA_BYTES:
        raise ImageError(
            f"the picture's {EXTRAS[name]} has {len(value)} bytes, more than the limit of "
            f"{MAX_METADATA_BYTES}; leave it out (metadata=False)"
        )
    return min(b"\0" + value, b"\1" + zlib.compress(value, 9), key=len)


def unpack(name: str, section: bytes) -> bytes:
    """What :func:`pack` was given; never more than the limit is allocated.

    Raises:
        CorruptError: the section is empty, damaged or too large.
    """
    method, data = section[:1], section[1:]
    if method == b"\1":
        inflate = zlib.decompressobj()
        try:
            data = inflate.decompress(data, MAX_METADATA_BYTES + 1)
        except zlib.error as exc:
            raise CorruptError(f"the {EXTRAS[name]} cannot be decompressed; {AGAIN}") from exc
        if not inflate.eof or inflate.unused_data:
            method = b""
    if method not in (b"\0", b"\1") or not 0 < len(data) <= MAX_METADATA_BYTES:
        raise CorruptError(f"the {EXTRAS[name]} is not a section of this format; {AGAIN}")
    return data


def from_info(image: Image.Image) -> dict[str, bytes]:
    """The metadata that an image has by the names of :data:`METADATA`."""
    found = {name: _bytes(image.info.get(key)) for name, key in METADATA.items()}
    found["exif"] = found["exif"].removeprefix(_EXIF_PREFIX)
    # Pillow before 11 gives the XMP of a PNG as the text that it lies in.
    found["xmp"] = found["xmp"] or _bytes(image.info.get("XML:com.adobe.xmp"))
    return {name: value for name, value in found.items() if value}


def to_info(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """Entries of ``Image.info`` for metadata by name."""
    return {
        METADATA[name]: (_EXIF_PREFIX if name == "exif" else b"") + value
        for name, value in metadata.items()
    }


def save_options(image: Image.Image, kind: str) -> dict[str, Any]:
    """Options with which ``image.save`` keeps the metadata in a file of format ``kind``.

    Most writers of Pillow leave out what they are not told; what a format cannot hold they
    ignore.
    """
    options: dict[str, Any] = {
        key: image.info[key] for key in METADATA.values() if key in image.info
    }
    if kind == "PNG" and "xmp" in options:
        chunks = PngInfo()
        chunks.add(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + options["xmp"])
        options["pnginfo"] = chunks
    return options


def _bytes(value: object) -> bytes:
    if isinstance(value, Image.Exif):
        return value.tobytes() if len(value) else b""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else b""
