"""Makes ``context.json`` beside it: a tiny entropy model, a map, and what they are coded to.

Run ``python tests/runtime/golden/make_context.py``. It follows FORMAT.md position by position
in whole numbers, and shares no code with the package, so that a mistake in one does not repeat
itself in the other. Weights are noise, as large as makes every clip of the formulas happen.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("context.json")
RANS = runpy.run_path(str(Path(__file__).with_name("make_rans.py")))

N, LEVELS, HIDDEN = 8, 4, 3
SIZE = N // LEVELS
HEIGHT, WIDTH = 19, 21
LANES = 4

Place = tuple[int, int]


def noise(seed: int, shape: list[int], low: int, high: int) -> Any:
    """Whole numbers low..high in nested lists."""
    count = 1
    for length in shape:
        count *= length
    values: Any = [low + v for v in RANS["noise"](seed, count, high - low + 1)]
    for length in reversed(shape[1:]):
        values = [values[i : i + length] for i in range(0, len(values), length)]
    return values


def passes() -> Iterator[tuple[int, list[Place], list[Place]]]:
    """Kind, positions in coding order and offsets of the known neighbours of each pass."""
    first = [(y, x) for y in range(0, HEIGHT, 16) for x in range(0, WIDTH, 16)]
    yield 6, first, []
    for s, kind in ((8, 4), (4, 4), (2, 2), (1, 0)):
        odd_y, odd_x = range(s, HEIGHT, 2 * s), range(s, WIDTH, 2 * s)
        even_y, even_x = range(0, HEIGHT, 2 * s), range(0, WIDTH, 2 * s)
        corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
        far = [(-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)]
        yield (
            kind,
            [(y, x) for y in odd_y for x in odd_x],
            [(dy * s, dx * s) for dy, dx in corners + far],
        )
        edges = [(-1, 0), (0, -1), (0, 1), (1, 0)]
        far = [(-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)]
        yield (
            kind + 1,
            [(y, x) for y in even_y for x in odd_x] + [(y, x) for y in odd_y for x in even_x],
            [(dy * s, dx * s) for dy, dx in edges + far],
        )


def inside(y: int, x: int) -> bool:
    return 0 <= y < HEIGHT and 0 <= x < WIDTH


def clip(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def level_row(kind: int, around: list[int]) -> int:
    """Row of the table, from the levels of the nearest four that are inside the map."""
    mean = spread = 0
    if around:
        count = len(around)
        mean = (2 * sum(around) + count // 2) // count
        difference = max(around) - min(around)
        spread = 3 if difference >= 4 else 2 if difference >= 2 else difference
    return (kind * (2 * LEVELS + 1) + mean) * 4 + spread


def code_levels(table: list[list[int]], levels: list[list[int]]) -> tuple[list[int], Any]:
    """Rows in coding order, and the intervals of each pass."""
    rows, intervals = [], []
    known: dict[Place, int] = {}
    for kind, positions, offsets in passes():
        part = []
        for y, x in positions:
            near = [(y + dy, x + dx) for dy, dx in offsets[:4]]
            row = level_row(kind, [known[place] for place in near if inside(*place)])
            level = levels[y][x]
            rows.append(row)
            part.append((sum(table[row][:level]), table[row][level]))
        known |= {(y, x): levels[y][x] for y, x in positions}
        intervals.append(part)
    return rows, intervals


def code_step(
    t: dict[str, Any], seen: list[list[int]], bits: Any, signs: Any, g: int, members: set[Place]
) -> tuple[list[int], Any]:
    """p1 of every bit of one group at some positions, and the intervals of the nine passes.

    ``signs`` has what is known, by channel, row and column, and is filled.
    """
    p1, intervals = [], []
    for kind, positions, offsets in passes():
        part, made = [], {}
        for y, x in (place for place in positions if place in members):
            own = []
            for dy, dx in offsets:
                own += [signs.get((g * SIZE + j, y + dy, x + dx), 0) for j in range(SIZE)]
            a1 = []
            for h in range(HIDDEN):
                z = t["level"][g][seen[y][x]][h] + t["kind"][kind][g][h]
                for i, sign in enumerate(own):
                    z += sign * t["own"][kind][g][i][h]
                for k in range(g * SIZE):
                    z += signs[k, y, x] * t["earlier"][g][k][h]
                a1.append(clip(z, 0, 255))
            a2 = []
            for h in range(HIDDEN):
                z = sum(a1[i] * t["middle"][g][i][h] for i in range(HIDDEN))
                a2.append(clip((z + t["middle_bias"][g][h] + 32) // 64, 0, 255))
            for j in range(SIZE):
                z = sum(a2[i] * t["last"][g][i][j] for i in range(HIDDEN))
                z = clip((z + t["last_bias"][g][j] + 32) // 64, -384, 383)
                p = t["p1"][z + 384]
                bit = bits[g * SIZE + j][y][x]
                p1.append(p)
                part.append((65536 - p, p) if bit else (0, 65536 - p))
                made[g * SIZE + j, y, x] = 2 * bit - 1
        signs |= made
        intervals.append(part)
    return p1, intervals


PLACES = [(y, x) for y in range(HEIGHT) for x in range(WIDTH)]


def code_plain(t: dict[str, Any], levels: list[list[int]], bits: Any) -> tuple[list[int], Any]:
    """p1 of every bit in coding order, and the intervals of each pass."""
    p1, intervals, signs = [], [], {}  # type: ignore[var-annotated]
    for g in range(LEVELS):
        members = {(y, x) for y, x in PLACES if levels[y][x] > g}
        found, made = code_step(t, levels, bits, signs, g, members)
        p1 += found
        intervals += made
    return p1, intervals


STAGES = ((4, 0, range(1, 9)), (2, -2, range(9, 15)), (1, -2, range(15, 17)))
"""Divisor of a, what is added to its multiple to give v, layers."""


def code_levels_of_stage(
    table: list[list[int]], levels: list[list[int]], stage: int
) -> tuple[list[list[int]], Any]:
    """v of every position, and the intervals of the nine passes."""
    divisor, add, _ = STAGES[stage]
    prefix = [[(level + 2) // divisor for level in row] for row in levels]
    v = [[clip(divisor * p + add, 0, LEVELS) for p in row] for row in prefix]
    intervals = []
    for kind, positions, offsets in passes():
        part = []
        for y, x in positions:
            near = [(y + dy, x + dx) for dy, dx in offsets[:4]]
            row = level_row(kind, [v[j][i] for j, i in near if inside(j, i)])
            first = 0 if stage == 0 else 2 * ((levels[y][x] + 2) // (2 * divisor))
            symbols = (LEVELS + 2) // divisor + 2 if stage == 0 else 2
            weights = [
                sum(table[row][k] for k in range(LEVELS + 1) if (k + 2) // divisor == first + s)
                for s in range(symbols)
            ]
            total = max(1, sum(weights))
            ends = [s + sum(weights[:s]) * (65536 - symbols) // total for s in range(symbols)] + [
                65536
            ]
            s = prefix[y][x] - first
            part.append((ends[s], ends[s + 1] - ends[s]))
        intervals.append(part)
    return v, intervals


def code_progressive(
    table: list[list[int]], t: dict[str, Any], levels: list[list[int]], bits: Any
) -> tuple[Any, Any]:
    """The intervals of both sections."""
    signs: dict[tuple[int, int, int], int] = {}
    done = dict.fromkeys(PLACES, 0)  # groups
    sections: tuple[list[Any], list[Any]] = [], []
    for stage, (_, _, layers) in enumerate(STAGES):
        v, made = code_levels_of_stage(table, levels, stage)
        sections[stage > 0].extend(made)
        for layer in layers:
            reach = {(y, x): max(done[y, x], (v[y][x] * layer + 8) // 16) for y, x in PLACES}
            for g in range(LEVELS):
                members = {place for place in PLACES if done[place] <= g < reach[place]}
                if members:
                    sections[1].extend(code_step(t, v, bits, signs, g, members)[1])
            done = reach
    return sections


def frequencies() -> list[list[int]]:
    """Rows of positive numbers that sum to 65536."""
    rows = []
    for weights in noise(1, [7 * (2 * LEVELS + 1) * 4, LEVELS + 1], 0, 1000):
        weights[0] += 1
        row = [1 + weight * (65536 - LEVELS - 1) // sum(weights) for weight in weights]
        row[0] += 65536 - sum(row)
        rows.append(row)
    return rows


def values() -> dict[str, Any]:
    codes = {
        "own": noise(2, [6, LEVELS, 12 * SIZE, HIDDEN], -128, 127),
        "earlier": noise(3, [LEVELS, N, HIDDEN], -128, 127),
        "level": noise(4, [LEVELS, LEVELS + 1, HIDDEN], -100, 200),
        "kind": noise(5, [7, LEVELS, HIDDEN], -100, 200),
        "middle": noise(6, [LEVELS, HIDDEN, HIDDEN], -60, 127),
        "middle_bias": noise(7, [LEVELS, HIDDEN], -3000, 3000),
        "last": noise(8, [LEVELS, HIDDEN, SIZE], -90, 127),
        "last_bias": noise(9, [LEVELS, SIZE], -9000, 14000),
        "p1": [1 + 65534 * i // 767 for i in range(768)],
    }
    for g in range(LEVELS):
        codes["earlier"][g][g * SIZE :] = [[0] * HIDDEN for _ in range(N - g * SIZE)]
    coarse, fine = noise(10, [5, 6], 0, LEVELS), noise(12, [HEIGHT, WIDTH], -1, 1)
    levels = [
        [clip(coarse[y // 4][x // 4] + fine[y][x], 0, LEVELS) for x in range(WIDTH)]
        for y in range(HEIGHT)
    ]
    bits = noise(11, [N, HEIGHT, WIDTH], 0, 1)
    table = frequencies()
    rows, level_intervals = code_levels(table, levels)
    p1, code_intervals = code_plain(codes, levels, bits)
    layered = code_progressive(table, codes, levels, bits)
    tensors = {"levels.frequencies": table} | {f"codes.{k}": v for k, v in codes.items()}
    return {
        "n": N,
        "levels": LEVELS,
        "tensors": tensors,
        "map": levels,
        "bits": bits,
        "rows": rows,
        "p1": p1,
        "lanes": LANES,
        "levels_section": RANS["encode"](level_intervals, 1).hex(),
        "codes_section": RANS["encode"](code_intervals, LANES).hex(),
        "progressive_levels_section": RANS["encode"](layered[0], 1).hex(),
        "progressive_codes_section": RANS["encode"](layered[1], LANES).hex(),
    }


def text() -> str:
    made = values()
    tensors = ",\n".join(f"{json.dumps(k)}: {_compact(v)}" for k, v in made["tensors"].items())
    rest = ",\n".join(f"{json.dumps(k)}: {_compact(v)}" for k, v in made.items() if k != "tensors")
    return f'{{"tensors": {{\n{tensors}}},\n{rest}}}\n'


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="ascii")
