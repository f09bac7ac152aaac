"""Networks in parts: the parts fit together, and no part is larger than it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic
from cwic import rate, tiled
from cwic.image import crop_to, pad_to_multiple

Bytes = NDArray[np.uint8]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "LARGEST_WHOLE", 300)
    monkeypatch.setattr(tiled, "SIDE", 20)


class Watched:
    """A runner that notes the sizes that it is given."""

    def __init__(self, runner: Any) -> None:
        self.runner, self.sizes, self.released = runner, [], 0

    def encode(self, image: Bytes) -> Any:
        self.sizes.append(image.shape[1:3])
        return self.runner.encode(image)

    def decode(self, codes: Bytes, levels: Bytes) -> Any:
        self.sizes.append(levels.shape[1:])
        return self.runner.decode(codes, levels)

    def release(self) -> None:
        self.released += 1
        self.runner.release()


def _decoded(runner: Any, codes: Bytes, levels: Bytes, size: tuple[int, int]) -> Bytes:
    image = np.zeros((*size, 3), np.uint8)
    seen = np.zeros(size, int)

    def write(rows: slice, columns: slice, part: Bytes) -> None:
        image[rows, columns] = part
        seen[rows, columns] += 1

    tiled.decode(runner, codes, levels, write, *size, 8)
    assert (seen == 1).all()
    return image


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [(512, 768), (333, 427), (200, 601), (8, 800), (801, 3)])
def test_parts_decode_to_the_whole_picture(
    either: cwic.Codec, photo: Bytes, size: tuple[int, int]
) -> None:
    wide = np.tile(photo, (2, 2, 1))[: size[0], : size[1]]
    runner = either.runner
    codes, importance = (a[0] for a in runner.encode(pad_to_multiple(wide, 8)[None]))
    levels = rate.levels_from_importance(importance, 0.5, either.bundle.levels)
    sent = either.context.codes.sent(codes, levels)
    whole = crop_to(runner.decode(sent[None], levels[None])[0], *size)
    watched = Watched(runner)
    parts = _decoded(watched, sent, levels, size)
    assert np.abs(parts.astype(int) - whole).max() <= 1
    if min(size) > 100:
        assert len(watched.sizes) > 4
        assert max(max(found) for found in watched.sizes) <= 20 + 2 * tiled.MARGIN


@pytest.mark.usefixtures("small_parts")
def test_parts_encode_to_nearly_the_same_codes(either: cwic.Codec, photo: Bytes) -> None:
    picture = photo[:301, :455]
    whole = [a[0] for a in either.runner.encode(pad_to_multiple(picture, 8)[None])]
    watched: Any = Watched(either.runner)
    parts = tiled.encode(watched, lambda r, c: picture[r, c], 301, 455, 8)
    assert max(max(found) for found in watched.sizes) <= 8 * (20 + 2 * tiled.MARGIN)
    assert watched.released == 1
    symbols = [either.context.codes.finest(codes) for codes in (parts[0], whole[0])]
    assert np.std(symbols[1]) > 0.4
    assert (symbols[0] != symbols[1]).mean() < 0.002
    assert np.abs(parts[1].astype(int) - whole[1]).mean() < 0.05


def test_no_seam_is_visible(
    codec: cwic.Codec, photo: Bytes, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of the error across the borders of parts are those of the picture run whole."""
    size = photo.shape[:2]
    borders = sorted(
        {tile.left * 8 - 1 for tile in tiled._parts(64, 96, tiled.LARGEST_WHOLE)} - {-1}
    )
    assert len(borders) == 4
    steps = []
    for largest in (300, 1 << 17):
        monkeypatch.setattr(tiled, "LARGEST_WHOLE", largest)
        codes, importance = tiled.encode(codec.runner, lambda r, c: photo[r, c], *size, 8)
        levels = rate.levels_from_importance(importance, 0.3, codec.bundle.levels)
        sent = codec.context.codes.sent(codes, levels)
        error = _decoded(codec.runner, sent, levels, size).astype(int) - photo
        steps.append(np.abs(np.diff(error, axis=1)).mean(axis=(0, 2))[borders])
    assert steps[0].mean() < 1.02 * steps[1].mean()


def test_pictures_up_to_4k_are_run_whole(codec: cwic.Codec) -> None:
    assert len(tiled._parts(270, 480, tiled.LARGEST_WHOLE)) == 1
    assert len(tiled._parts(300, 480, tiled.LARGEST_WHOLE)) > 1
    for tile in tiled._parts(1875, 2500, tiled.LARGEST_WHOLE):
        assert max(tile.height, tile.width) <= tiled.SIDE
