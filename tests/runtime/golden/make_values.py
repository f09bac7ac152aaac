"""Makes ``values.json`` beside it: a tiny model of values, a map, and what they are coded to.

Run ``python tests/runtime/golden/make_values.py``. It follows FORMAT.md position by position
in whole numbers, and shares no code with the package, so that a mistake in one does not repeat
itself in the other. Weights are noise, as large as makes every clip of the formulas happen.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("values.json")
CONTEXT = runpy.run_path(str(Path(__file__).with_name("make_context.py")))
RANS, noise, clip = CONTEXT["RANS"], CONTEXT["noise"], CONTEXT["clip"]

SIZES, FIRST_LEVELS = [1, 3, 2, 2], [1, 2, 2, 4]
N, LEVELS, HIDDEN = sum(SIZES), 4, 6
HEIGHT, WIDTH = CONTEXT["HEIGHT"], CONTEXT["WIDTH"]  # its passes are of that size
LANES = 4
FEATURES = [0, *(min(3 + v, 60) for v in range(127))]


def tables() -> list[list[int]]:
    """Probabilities that fall to both sides of the mean, the faster the lower the place.

    Far symbols of low places have none, nor has symbol 0 of any row.
    """
    rows = []
    for row in range(512):
        reach, mean = 8 + row // 8 * 4, 8 * 31 + row % 8  # in 1/8
        weights = [max(0, 1000 * (reach - abs(8 * s - mean))) for s in range(63)]
        weights[0] = 0
        shares = [weight * 65535 // sum(weights) for weight in weights]
        rows.append([sum(shares[:s]) for s in range(64)])
    return rows


def network(g: int) -> dict[str, Any]:
    """The arrays of a group."""
    size, before, seed = SIZES[g], sum(SIZES[:g]), 100 + 10 * g
    return {
        "own": noise(seed, [6, 13 * size, HIDDEN], -30, 34),
        "earlier": noise(seed + 1, [3 * before, HIDDEN], -60, 70) if before else [],
        "level": noise(seed + 2, [LEVELS + 1, HIDDEN], -60, 100),
        "kind": noise(seed + 3, [7, HIDDEN], -60, 100),
        "middle": noise(seed + 4, [HIDDEN, HIDDEN], -60, 90),
        "middle_bias": noise(seed + 5, [HIDDEN], -3000, 3000),
        "last": noise(seed + 6, [HIDDEN, 2 * size], -40, 40),
        "last_bias": noise(seed + 7, [2 * size], -2000, 2600),
        "line": noise(seed + 8, [6, 12, size], -3 - 97 * (g // 3), 4 + 96 * (g // 3)),
    }


def predicted(
    t: dict[str, Any],
    kind: int,
    level: int,
    own: list[int],
    earlier: list[int],
    around: list[list[int]],
) -> list[tuple[int, int]]:
    """Row and c of each value of a group.

    Args:
        t: its arrays.
        kind: of the pass.
        level: of the position.
        own: values of the group at the known neighbours, neighbour by neighbour.
        earlier: values of the groups before at the position.
        around: of each of these the values at the eight positions around.
    """

    def feature(q: int) -> int:
        return FEATURES[abs(q)] * (1 if q > 0 else -1)

    size = len(t["last_bias"]) // 2
    u = [feature(q) for q in own]
    u += [(sum(FEATURES[abs(q)] for q in own[j::size]) + 2) // 4 for j in range(size)]
    v = [feature(q) for q in earlier] + [FEATURES[abs(q)] for q in earlier]
    v += [(sum(FEATURES[abs(q)] for q in each) + 2) // 4 for each in around]
    a1 = []
    for h in range(HIDDEN):
        z = 16 * (t["level"][level][h] + t["kind"][kind][h]) + 8
        z += sum(f * t["own"][kind][i][h] for i, f in enumerate(u)) if own else 0
        z += sum(f * t["earlier"][k][h] for k, f in enumerate(v))
        a1.append(clip(z // 16, 0, 255))
    a2 = []
    for h in range(HIDDEN):
        z = sum(a1[i] * t["middle"][i][h] for i in range(HIDDEN)) + t["middle_bias"][h]
        a2.append(clip((z + 32) // 64, 0, 255))
    z = [
        (sum(a2[i] * t["last"][i][j] for i in range(HIDDEN)) + t["last_bias"][j] + 32) // 64
        for j in range(2 * size)
    ]
    found = []
    for j in range(size):
        line = sum(q * t["line"][kind][i // size][j] for i, q in enumerate(own) if i % size == j)
        m = (2 * z[j] + line + 4) // 8
        row = 8 * clip((z[size + j] + 2) // 4 + 32, 0, 63) + m % 8
        found.append((row, clip(m // 8, -127, 127)))
    return found


def code(
    t: list[dict[str, Any]], table: list[list[int]], levels: list[list[int]], values: Any
) -> tuple[list[list[int]], Any]:
    """Row, c and symbol of every value in coding order, and the intervals of each pass."""
    found, intervals = [], []
    known: dict[tuple[int, int, int], int] = {}
    for g, size in enumerate(SIZES):
        first = sum(SIZES[:g])
        for kind, positions, offsets in CONTEXT["passes"]():
            part, others, made = [], [], {}
            for y, x in positions:
                if levels[y][x] < FIRST_LEVELS[g]:
                    continue
                own = [
                    known.get((first + j, y + dy, x + dx), 0)
                    for dy, dx in offsets
                    for j in range(size)
                ]
                earlier = [known[k, y, x] for k in range(first)]
                around = [
                    [
                        known.get((k, y + dy, x + dx), 0)
                        for dy in (-1, 0, 1)
                        for dx in (-1, 0, 1)
                        if dy or dx
                    ]
                    for k in range(first)
                ]
                here = predicted(t[g], kind, levels[y][x], own, earlier, around)
                for j, (row, c) in enumerate(here):
                    q = values[first + j][y][x]
                    symbol = q - c + 31
                    ends = [*table[row], 65536]
                    if not 0 <= symbol <= 62 or ends[symbol] == ends[symbol + 1]:
                        symbol = 63
                        others.append((256 * (q + 128), 256))
                    part.append((ends[symbol], ends[symbol + 1] - ends[symbol]))
                    found.append([row, c, symbol])
                    made[first + j, y, x] = q
            known |= made
            intervals += [part, others]
    return found, intervals


def content() -> Any:
    """Values, most of them small, some of any size, and some as large as there are."""
    sizes = noise(13, [N, HEIGHT, WIDTH], 0, 9)
    some, any_ = noise(14, [N, HEIGHT, WIDTH], -3, 3), noise(15, [N, HEIGHT, WIDTH], -127, 127)
    return [
        [
            [
                (127 if any_[k][y][x] > 0 else -127)
                if size == 9
                else any_[k][y][x]
                if size == 8
                else some[k][y][x]
                for x, size in enumerate(row)
            ]
            for y, row in enumerate(rows)
        ]
        for k, rows in enumerate(sizes)
    ]


def values() -> dict[str, Any]:
    coarse, fine = noise(10, [5, 6], 0, LEVELS), noise(12, [HEIGHT, WIDTH], -1, 1)
    levels = [
        [clip(coarse[y // 4][x // 4] + fine[y][x], 0, LEVELS) for x in range(WIDTH)]
        for y in range(HEIGHT)
    ]
    networks, table, q = [network(g) for g in range(len(SIZES))], tables(), content()
    found, intervals = code(networks, table, levels, q)
    tensors = {
        "levels.frequencies": CONTEXT["frequencies"](),
        "values.sizes": SIZES,
        "values.first_levels": FIRST_LEVELS,
        "values.steps": [0, 2, 1, 0.5, 0.25],
        "values.bits": [0, 4, 30, 40, 60],
        "values.features": FEATURES,
        "values.cumulative": table,
    }
    for g, arrays in enumerate(networks):
        tensors |= {f"values.{g}.{name}": array for name, array in arrays.items()}
    level_intervals = CONTEXT["code_levels"](tensors["levels.frequencies"], levels)[1]
    return {
        "n": N,
        "levels": LEVELS,
        "tensors": tensors,
        "map": levels,
        "values": q,
        "rows": [row for row, _, _ in found],
        "centres": [c for _, c, _ in found],
        "symbols": [symbol for _, _, symbol in found],
        "lanes": LANES,
        "levels_section": RANS["encode"](level_intervals, 1).hex(),
        "codes_section": RANS["encode"](intervals, LANES).hex(),
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
