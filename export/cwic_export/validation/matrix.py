"""Cross-decoding: every stream of every artefact, decoded by every other one.

Entropy decoding is the same code for all of them, in whole numbers, so each stream is
entropy-decoded once; what differs from artefact to artefact is the decoder graph.
"""

from __future__ import annotations

from collections.abc import Mapping

from cwic.backends import Runner
from cwic.container import Stream
from cwic.errors import StreamError
from cwic_export.validation.compare import Picture, View
from cwic_export.validation.report import Bytes, Crossing
from cwic_export.validation.tolerances import TOLERANCES, looser

__all__ = ["Matrix"]


class Matrix:
    """All ordered pairs of what runs, each with its worst differences.

    Args:
        precisions: that of each artefact, by label; the reference is one of them.
    """

    def __init__(self, precisions: Mapping[str, str]) -> None:
        self._cells: dict[tuple[str, str], Crossing] = {}
        known = {label: p for label, p in precisions.items() if p in TOLERANCES}
        for a, first in known.items():
            for b, second in known.items():
                limit = looser(TOLERANCES[first], TOLERANCES[second])
                self._cells[a, b] = Crossing(a, b, limit.pixel_largest, limit.pixel_mean)

    @property
    def crossings(self) -> list[Crossing]:
        """The pairs that were compared."""
        return [cell for cell in self._cells.values() if cell.streams]

    def add(self, picture: Picture, made: Mapping[str, tuple[Runner, list[View]]]) -> None:
        """One picture: for each artefact that runs, by label, its runner and its views.

        Raises:
            BackendError: a decoder fails.
        """
        read: dict[bytes, tuple[Bytes, Bytes] | None] = {}
        restored: dict[tuple[bytes, str], Bytes] = {}
        for (a, b), cell in self._cells.items():
            if a not in made or b not in made:
                continue
            for view in made[a][1]:
                stream = view.stream
                if stream not in read:
                    read[stream] = _read(picture, stream)
                found = read[stream]
                if found is None:
                    cell.add_lost()
                    continue
                if (stream, b) not in restored:
                    codes, levels = (part[None] for part in found)
                    restored[stream, b] = picture.decode(made[b][0], codes, levels)
                cell.add(
                    same_codes=_same(picture, view, *found),
                    restored=restored[stream, b],
                    own=view.restored,
                )


def _read(picture: Picture, stream: bytes) -> tuple[Bytes, Bytes] | None:
    """Codes and levels of a stream; None if it cannot be decoded."""
    try:
        return picture.codec.read_codes(Stream.from_bytes(stream))
    except StreamError:
        return None


def _same(picture: Picture, view: View, codes: Bytes, levels: Bytes) -> bool:
    return picture.digest(codes, levels) == picture.digest(view.codes, view.levels)
