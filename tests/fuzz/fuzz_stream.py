"""Atheris harness of the decoder: bytes to container, entropy coder and salvage.

``python -m tests.fuzz.fuzz_stream CORPUS...``; README.md beside it has the commands. Models are
the tiny ones, so that an input takes milliseconds; no network runs. An input is for the model
whose id it has, one of no model's for that of signs.

Checksums stop nearly all mutations, so most inputs are mutated as the frame that they are, a
section or a field at a time, or get their checksums repaired afterwards.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

atheris: Any = importlib.import_module("atheris")
with atheris.instrument_imports(include=["cwic"]):
    from .framing import Frame, number, parsed, repaired
    from .invariants import check
    from .tiny import MODEL_ID, VALUES_ID, tiny_codecs

MAX_PIXELS = 1 << 18
_SIDES = (1, 7, 8, 9, 24, 128, 129, 384, 1 << 12, 1 << 18, (1 << 24) - 1, 1 << 24)


def model_of(data: bytes) -> bytes:
    """The id of the model that an input is for."""
    return VALUES_ID if data[6:14] == VALUES_ID else MODEL_ID


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Another input; three of four as a frame, nine of ten of the others with checksums."""
    rng = np.random.default_rng(seed)
    frame, model_id = parsed(data), model_of(data)
    if frame is not None and rng.random() < 0.75:
        data = _other_frame(frame, rng).to_bytes()
    else:
        data = atheris.Mutate(data, max_size)
        if rng.random() < 0.9:
            data = repaired(data, model_id)
    return data[:max_size]


def _other_frame(frame: Frame, rng: np.random.Generator) -> Frame:
    tiles = [list(tile) for tile in frame.tiles]
    place, section = int(rng.integers(len(tiles))), int(rng.integers(2))
    old = tiles[place][section]
    match int(rng.integers(9)):
        case 0:
            return replace(frame, coder=int(rng.integers(128)))
        case 1:
            side = number(int(rng.choice(_SIDES)), int(rng.choice([1, 1, 1, 4])))
            return replace(frame, width=side) if section else replace(frame, height=side)
        case 2:
            tiles[place][section] = old[: int(rng.integers(len(old) + 1))]
        case 3:
            other = int(rng.integers(len(tiles)))
            tiles[place], tiles[other] = tiles[other], tiles[place]
        case 4:
            flags = int(rng.integers(32))
            extras = [*frame.extras, b"\0a", b"\1" + zlib.compress(old), b"\2", b"\0x"]
            extras = [atheris.Mutate(part, len(part) + 16) for part in extras]
            count = (flags >> 1).bit_count()
            return replace(frame, flags=flags, extras=tuple(extras[:count]))
        case _:
            tiles[place][section] = atheris.Mutate(old, len(old) + 16)
    return replace(frame, tiles=tuple((levels, codes) for levels, codes in tiles))


def main() -> None:
    """Run libFuzzer with the arguments of the command line."""
    with tempfile.TemporaryDirectory() as folder:
        codecs = {codec.bundle.model_id: codec for codec in tiny_codecs(Path(folder)).values()}

        def one_input(data: bytes) -> None:
            check(codecs[model_of(data)], data, MAX_PIXELS)

        atheris.Setup(sys.argv, one_input, custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
