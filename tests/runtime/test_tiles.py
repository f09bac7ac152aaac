"""Tiles cover a map once, are about equally large and never too large."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cwic.tiles import Tile, tile_count, tile_grid


def test_a_grid_by_hand() -> None:
    """Rows of 10 positions in three parts begin at 0, 3 and 6."""
    assert tile_grid(3, 10, 4) == [Tile(0, 0, 3, 3), Tile(0, 3, 3, 3), Tile(0, 6, 3, 4)]
    assert tile_grid(5, 2, 4) == [Tile(0, 0, 2, 2), Tile(2, 0, 3, 2)]


@pytest.mark.parametrize(
    ("size", "side", "count"),
    [
        ((1, 1), 16, 1),
        ((16, 16), 16, 1),
        ((17, 16), 16, 2),
        ((17, 17), 16, 4),
        ((128, 128), 128, 1),
        ((128, 129), 128, 2),
        ((138, 188), 128, 4),
        ((1, 2048), 2048, 1),
        ((1, (1 << 20) // 8), 16, 1 << 13),
    ],
)
def test_counts(size: tuple[int, int], side: int, count: int) -> None:
    assert tile_count(*size, side) == count
    assert len(tile_grid(*size, side)) == count


@given(st.integers(1, 40), st.integers(1, 70), st.sampled_from([1, 2, 16, 32]))
@settings(max_examples=50, deadline=None)
def test_tiles_cover_a_map_once(height: int, width: int, side: int) -> None:
    visits = np.zeros((height, width), int)
    grid = tile_grid(height, width, side)
    for number, tile in enumerate(grid):
        assert visits[tile.area].shape == (tile.height, tile.width)
        assert 1 <= tile.height <= side
        assert 1 <= tile.width <= side
        visits[tile.area] += 1
        assert (tile.top, tile.left) >= (grid[number - 1].top, grid[number - 1].left) or not number
    assert (visits == 1).all()
    for lengths in ([tile.height for tile in grid], [tile.width for tile in grid]):
        assert max(lengths) - min(lengths) <= 1
