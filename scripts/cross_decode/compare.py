"""What the sides wrote and read, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["MAX_PIXEL_DIFFERENCE", "Comparison", "compare", "summary"]

MAX_PIXEL_DIFFERENCE = 1
_Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """The streams that one side wrote, read by itself and by another side.

    Attributes:
        encoder, decoder: names of the two sides.
        streams: number of streams that both read.
        codes, levels: streams with identical ones on both sides.
        written: streams whose codes and levels both sides write to identical bytes.
        pictures: streams that both sides restored to a picture.
        pixel_difference: the largest between their pictures, of 255.
    """

    encoder: str
    decoder: str
    streams: int
    codes: int
    levels: int
    written: int
    pictures: int
    pixel_difference: int

    @property
    def holds(self) -> bool:
        """Whether the two sides agree, on one stream at least."""
        exact = self.codes == self.levels == self.written == self.streams > 0
        return exact and self.pixel_difference <= MAX_PIXEL_DIFFERENCE

    def counts(self) -> dict[str, int]:
        """The numbers, without the names of the sides."""
        named = asdict(self)
        return {key: value for key, value in named.items() if isinstance(value, int)}


def compare(
    made: Mapping[str, _Entries], read: Mapping[str, _Entries], pixels: Path
) -> list[Comparison]:
    """Every side's streams against every side, itself included.

    Args:
        made: by side, what the worker printed for ``encode``.
        read: by side, what it printed for ``decode``.
        pixels: the folder of pictures, uint8 RGB, each under its hash.
    """
    by_stream = {side: {entry["stream"]: entry for entry in read[side]} for side in read}
    differences = _Differences(pixels)
    result = []
    for encoder in made:
        # The encoder's levels are known before they are coded: its own reading must give them.
        own = {
            entry["stream"]: {**by_stream[encoder][entry["stream"]], "levels": entry["levels"]}
            for entry in made[encoder]
        }
        for decoder in read:
            both = [(own[s], by_stream[decoder][s]) for s in own if s in by_stream[decoder]]
            shown = [(a["pixels"], b["pixels"]) for a, b in both if "pixels" in a and "pixels" in b]
            same = {
                what: sum(a[what] == b[what] for a, b in both)
                for what in ("codes", "levels", "written")
            }
            largest = max((differences.between(a, b) for a, b in shown), default=0)
            row = Comparison(
                encoder, decoder, len(both), **same, pictures=len(shown), pixel_difference=largest
            )
            result.append(row)
    return result


class _Differences:
    """The largest difference of two pictures, computed once a pair."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._known = folder, dict[frozenset[str], int]()

    def between(self, a: str, b: str) -> int:
        key = frozenset((a, b))
        if a == b:
            return 0
        if key not in self._known:
            first, second = ((self._folder / name).read_bytes() for name in (a, b))
            if len(first) != len(second):
                return 255
            self._known[key] = max(abs(x - y) for x, y in zip(first, second, strict=True))
        return self._known[key]


def summary(rows: Sequence[Comparison], made: Mapping[str, _Entries]) -> list[str]:
    """The outcome in lines of text: totals, what every encoder wrote, and what failed."""
    streams = sum(row.streams for row in rows)
    lines = [f"{len(made)} sides, {len(rows)} pairs of encoder and decoder, {streams} readings"]
    for what, name in (("codes", "codes"), ("levels", "levels"), ("written", "bytes written")):
        lines.append(f"{name} identical: {sum(getattr(r, what) for r in rows)} of {streams}")
    largest = max((row.pixel_difference for row in rows), default=0)
    pictures = sum(row.pictures for row in rows)
    lines.append(f"pictures compared: {pictures}; largest difference {largest} of 255")
    lines += _encoders(made)
    lines += [
        f"FAILED: {row.encoder} -> {row.decoder}: {row.counts()}" for row in rows if not row.holds
    ]
    return lines


def _encoders(made: Mapping[str, _Entries]) -> list[str]:
    """Whether encoders agree too; nothing demands it, as networks are computed in floats."""
    streams: dict[tuple[str, int], set[str]] = {}
    for entries in made.values():
        for entry in entries:
            streams.setdefault((entry["item"], entry["quality"]), set()).add(entry["stream"])
    several = [f"{item} at quality {q}" for (item, q), found in streams.items() if len(found) > 1]
    what = f"{len(streams) - len(several)} of {len(streams)} pictures and qualities"
    return [
        f"encoders that wrote the same file everywhere: {what}"
        + (f"; not: {', '.join(several)}" if several else "")
    ]
