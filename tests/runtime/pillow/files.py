"""Streams and metadata for the tests of the plug-in."""

from __future__ import annotations

import io

from PIL import Image, ImageCms, ImageFile

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta/>"


def exif(orientation: int | None = None) -> bytes:
    tags = Image.Exif()
    tags[0x010F] = "a maker"
    if orientation is not None:
        tags[0x0112] = orientation
    return tags.tobytes()


def saved(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "CWIC", **options)
    return out.getvalue()


def opened(data: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(data))
