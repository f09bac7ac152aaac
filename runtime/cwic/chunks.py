"""How the codes sections of a stream are cut into chunks, each with its own checksum.

Chunks lie in rounds, one of each tile: of 4096 bytes, or in a progressive stream of several
tiles of an equal share of each, so that its tiles become finer together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["CHUNK_BYTES", "chunk_count", "chunks"]

CHUNK_BYTES = 4096
_ROUNDS, _SMALLEST = 16, 512


def chunks(sizes: Sequence[int], progressive: bool) -> Iterator[tuple[int, int, int]]:
    """``(tile, start, end)`` of every chunk, in file order.

    Args:
        sizes: bytes of the codes section of each tile.
        progressive: whether the stream is.
    """
    shared, rounds = _shared(sizes, progressive), _rounds(sizes, progressive)
    for r in range(rounds):
        for tile, size in enumerate(sizes):
            if shared:
                start, end = r * size // rounds, (r + 1) * size // rounds
            else:
                start, end = r * CHUNK_BYTES, min((r + 1) * CHUNK_BYTES, size)
            if start < end:
                yield tile, start, end


def chunk_count(sizes: Sequence[int], progressive: bool) -> int:
    """How many :func:`chunks` gives, whatever the sizes are, at once."""
    if _shared(sizes, progressive):
        rounds = _rounds(sizes, progressive)
        return sum(min(size, rounds) for size in sizes)
    return sum(-(-size // CHUNK_BYTES) for size in sizes)


def _shared(sizes: Sequence[int], progressive: bool) -> bool:
    return progressive and len(sizes) > 1


def _rounds(sizes: Sequence[int], progressive: bool) -> int:
    largest = max(sizes)
    rounds = -(-largest // CHUNK_BYTES)
    if _shared(sizes, progressive):
        return max(rounds, min(_ROUNDS, -(-largest // _SMALLEST)))
    return rounds
