"""What must hold for any bytes that are given to the decoder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cwic.codec import Codec
from cwic.container import Stream, read_header
from cwic.errors import StreamError
from cwic.extras import Extras

from .tiny import StubRunner, coded

__all__ = ["check"]


def check(codec: Codec, data: bytes, max_pixels: int) -> str:
    """Parse, decode and salvage ``data``; a picture or a ``StreamError`` of one line each time.

    Besides: what parses is written again as the same bytes; what decodes is encoded again as
    the same sections, or of values as sections that decode to them (one may be told in two ways);
    salvage gives no more than there is, and all of a whole stream.

    Returns:
        How far decoding came: ``decoded``, ``coder`` (refused behind the checksums), or the name
        of the error of the container.

    Raises:
        AssertionError: an invariant is broken. Any exception that is no ``StreamError`` escapes.
    """
    try:
        stream = Stream.from_bytes(data, max_pixels)
    except StreamError as error:
        assert _one_line(error)
        _check_salvage(codec, data, max_pixels, None)
        return type(error).__name__
    assert stream.to_bytes() == data
    assert Stream.salvage(data, max_pixels) == stream
    assert read_header(data) == stream.header
    try:
        codes, levels = codec.read_codes(stream)
        extras = Extras.read(stream)
    except StreamError as error:
        assert _one_line(error)
        _check_salvage(codec, data, max_pixels, None)
        return "coder"
    header = stream.header
    again = coded(
        codec,
        codes,
        levels,
        tile=header.tile,
        lanes=header.lanes,
        progressive=header.progressive,
    )
    if codec.context.codes.layered:
        assert again.tiles == tuple((tile.levels, tile.codes) for tile in stream.tiles)
    else:
        assert [part for part, _ in again.tiles] == [tile.levels for tile in stream.tiles]
        found = codec.read_codes(Stream.from_bytes(again.to_bytes(), max_pixels))
        assert np.array_equal(found[0], codes)
    rewritten = Extras.read(replace(stream, extras=extras.sections()))
    assert rewritten.metadata == extras.metadata
    assert (rewritten.alpha is None) == (extras.alpha is None)
    assert extras.alpha is None or np.array_equal(rewritten.alpha, extras.alpha)
    _check_salvage(codec, data, max_pixels, (codes, levels))
    return "decoded"


def _check_salvage(
    codec: Codec,
    data: bytes,
    max_pixels: int,
    whole: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None,
) -> None:
    try:
        salvaged = codec.salvage(data, max_pixels=max_pixels)
    except StreamError as error:
        assert whole is None
        assert _one_line(error)
        return
    stream = Stream.salvage(data, max_pixels)
    header = stream.header
    assert salvaged.image.size == (header.width_px, header.height_px)
    extra_bytes = sum(map(len, stream.extras.values()))
    assert stream.levels_bytes + stream.codes_bytes + extra_bytes <= len(data)
    assert salvaged.image.mode == header.mode
    assert 0 <= salvaged.codes_kept <= 1
    assert salvaged.tiles == len(stream.tiles)
    assert isinstance(codec.runner, StubRunner)
    codes, levels = codec.runner.codes, codec.runner.levels
    assert levels.max() <= codec.bundle.levels
    model = codec.context.codes
    masked = ~model.kept(levels)
    none = np.zeros_like(masked) if model.layered else np.full(masked.shape, model.none)
    assert ((np.unpackbits(codes, axis=0) if model.layered else codes) == none)[masked].all()
    if whole is not None:
        assert not salvaged.left_out
        assert np.array_equal(codes, whole[0])
        assert np.array_equal(levels, whole[1])


def _one_line(error: StreamError) -> bool:
    """Whether the message is one line that ends with a remedy."""
    return "\n" not in str(error) and "; " in str(error)
