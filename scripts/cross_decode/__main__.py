"""Prove that streams cross-decode: every side's streams, read by every side.

``python -m scripts.cross_decode`` needs only the standard library. docs/cross-decode.md says
what a side is, what is compared and what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.cross_decode import aarch64, native
from scripts.cross_decode.compare import compare, summary
from scripts.cross_decode.native import PYTHONS, ROOT, Machine
from scripts.cross_decode.shell import CrossDecodeError, run

WORKER = Path(__file__).with_name("worker.py")
VARIANTS = (("c", 1), ("c", 4), ("numpy", 1), ("numpy", 4))
EMULATED_VARIANTS = (("c", 4), ("numpy", 1))
QUALITIES = (20, 70)
PROGRESSIVE = (70,)
# The largest: two tiles, and too slow for the network of an emulated machine.
WHOLE = "both 1536x512"
# Files, set side by side, and the part that is coded. The second crop needs padding.
PICTURES: dict[str, tuple[tuple[str, ...], tuple[int, int, int, int]]] = {
    "kodim03 96x96": (("kodim03.png",), (208, 208, 304, 304)),
    "kodim23 93x61": (("kodim23.png",), (300, 100, 393, 161)),
    WHOLE: (("kodim03.png", "kodim23.png"), (0, 0, 1536, 512)),
}
SUITES = ("bookworm", "trixie")


@dataclass(frozen=True)
class Side:
    """One way to run the codec."""

    machine: Machine
    coder: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.machine.name}/{self.coder}/{self.threads}"

    def work(self, what: str, job: dict[str, Any]) -> dict[str, Any]:
        """Run the worker; its results and its facts."""
        threads = str(self.threads)
        env = {**self.machine.env, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        if self.coder == "numpy":
            env["CWIC_RANS"] = "numpy"
        command: list[str | Path] = [*self.machine.command, WORKER, what, threads]
        answer: dict[str, Any] = json.loads(run(command, env, json.dumps(job)))
        if answer["about"]["coder"] != self.coder:
            raise CrossDecodeError(
                f"{self.name} ran the coder {answer['about']['coder']}; delete the cache and retry"
            )
        return answer


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        result = prove(options)
    except CrossDecodeError as exc:
        print(f"cross-decode: {exc}", file=sys.stderr)
        return 1
    output: Path = options.output or options.cache / "result.json"
    part = output.with_name(f"{output.name}.part")
    part.write_text(_as_text(result))
    part.replace(output)
    print("\n".join(result["summary"]), f"written to {output}", sep="\n")
    return 0 if result["holds"] else 1


def _as_text(result: dict[str, Any]) -> str:
    """JSON with a line for each summary, side, stream and comparison."""
    parts = []
    for key, value in result.items():
        if isinstance(value, dict):
            lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
            text = "{\n  " + ",\n  ".join(lines) + "\n }"
        elif isinstance(value, list):
            text = "[\n  " + ",\n  ".join(json.dumps(v) for v in value) + "\n ]"
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.cross_decode", description=__doc__)
    add = parser.add_argument
    add("--cache", type=Path, default=ROOT / "build" / "cross-decode", help="downloads and builds")
    add("-o", "--output", type=Path, help="JSON result (default: result.json in the cache)")
    add("--suite", action="append", help=f"Debian suite for aarch64 (default: {SUITES})")
    add("--cpu", action="append", help="emulated processor (default: cortex-a76)")
    add("--native-only", action="store_true", help="no aarch64; needs no further tools")
    add(
        "--emulated-whole",
        choices=("skip", "codes", "pictures"),
        default="codes",
        help="what emulated machines do with the largest picture: nothing, read and write "
        "the codes of others (default), or encode and restore it too (minutes each)",
    )
    add("--jobs", type=int, default=os.cpu_count() or 1, help="sides that run at a time")
    return parser


def prove(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare the machines, encode on each side, decode on each side, compare."""
    if not options.native_only and (missing := aarch64.missing_tools()):
        raise CrossDecodeError(
            f"missing: {', '.join(missing)}; {aarch64.REMEDY}, or pass --native-only"
        )
    started = time.monotonic()
    cache: Path = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    pythons = native.find_pythons()
    machines = _machines(options, cache, pythons)
    prepared = time.monotonic()
    sides = [
        Side(machine, coder, threads)
        for machine in machines
        for coder, threads in (EMULATED_VARIANTS if machine.emulated else VARIANTS)
    ]
    with tempfile.TemporaryDirectory(dir=cache) as name:
        pixels = Path(name, "pixels")
        pixels.mkdir()
        made = _on_each(sides, options, lambda side: _encode(side, options, Path(name)))
        streams = {e["stream"]: e for answer in made.values() for e in answer["results"]}
        read = _on_each(
            sides, options, lambda side: _decode(side, options, streams.values(), Path(name))
        )
        results = {side: answer["results"] for side, answer in made.items()}
        rows = compare(results, {s: a["results"] for s, a in read.items()}, pixels)
    absent = [f"Python {version}" for version in PYTHONS if version not in pythons]
    absent += ["aarch64"] if options.native_only else []
    taken = [round(t, 1) for t in (prepared - started, time.monotonic() - prepared)]
    return {
        "holds": all(row.holds for row in rows),
        "summary": [
            *summary(rows, results),
            f"absent: {', '.join(absent) or 'nothing'}",
            f"time_s: {taken[0]} to prepare, {taken[1]} to encode, decode and compare",
        ],
        "emulated_whole": options.emulated_whole,
        "sides": {side: answer["about"] for side, answer in read.items()},
        "streams": list(streams.values()),
        "comparisons": {f"{r.encoder} -> {r.decoder}": r.counts() for r in rows},
    }


def _machines(options: argparse.Namespace, cache: Path, pythons: dict[str, str]) -> list[Machine]:
    if not pythons:
        raise CrossDecodeError(
            f"no Python of {', '.join(PYTHONS)} with its venv module was found; "
            "install one (on Debian: apt install python3-venv python3-dev)"
        )
    wheel = native.build_wheel(cache, next(iter(pythons.values())), "native")
    with ThreadPoolExecutor(options.jobs) as pool:
        here = list(pool.map(lambda v: native.native(cache, v, pythons[v], wheel), pythons))
    if options.native_only:
        return here
    # By the newest pip: one that runs on 3.10 takes only what 3.10 can use, whatever it is told.
    host_python = Path(here[-1].command[0])
    # Emulated machines first: they take longest.
    return [
        aarch64.emulated(cache, suite, cpu, host_python)
        for suite in options.suite or SUITES
        for cpu in options.cpu or ("cortex-a76",)
    ] + here


def _encode(side: Side, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    items = [
        {
            "name": name,
            "pictures": [str(ROOT / "assets" / file) for file in files],
            "box": box,
            "qualities": QUALITIES,
            "progressive": PROGRESSIVE,
        }
        for name, (files, box) in PICTURES.items()
        if name != WHOLE or not side.machine.emulated or options.emulated_whole == "pictures"
    ]
    return side.work("encode", {"streams": str(folder), "items": items})


def _decode(
    side: Side, options: argparse.Namespace, streams: Iterable[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    wanted = []
    for stream in streams:
        slow = side.machine.emulated and stream["item"] == WHOLE
        if slow and options.emulated_whole == "skip":
            continue
        wanted.append(
            {
                "path": str(folder / stream["stream"]),
                "width_px": stream["width_px"],
                "height_px": stream["height_px"],
                "pixels": not slow or options.emulated_whole == "pictures",
            }
        )
    return side.work("decode", {"pixels": str(folder / "pixels"), "streams": wanted})


def _on_each(
    sides: Sequence[Side], options: argparse.Namespace, work: Callable[[Side], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(options.jobs) as pool:
        return dict(zip((side.name for side in sides), pool.map(work, sides), strict=True))


if __name__ == "__main__":
    sys.exit(main())
