"""Makes ``rans.json`` beside it, with a scalar coder that follows the definition literally.

Run ``python tests/runtime/golden/make_rans.py``. It shares no code with the package, so that a
mistake in one does not repeat itself in the other.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("rans.json")


def intervals(part: dict[str, Any]) -> list[tuple[int, int]]:
    """The (start, freq) of each value of a pass."""
    if "p1" in part:
        halves = [((0, 65536 - p), (65536 - p, p)) for p in part["p1"]]
        return [half[bit] for half, bit in zip(halves, part["values"], strict=True)]
    tables = [[(a, b - a) for a, b in pairwise(table)] for table in part["cumulative"]]
    return [tables[row][s] for row, s in zip(part["rows"], part["values"], strict=True)]


def encode(passes: list[list[tuple[int, int]]], lanes: int) -> bytes:
    states = [1 << 24] * lanes
    words: list[int] = []
    for part in reversed(passes):
        for i, (start, freq) in reversed(list(enumerate(part))):
            x = states[i % lanes]
            if x >= freq << 24:
                words.append(x & 0xFFFF)
                x >>= 16
            states[i % lanes] = (x // freq << 16) + x % freq + start
    head = b"".join(x.to_bytes(5, "little") for x in states)
    return head + b"".join(word.to_bytes(2, "little") for word in reversed(words))


def noise(seed: int, count: int, end: int) -> list[int]:
    """Numbers in [0, end) from a linear congruential generator: the same for ever."""
    values = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % (1 << 31)
        values.append((seed >> 8) * end >> 23)
    return values


def bits(seed: int, count: int) -> dict[str, Any]:
    p1 = [1 + p for p in noise(seed, count, 65535)]
    values = [int(u < p) for u, p in zip(noise(seed + 1, count, 65536), p1, strict=True)]
    return {"p1": p1, "values": values}


def symbols(seed: int, count: int) -> dict[str, Any]:
    tables = [[0, 1, 1, 40000, 65536], [0, 16384, 32768, 49152, 65536], [0, 0, 65535, 65536, 65536]]
    allowed = [[0, 2, 3], [0, 1, 2, 3], [1, 2]]  # the symbols of non-zero width
    rows = noise(seed, count, len(tables))
    picks = noise(seed + 1, count, 12)
    values = [allowed[t][pick % len(allowed[t])] for t, pick in zip(rows, picks, strict=True)]
    return {"cumulative": tables, "rows": rows, "values": values}


def cases() -> list[dict[str, Any]]:
    extremes = {"p1": [1, 1, 65535, 65535, 32768], "values": [1, 0, 1, 0, 1]}
    nothing: dict[str, Any] = {"p1": [], "values": []}
    found: list[dict[str, Any]] = [
        {"name": "no symbol", "lanes": 2, "passes": []},
        {"name": "extreme probabilities", "lanes": 1, "passes": [extremes]},
        {"name": "bits", "lanes": 4, "passes": [bits(1, 30)]},
        {"name": "symbols", "lanes": 2, "passes": [symbols(3, 30)]},
        {
            "name": "mixed, with empty and short passes",
            "lanes": 8,
            "passes": [bits(5, 3), nothing, symbols(7, 21), extremes, bits(9, 8), nothing],
        },
        {"name": "most lanes", "lanes": 64, "passes": [symbols(11, 65)]},
    ]
    for case in found:
        coded = encode([intervals(part) for part in case["passes"]], case["lanes"])
        case["stream"] = coded.hex()
    return found


def text() -> str:
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="ascii")
