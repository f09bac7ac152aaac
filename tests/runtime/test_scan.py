"""The coding order: every position once, and neighbours that are known by then."""

from __future__ import annotations

import numpy as np
import pytest

from cwic.scan import KINDS, NEIGHBOURS, PASSES

SIZES = [(1, 1), (1, 40), (33, 2), (16, 16), (17, 31), (40, 33), (69, 94)]
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")


def test_the_order_of_a_small_map() -> None:
    order = [scan.positions(3, 3).tolist() for scan in PASSES]
    # Flat indices: first corner; nothing at s = 8 and 4; the other corners; middle; the edges.
    assert order == [[0], [], [], [], [], [8], [2, 6], [4], [1, 7, 3, 5]]


def test_rows_come_one_after_the_other_within_a_lattice() -> None:
    assert PASSES[0].positions(33, 40).tolist() == [0, 16, 32, 640, 656, 672, 1280, 1296, 1312]
    assert PASSES[1].positions(33, 40).tolist() == [328, 344, 968, 984]
    straight = PASSES[2].positions(33, 40)
    rows, columns = np.divmod(straight, 40)
    assert rows.tolist() == [0, 0, 16, 16, 32, 32, 8, 8, 8, 24, 24, 24]
    assert columns.tolist() == [8, 24, 8, 24, 8, 24, 0, 16, 32, 0, 16, 32]


def test_kinds_and_distances() -> None:
    assert [scan.kind for scan in PASSES] == [6, 4, 5, 4, 5, 2, 3, 0, 1]
    assert {scan.kind for scan in PASSES} == set(range(KINDS))
    assert [scan.stride for scan in PASSES] == [16, 16, 16, 8, 8, 4, 4, 2, 2]
    assert PASSES[0].offsets == ()
    for scan in PASSES[1:]:
        assert len(scan.offsets) == len(set(scan.offsets)) == NEIGHBOURS
        distances = [dy * dy + dx * dx for dy, dx in scan.offsets]
        assert max(distances[:4]) < min(distances[4:]), "the nearest four are not the first"


@every_size
def test_every_position_is_coded_once(size: tuple[int, int]) -> None:
    order = np.concatenate([scan.positions(*size) for scan in PASSES])
    assert sorted(order.tolist()) == list(range(size[0] * size[1]))


@every_size
def test_neighbours_are_known_or_outside(size: tuple[int, int]) -> None:
    """And they are those that the offsets name: checked one by one, with plain integers."""
    height, width = size
    known: set[int] = set()
    for scan in PASSES:
        positions = scan.positions(*size)
        neighbours = scan.neighbours(positions, *size)
        assert neighbours.shape == (len(positions), len(scan.offsets))
        for position, row in zip(positions.tolist(), neighbours.tolist(), strict=True):
            y, x = divmod(position, width)
            for (dy, dx), found in zip(scan.offsets, row, strict=True):
                inside = 0 <= y + dy < height and 0 <= x + dx < width
                assert found == ((y + dy) * width + x + dx if inside else height * width)
                assert found in known or not inside
        known.update(positions.tolist())


@every_size
def test_a_near_neighbour_is_always_inside(size: tuple[int, int]) -> None:
    """So the mean of a level's neighbours is defined in every pass but the first."""
    for scan in PASSES[1:]:
        nearest = scan.neighbours(scan.positions(*size), *size)[:, :4]
        assert (nearest < size[0] * size[1]).any(axis=1).all()
