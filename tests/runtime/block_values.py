"""A model whose codes are values, without a trained network: cosine transforms of blocks.

24 values of each 8x8 block of pixels in three groups, five levels; an entropy model that predicts
no value, only how large they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from cwic.backends import Runner
from cwic.bundle import Bundle, FileEntry
from cwic.codec import Codec
from cwic.level_model import level_contexts
from cwic.quantiser import FIXED_POINT, LARGEST, ZERO
from cwic.scan import KINDS, NEIGHBOURS
from cwic.value_network import MEANS, REACH, SCALES, SYMBOLS, scale_of

__all__ = [
    "LEVELS",
    "MODEL_ID",
    "BlockRunner",
    "N",
    "block_codec",
    "block_tensors",
    "drawn_values",
]

MODEL_ID = b"8x8block"
SIZES, FIRST_LEVELS = (3, 9, 12), (1, 2, 4)
N, LEVELS, HIDDEN = sum(SIZES), 5, 2  # n is no multiple of L
STEPS = np.array([0, 2, 1, 0.6, 0.35, 0.19], np.float32)
TYPICAL_BITS = np.array([0, 6, 20, 30, 60, 90], np.float32)
PLACES = (20, 10, 0)
"""Of the scale of each group's distribution."""
_SCALE = 4
"""The values of black and white are about as large as fixed point reaches."""


def _basis() -> NDArray[np.float64]:
    """An orthonormal cosine transform, [8, 8]."""
    k, x = np.arange(8)[:, None], np.arange(8) + 0.5
    basis: NDArray[np.float64] = np.cos(np.pi * k * x / 8) / 2
    basis[0] /= np.sqrt(2)
    return basis


_BASIS = _basis()
_COLOUR = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
_FREQUENCIES = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda at: (sum(at), at))
# Luma and colour of the mean, then luma of low frequencies and some of their colour.
_VALUES = [(c, 0, 0) for c in range(3)] + [(0, *at) for at in _FREQUENCIES[1:16]]
_VALUES += [(c, *at) for at in _FREQUENCIES[1:4] for c in (1, 2)]


class BlockRunner(Runner):
    """The networks: each position is a block of its own, so seams cannot show."""

    backend = "blocks"

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        count, height, width, _ = image.shape
        pixels = (image.astype(float) / 255 - 0.5) @ _COLOUR.T
        blocks = pixels.reshape(count, height // 8, 8, width // 8, 8, 3)
        spectrum = np.einsum("nyaxbc,ka,lb->ncklyx", blocks, _BASIS, _BASIS)
        values = np.stack([spectrum[:, c, k, m] for c, k, m in _VALUES], 1)
        values *= _SCALE
        whole = np.rint(FIXED_POINT * values).clip(-32768, 32767).astype(int) + 32768
        codes = np.concatenate([whole >> 8, whole & 255], 1).astype(np.uint8)
        detail = np.sqrt(np.square(values[:, 3:]).sum(1))
        return codes, (60 + 195 * np.tanh(detail / _SCALE)).astype(np.uint8)

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        count, _, height, width = codes.shape
        values = (codes.astype(float) - ZERO) * STEPS[levels][:, None] / _SCALE
        spectrum = np.zeros((count, 3, 8, 8, height, width))
        for value, (c, k, m) in zip(values.transpose(1, 0, 2, 3), _VALUES, strict=True):
            spectrum[:, c, k, m] = value
        blocks = np.einsum("ncklyx,ka,lb->nyaxbc", spectrum, _BASIS, _BASIS)
        pixels = blocks.reshape(count, 8 * height, 8 * width, 3) @ _COLOUR
        return np.rint(255 * (pixels + 0.5)).clip(0, 255).astype(np.uint8)


def block_tensors() -> dict[str, NDArray[Any]]:
    """The entropy model."""
    frequencies = np.full((level_contexts(LEVELS), LEVELS + 1), 65536 // (LEVELS + 1), np.uint16)
    frequencies[:, 0] += 65536 % (LEVELS + 1)
    place, part = np.divmod(np.arange(SCALES * MEANS), MEANS)
    edges = np.arange(-REACH, REACH + 2) - 0.5 - part[:, None] / MEANS
    below = 1 / (1 + np.exp(-(edges / scale_of(place)[:, None]).clip(-60, 60)))
    starts = np.rint(65000 * (below - below[:, :1])).astype(np.uint16)
    assert starts.shape == (SCALES * MEANS, SYMBOLS)
    tensors: dict[str, NDArray[Any]] = {
        "levels.frequencies": frequencies,
        "values.sizes": np.array(SIZES, np.uint16),
        "values.first_levels": np.array(FIRST_LEVELS, np.uint8),
        "values.steps": STEPS,
        "values.bits": TYPICAL_BITS,
        "values.features": np.minimum(np.arange(128), 100).astype(np.uint8),
        "values.cumulative": starts,
    }
    for g, size in enumerate(SIZES):
        places = np.zeros(2 * size, np.int32)
        places[size:] = 64 * 4 * (PLACES[g] - SCALES // 2)
        arrays = {
            "own": np.zeros((KINDS - 1, (NEIGHBOURS + 1) * size, HIDDEN), np.int8),
            "earlier": np.zeros((3 * sum(SIZES[:g]), HIDDEN), np.int8),
            "level": np.zeros((LEVELS + 1, HIDDEN), np.int32),
            "kind": np.zeros((KINDS, HIDDEN), np.int32),
            "middle": np.zeros((HIDDEN, HIDDEN), np.int8),
            "middle_bias": np.zeros(HIDDEN, np.int32),
            "last": np.zeros((HIDDEN, 2 * size), np.int8),
            "last_bias": places,
            "line": np.zeros((KINDS - 1, NEIGHBOURS, size), np.int8),
        }
        arrays["line"][:, :4] = 16  # the mean of the nearest four
        arrays["level"][:] = np.arange(LEVELS + 1)[:, None] * 10
        arrays["middle"][:] = 64 * np.eye(HIDDEN)
        arrays["last"][:, size:] = 64  # larger numbers in smaller steps
        tensors |= {f"values.{g}.{name}": array for name, array in arrays.items()}
    return tensors


def block_codec(folder: Path) -> Codec:
    """The codec; its bundle is written into ``folder``."""
    context = folder / "context.safetensors"
    context.write_bytes(save(block_tensors()))
    files = {context.name: FileEntry.of(context, role="context", target="cwic", precision="int")}
    Bundle(folder, "blocks", MODEL_ID, N, LEVELS, 8, files, codes="values").save()
    return Codec(Bundle.load(folder), BlockRunner())


def drawn_values(
    size: tuple[int, int], seed: int = 0, *, smooth: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bytes of values of any size, with ``smooth`` none of them 0, and their levels."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, LEVELS + 1, size).astype(np.uint8)
    if smooth:
        slope = np.add.outer(*map(np.arange, size)) + rng.integers(0, 3, size)
        levels = np.minimum(slope // 2, LEVELS).astype(np.uint8)
    values = rng.integers(-LARGEST, LARGEST + 1, (N, *size)) >> rng.integers(0, 8, (N, *size))
    if smooth:
        values[values == 0] = 1
    having = np.repeat(FIRST_LEVELS, SIZES)[:, None, None] <= levels
    return (np.where(having, values, 0) + ZERO).astype(np.uint8), levels
