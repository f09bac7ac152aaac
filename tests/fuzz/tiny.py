"""Tiny models, with which a hostile stream reaches every line of the decoder in a millisecond.

The entropy model of signs has 16 channels, 4 levels and 8 hidden units, drawn once; that of values
is :mod:`tests.runtime.block_values`. No network runs: a "picture" is the codes and levels that the
decoder would be given.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tests.runtime.block_values import MODEL_ID as VALUES_ID
from tests.runtime.block_values import block_codec, drawn_values

from cwic.backends import Runner
from cwic.bundle import Bundle, FileEntry
from cwic.codec import Codec
from cwic.context import LOGITS
from cwic.level_model import level_contexts
from cwic.scan import KINDS, NEIGHBOURS
from cwic.tiles import tile_grid

from .framing import Frame

__all__ = [
    "MODEL_ID",
    "VALUES_ID",
    "StubRunner",
    "coded",
    "drawn",
    "tiny_codec",
    "tiny_codecs",
]

MODEL_ID = b"tinytiny"
N, LEVELS, HIDDEN = 16, 4, 8


class StubRunner(Runner):
    """A decoder whose picture is grey; it keeps what it was given."""

    backend = "stub"

    def __init__(self) -> None:
        self.codes = self.levels = np.zeros(0, np.uint8)

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        raise NotImplementedError

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        self.codes, self.levels = codes[0], levels[0]
        count, height, width = levels.shape
        return np.full((count, 8 * height, 8 * width, 3), 128, np.uint8)


def tiny_codec(folder: Path) -> Codec:
    """The codec; its bundle is written into ``folder``."""
    context = folder / "context.safetensors"
    context.write_bytes(save(_tensors()))
    files = {context.name: FileEntry.of(context, role="context", target="cwic", precision="int")}
    bundle = Bundle(folder, "tiny", MODEL_ID, N, LEVELS, 8, files)
    bundle.save()
    return Codec(Bundle.load(folder), StubRunner(), threads=1)


def tiny_codecs(folder: Path) -> dict[str, Codec]:
    """One of each kind of codes, ``signs`` and ``values``."""
    folders = {kind: folder / kind for kind in ("signs", "values")}
    for path in folders.values():
        path.mkdir()
    values = Codec(block_codec(folders["values"]).bundle, StubRunner(), threads=1)
    return {"signs": tiny_codec(folders["signs"]), "values": values}


def drawn(
    codec: Codec, height: int, width: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Random codes that a codec may send, and smooth levels, both uint8; no value sent is 0."""
    if codec.bundle.codes == "values":
        return drawn_values((height, width), seed, smooth=True)
    rng = np.random.default_rng(seed)
    n, most = codec.bundle.n, codec.bundle.levels
    slope = np.add.outer(np.arange(height), np.arange(width)) + rng.integers(0, 3, (height, width))
    levels = np.minimum(slope // 2, most).astype(np.uint8)
    bits = rng.integers(0, 2, (n, height, width), np.uint8)
    bits[np.arange(n)[:, None, None] >= levels.astype(int) * (n // most)] = 0
    return np.packbits(bits, axis=0), levels


def coded(
    codec: Codec,
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    *,
    tile: int = 16,
    lanes: int = 1,
    progressive: bool = False,
) -> Frame:
    """A valid stream of these codes and levels, with tiles and lanes of one's choice."""
    height, width = levels.shape
    sections = []
    for part in tile_grid(height, width, tile):
        rows, columns = part.area
        made = codec.context.encode(
            codes[:, rows, columns], levels[rows, columns], progressive=progressive
        )
        sections.append((made.levels.to_bytes(1), made.codes.to_bytes(lanes)))
    coder = lanes.bit_length() - 1 | (tile // 16).bit_length() - 1 << 3 | progressive << 6
    return Frame(
        8 * width, 8 * height, tuple(sections), coder=coder, model_id=codec.bundle.model_id
    )


def _tensors() -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(2)
    size = N // LEVELS

    def weights(*shape: int) -> NDArray[np.int8]:
        return rng.integers(-40, 41, shape).astype(np.int8)

    def sums(*shape: int) -> NDArray[np.int32]:
        return rng.integers(-99, 100, shape).astype(np.int32)

    logits = (np.arange(LOGITS) - LOGITS // 2) / 32
    p1 = np.clip(np.rint(65536 / (1 + np.exp(-logits))), 32, 65504).astype(np.uint16)
    # Rows that sum to 65536, one level likelier than the others.
    frequencies = rng.integers(1, 4000, (level_contexts(LEVELS), LEVELS + 1))
    frequencies[:, 0] += 65536 - frequencies.sum(1)
    for row in frequencies:
        rng.shuffle(row)
    return {
        "levels.frequencies": frequencies.astype(np.uint16),
        "codes.own": weights(KINDS - 1, LEVELS, NEIGHBOURS * size, HIDDEN),
        "codes.earlier": weights(LEVELS, N, HIDDEN),
        "codes.level": sums(LEVELS, LEVELS + 1, HIDDEN),
        "codes.kind": sums(KINDS, LEVELS, HIDDEN),
        "codes.middle": weights(LEVELS, HIDDEN, HIDDEN),
        "codes.middle_bias": sums(LEVELS, HIDDEN),
        "codes.last": weights(LEVELS, HIDDEN, size),
        "codes.last_bias": sums(LEVELS, size),
        "codes.p1": p1,
    }
