"""Entropy coding: speed of the rANS coder, bytes above the model's entropy, share of the time.

``python -m benchmarks.coding --images 'kodak/*.png' -o RESULT.json``

* ``rans``: symbols per second through the public functions of :mod:`cwic.rans`, checks of
  their arguments included, in C and in NumPy. Codes of the pictures, bits by probability or
  values by tables, repeated to a million symbols (NumPy: 2000 for each lane) in one pass.
* ``overhead``: bytes of whole files above the ideal code length of their codes and levels
  under the model, at two rates.
* ``profile``: where encoding and decoding spend their time (:mod:`benchmarks.stages`), with
  the cpu backend at the higher rate: of the pictures as they are, and of 1920x1080 pixels
  that the first picture fills by mirroring itself. Reading the files is not counted, nor is
  the search for a rate: pictures are encoded at the quality that comes nearest to it.

What is compared runs in turns; times are medians over ``--repeat`` runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest.mock import patch

import click
import numpy as np
from numpy.typing import NDArray

import cwic
from benchmarks import command, environment
from benchmarks.stages import profile
from cwic import rans
from cwic.container import CHUNK_BYTES, Stream
from cwic.errors import CwicError
from cwic.image import open_rgb
from cwic.level_model import Intervals
from cwic.tiles import tile_grid

__all__ = [
    "Coded",
    "Symbols",
    "coded",
    "implementations",
    "measure",
    "mirrored",
    "overhead",
    "rans_speed",
]

_Key = TypeVar("_Key", bound=Hashable)
Picture = NDArray[np.uint8]

_RATES_BPP = (0.25, 0.5)
_LANES = (1, 4, 8, 64)
_SYMBOLS = 1 << 20
_NUMPY_ROWS = 2000
_CRC_BYTES = 4
_LARGE_PX = (1080, 1920)


@dataclass(frozen=True)
class Coded:
    """A picture's file, taken apart again.

    Attributes:
        data: the file.
        stream: its parts.
        maps: levels of each tile, uint8 [h, w].
        levels, codes: what the entropy coder wrote, by tile.
    """

    data: bytes
    stream: Stream
    maps: list[NDArray[np.uint8]]
    levels: list[Intervals]
    codes: list[Intervals]


def coded(codec: cwic.Codec, picture: Picture, bpp: float) -> Coded:
    """Encode at a rate."""
    data = codec.encode_detailed(picture, bpp=bpp).data
    stream = Stream.from_bytes(data)
    codes, levels = codec.read_codes(stream)
    areas = [tile.area for tile in tile_grid(*stream.header.map_size, stream.header.tile)]
    maps = [levels[area] for area in areas]
    return Coded(
        data,
        stream,
        maps,
        [codec.context.levels.encode(part) for part in maps],
        [
            codec.context.codes.encode(codes[:, rows, columns], part)
            for (rows, columns), part in zip(areas, maps, strict=True)
        ],
    )


def overhead(files: Sequence[Coded]) -> dict[str, float]:
    """Bytes a file, on average, and those above the ideal code length in percent of it."""
    ideal = sum(part.bits for file in files for part in (*file.levels, *file.codes)) / 8
    sections = sum(file.stream.levels_bytes + file.stream.codes_bytes for file in files)
    checksums = sum(_CRC_BYTES * (1 + _sections(file.stream)) for file in files)
    size = sum(len(file.data) for file in files)
    pixels = sum(f.stream.header.width_px * f.stream.header.height_px for f in files)
    extra = {
        "rans": sections - ideal,
        "checksums": checksums,
        "header": size - sections - checksums,
        "all": size - ideal,
    }
    return {
        "bpp": round(8 * size / pixels, 4),
        "file_bytes": round(size / len(files), 1),
        "ideal_bytes": round(ideal / len(files), 1),
        **{f"{name}_bytes": round(value / len(files), 2) for name, value in extra.items()},
        **{f"{name}_percent": round(100 * value / ideal, 4) for name, value in extra.items()},
    }


def _sections(stream: Stream) -> int:
    """Parts with a checksum of their own: levels, and codes in chunks."""
    return sum(1 + -(-len(tile.codes) // CHUNK_BYTES) for tile in stream.tiles)


@dataclass(frozen=True)
class Symbols:
    """Symbols as a decoder is asked for them.

    Attributes:
        found: what they are, uint8.
        asked: probabilities of a 1, or rows of the tables.
        tables: None for bits.
    """

    found: NDArray[np.uint8]
    asked: NDArray[Any]
    tables: rans.Tables | None

    @classmethod
    def of(cls, codec: cwic.Codec, files: Sequence[Coded]) -> Symbols:
        """Those that decoding the files asks for, of the kind that there are most of: codes."""
        kinds: dict[rans.Tables | None, list[tuple[NDArray[Any], NDArray[np.uint8]]]] = {}
        bits, symbols = rans.Decoder.decode_bits, rans.Decoder.decode_symbols

        def decode_bits(self: rans.Decoder, p1: NDArray[np.uint16]) -> NDArray[np.uint8]:
            found = bits(self, p1)
            kinds.setdefault(None, []).append((p1, found))
            return found

        def decode_symbols(
            self: rans.Decoder, tables: rans.Tables, rows: NDArray[np.int32]
        ) -> NDArray[np.uint8]:
            found = symbols(self, tables, rows)
            kinds.setdefault(tables, []).append((rows, found))
            return found

        with (
            patch.object(rans.Decoder, "decode_bits", decode_bits),
            patch.object(rans.Decoder, "decode_symbols", decode_symbols),
        ):
            for file in files:
                codec.read_codes(file.stream)
        tables = max(kinds, key=lambda kind: sum(len(found) for _, found in kinds[kind]))
        asked, found = (np.concatenate(parts) for parts in zip(*kinds[tables], strict=True))
        return cls(found, asked, tables)

    def jobs(
        self, count: int, lanes: int, implementation: rans.Implementation
    ) -> dict[str, Callable[[], NDArray[np.uint8] | bytes]]:
        """What to time: each codes ``count`` symbols in one pass."""
        every = np.arange(count) % len(self.found)
        found, asked, tables = self.found[every], self.asked[every], self.tables
        if tables is None:
            intervals = rans.bit_intervals(found, asked)
        else:
            intervals = rans.symbol_intervals(found, tables.cumulative, asked)

        def encode() -> bytes:
            return rans.encode(*intervals, [count], lanes, implementation=implementation)

        data = encode()

        def decode() -> NDArray[np.uint8]:
            decoder = rans.Decoder(data, lanes, implementation=implementation)
            if tables is None:
                return decoder.decode_bits(asked)
            return decoder.decode_symbols(tables, asked)

        return {"encode": encode, "decode": decode}


def rans_speed(codec: cwic.Codec, files: Sequence[Coded], repeat: int) -> list[dict[str, Any]]:
    """Million symbols per second of each implementation and number of lanes.

    Args:
        codec: the model of the files.
        files: where the symbols come from.
        repeat: runs of each.
    """
    source = Symbols.of(codec, files)
    jobs, counts = {}, {}
    for name in implementations():
        for lanes in _LANES:
            counts[name, lanes] = _SYMBOLS if name == "c" else _NUMPY_ROWS * lanes
            for work, job in source.jobs(counts[name, lanes], lanes, name).items():
                jobs[name, lanes, work] = job
    times_ms = _in_turns(jobs, repeat)
    return [
        {
            "implementation": name,
            "lanes": lanes,
            "symbols": count,
            **{
                f"{work}_msymbols_per_s": round(count / times_ms[name, lanes, work] / 1e3, 3)
                for work in ("encode", "decode")
            },
        }
        for (name, lanes), count in counts.items()
    ]


def implementations() -> list[rans.Implementation]:
    """Those that can run here."""
    return ["numpy"] if rans.implementation() == "numpy" else ["c", "numpy"]


def _in_turns(jobs: Mapping[_Key, Callable[[], object]], repeat: int) -> dict[_Key, float]:
    """Median time of each job in ms, after a first run that is not counted."""
    times: dict[_Key, list[float]] = {key: [] for key in jobs}
    for _ in range(1 + repeat):
        for key, job in jobs.items():
            start = time.perf_counter()
            job()
            times[key].append(1e3 * (time.perf_counter() - start))
    return {key: median(taken[1:]) for key, taken in times.items()}


def mirrored(picture: Picture, height: int, width: int) -> Picture:
    """The picture and its mirror images side by side, cut to a size: uint8 [height, width, 3]."""
    missing = [(0, max(0, n - m)) for n, m in zip((height, width), picture.shape[:2], strict=True)]
    filled: Picture = np.pad(picture, (*missing, (0, 0)), "symmetric")
    return np.ascontiguousarray(filled[:height, :width])


def measure(paths: Sequence[Path], model: Path | None, repeat: int) -> dict[str, Any]:
    """Everything above for the pictures ``paths``, as plain JSON values."""
    codec = cwic.load(model, "cpu")
    pictures = {path.name: open_rgb(path) for path in paths}
    files = {bpp: [coded(codec, p, bpp) for p in pictures.values()] for bpp in _RATES_BPP}
    large = mirrored(pictures[paths[0].name], *_LARGE_PX)
    profiled = {**pictures, f"{paths[0].name}, mirrored": large}
    rate = max(_RATES_BPP)
    qualities = [f.stream.header.quality for f in (*files[rate], coded(codec, large, rate))]
    return {
        **environment.describe(),
        "model": codec.bundle.name,
        "model_id": codec.bundle.model_id.hex(),
        "pictures": list(pictures),
        "repeat": repeat,
        "rans": rans_speed(codec, files[rate], repeat),
        "overhead": [overhead(each) for each in files.values()],
        "profile": profile(profiled, dict(zip(profiled, qualities, strict=True)), model, repeat),
    }


def summary(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text."""
    lines = [
        f"rANS {r['implementation']:5} {r['lanes']:2} lanes, million symbols/s: "
        f"encode {r['encode_msymbols_per_s']:.2f}, "
        f"decode {r['decode_msymbols_per_s']:.2f}"
        for r in result["rans"]
    ]
    for o in result["overhead"]:
        parts = (f"{name} {o[f'{name}_percent']:.3f} %" for name in ("rans", "checksums", "header"))
        lines.append(
            f"{o['bpp']:.3f} bpp: {o['all_percent']:.3f} % above the ideal length "
            f"of {o['ideal_bytes']:.0f} bytes ({', '.join(parts)})"
        )
    for p in result["profile"]:
        for direction in ("encode", "decode"):
            times = p[direction]
            stages = (f"{k[:-3]} {v:.1f}" for k, v in times.items() if k.endswith("_ms"))
            lines.append(
                f"{p['size_px']} {direction}, threads {p['threads']}: {', '.join(stages)} ms; "
                f"coding {times['coding_percent']:.1f} %"
            )
    return lines


@click.command()
@command.images
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--repeat", default=5, show_default=True, help="Runs of what is timed.")
@command.output
def main(images: list[Path], model: Path | None, repeat: int, output: Path) -> None:
    """Measure, write JSON, print the figures."""
    try:
        result = measure(images, model, repeat)
    except CwicError as exc:
        raise click.ClickException(str(exc)) from exc
    command.write(output, result)
    for line in summary(result):
        click.echo(line)


if __name__ == "__main__":
    main()
