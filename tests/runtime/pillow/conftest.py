"""The plug-in with the shipped model, a picture, and a stream that has everything."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.runtime.pillow.files import ICC, XMP, exif

from cwic import pillow_plugin
from cwic.codec import Codec


@pytest.fixture(autouse=True)
def _models(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model, as loaded once for all tests."""
    models = pillow_plugin._Models()
    models._loaded[None, "auto"] = codec
    monkeypatch.setattr(pillow_plugin, "_models", models)


@pytest.fixture(scope="module")
def image(small: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(small)


@pytest.fixture
def rgba(codec: Codec, image: Image.Image) -> bytes:
    """A stream with alpha and all metadata."""
    picture = image.copy()
    picture.putalpha(picture.getchannel("G"))
    picture.info = {"icc_profile": ICC, "exif": exif(), "xmp": XMP}
    return codec.encode(picture, quality=30)
