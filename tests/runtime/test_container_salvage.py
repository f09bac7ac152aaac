"""What is salvaged of streams that were cut or damaged."""

from __future__ import annotations

import pytest
from tests.runtime.sample_streams import DATA, HEAD, SIZES, flipped, rounds

from cwic.container import Sections, Stream
from cwic.errors import (
    StreamError,
    TruncatedError,
)


@pytest.mark.parametrize("length", range(len(HEAD) + 4))
def test_without_its_header_nothing_is_salvaged(length: int) -> None:
    with pytest.raises(TruncatedError):
        Stream.salvage(DATA[:length])


def test_a_damaged_header_is_not_salvaged() -> None:
    for place in range(8 * (len(HEAD) + 4)):
        with pytest.raises(StreamError):
            Stream.salvage(flipped(DATA, place))


def test_every_cut_keeps_the_bytes_before_it() -> None:
    stream, data = rounds()
    sections = len(data) - stream.levels_bytes - stream.codes_bytes - 4 * (6 + 9)
    ends, at = [], sections  # (start, end, tile, bytes of its codes before and then); levels: -1
    for tile, part in enumerate(stream.tiles):
        at += len(part.levels or b"") + 4
        ends.append((at, at, tile, -1, -1))
    for start in (0, 4096, 8192):
        for tile, size in enumerate(SIZES):
            if start < size:
                size_then = min(size, start + 4096)
                ends.append((at, at + size_then - start + 4, tile, start, size_then))
                at = ends[-1][1]
    assert at == len(data)
    cuts = {min(len(data), max(sections, e[1] + d)) for e in ends for d in (-9, -4, -1, 0, 1, 9)}
    for cut in sorted(cuts):
        found = Stream.salvage(data[:cut])
        assert found.header == stream.header
        for tile, whole in enumerate(stream.tiles):
            own = [
                (start, end, before, then)
                for start, end, owner, before, then in ends
                if owner == tile
            ]
            levels = whole.levels if own[0][1] <= cut else None
            # Of the chunk that the cut is in, what there is of it.
            reached = [
                min(then, before + cut - start)
                for start, _, before, then in own[1:]
                if start <= cut
            ]
            codes = whole.codes[: max([0, *reached])]
            complete = levels is not None and codes == whole.codes
            without_checksum = [
                min(then - before, cut - start)
                for start, end, before, then in own[1:]
                if start <= cut < end
            ]
            unchecked = sum(without_checksum)  # of one chunk at most
            assert found.tiles[tile] == Sections(levels, codes, complete, unchecked)
        if cut < len(data):
            with pytest.raises(TruncatedError):
                Stream.from_bytes(data[:cut])


def test_a_flipped_bit_costs_one_tile_what_follows_it() -> None:
    stream, data = rounds()
    first = data.index(stream.tiles[0].codes[:4096])
    for number, (place, tile, kept) in enumerate(
        [
            (first, 0, 0),
            (first + 4095, 0, 0),
            (first + 4096, 0, 0),  # the checksum itself
            (data.index(stream.tiles[0].codes[4096:8192]), 0, 4096),
            (data.index(stream.tiles[0].codes[8192:]), 0, 8192),
            (data.index(stream.tiles[5].codes[4096:]), 5, 4096),
            (first + 3 * 4100, 4, 0),
        ]
    ):
        found = Stream.salvage(flipped(data, 8 * place + number))
        for i, (mine, whole) in enumerate(zip(found.tiles, stream.tiles, strict=True)):
            cut = Sections(whole.levels, whole.codes[:kept], complete=False)
            assert mine == (cut if i == tile else whole)


def test_flipped_levels_cost_their_tile_alone() -> None:
    stream, data = rounds()
    start = data.index(b"\x02\x02\x02")
    found = Stream.salvage(flipped(data, 8 * start + 3))
    for i, (mine, whole) in enumerate(zip(found.tiles, stream.tiles, strict=True)):
        assert mine == (Sections(None, whole.codes, complete=False) if i == 2 else whole)
