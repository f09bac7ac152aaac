"""Throughput of many files against that of the network alone.

``python -m benchmarks.batch --images 'kodak/*.png' -o benchmarks/results/batch.json``

Four ways through the same pictures, in turns, with the cpu backend, for both directions:

* ``network``: a bare loop of the runner over pictures that are in memory already, one after
  the other on all cores;
* ``network_jobs``: the same in ``--jobs`` threads, with a runner that divides the cores;
* ``files``: :func:`cwic.batch.encode_files` or ``decode_files``, one job;
* ``files_jobs``: with ``--jobs``; this one reads, runs the network, codes and writes.

Times are medians over ``--repeat`` turns; ``cpu_ms`` is the time of all cores in this process.
``ratio`` is the throughput of ``files_jobs`` in parts of that of ``network``. The load average
before and after tells whether the machine was busy with something else: then what waits for all
cores suffers most, the ratio says little, and the times of cores say more.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks import command, environment
from cwic.batch import Pair, decode_files, encode_files, open_codec
from cwic.container import Stream
from cwic.image import open_rgb, pad_to_multiple

__all__ = ["main", "measure", "summary", "table"]

_WAYS = ("network", "network_jobs", "files", "files_jobs")
_SHOWN = ("network alone", "in jobs", "files, one job", "files in jobs")


def measure(
    paths: Sequence[Path], model: Path | None, jobs: int, repeat: int, quality: float
) -> dict[str, Any]:
    """The times of all ways, as plain JSON values."""
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        directions = _ways(paths, Path(folder), model, jobs, quality)
        times: dict[str, dict[str, list[tuple[float, float]]]] = {
            direction: {way: [] for way in _WAYS} for direction in directions
        }
        for turn in range(1 + repeat):
            for direction, ways in directions.items():
                for way, work in ways.items():
                    start, cpu = time.perf_counter(), time.process_time()
                    work()
                    taken = time.perf_counter() - start, time.process_time() - cpu
                    if turn:  # the first one loads the graphs
                        times[direction][way].append(taken)
        sizes = [path.stat().st_size for path in Path(folder).glob("*.cwic")]
    pixels = [open_rgb(path).shape[:2] for path in paths]
    return {
        **environment.describe(),
        "pictures": [path.name for path in paths],
        "megapixels": round(sum(height * width for height, width in pixels) / 1e6, 3),
        "stream_bytes": sum(sizes),
        "quality": quality,
        "jobs": jobs,
        "repeat": repeat,
        "load_average": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        **{direction: _row(found, len(paths)) for direction, found in times.items()},
    }


def _ways(
    paths: Sequence[Path], folder: Path, model: Path | None, jobs: int, quality: float
) -> dict[str, dict[str, Callable[[], object]]]:
    alone, shared = open_codec(model, "cpu"), open_codec(model, "cpu", jobs=jobs)
    images = [pad_to_multiple(open_rgb(path), alone.bundle.stride)[None] for path in paths]
    streams: list[Pair] = [(path, folder / f"{n}-{path.stem}.cwic") for n, path in enumerate(paths)]
    restored: list[Pair] = [(stream, stream.with_suffix(".png")) for _, stream in streams]
    encode_files(alone, streams, quality=quality)
    coded = [alone.read_codes(Stream.from_bytes(path.read_bytes())) for _, path in streams]

    def in_jobs(work: Callable[[Any], object], items: Sequence[Any]) -> None:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(work, items))

    return {
        "encode": {
            "network": lambda: [alone.runner.encode(image) for image in images],
            "network_jobs": lambda: in_jobs(shared.runner.encode, images),
            "files": lambda: encode_files(alone, streams, quality=quality),
            "files_jobs": lambda: encode_files(shared, streams, jobs=jobs, quality=quality),
        },
        "decode": {
            "network": lambda: [alone.runner.decode(c[None], lv[None]) for c, lv in coded],
            "network_jobs": lambda: in_jobs(
                lambda part: shared.runner.decode(part[0][None], part[1][None]), coded
            ),
            "files": lambda: decode_files(alone, restored),
            "files_jobs": lambda: decode_files(shared, restored, jobs=jobs),
        },
    }


def _row(times: Mapping[str, Sequence[tuple[float, float]]], pictures: int) -> dict[str, Any]:
    def each_ms(found: Sequence[float]) -> list[float]:
        return [round(1e3 * taken / pictures, 2) for taken in found]

    walls = {way: each_ms([wall for wall, _ in found]) for way, found in times.items()}
    cpus = {way: each_ms([cpu for _, cpu in found]) for way, found in times.items()}
    return {
        **{f"{way}_ms": median(found) for way, found in walls.items()},
        **{f"{way}_cpu_ms": median(found) for way, found in cpus.items()},
        "ratio": round(median(walls["network"]) / median(walls["files_jobs"]), 3),
        "runs_ms": walls,
    }


def summary(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines of text."""
    return [
        f"{direction}: "
        + ", ".join(f"{way} {result[direction][f'{way}_ms']:.1f}" for way in _WAYS)
        + f" ms a picture; {100 * result[direction]['ratio']:.0f} % of the network alone "
        f"(jobs {result['jobs']}, load {result['load_average'][0]})"
        for direction in ("encode", "decode")
    ]


def table(result: Mapping[str, Any]) -> str:
    """Markdown: times a picture by each way, and the share of the network's throughput."""
    lines = ["| | " + " | ".join(_SHOWN) + " | of the network |", "|---" * 6 + "|"]
    for direction in ("encode", "decode"):
        row = result[direction]
        cells = [f"{row[f'{way}_ms']:.1f} ms" for way in _WAYS]
        lines.append(f"| {direction} | {' | '.join(cells)} | {row['ratio']:.0%} |")
    lines += [
        "",
        f"A picture of Kodak's 24, {result['jobs']} jobs, {result['machine']['cores']} cores, load "
        f"{result['load_average'][0]} before ([batch.json](BASE/benchmarks/results/batch.json)).",
    ]
    return "\n".join(lines)


@click.command()
@command.images
@click.option("--model", type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Files at a time.")
@click.option("--repeat", default=5, show_default=True, help="Turns that are counted.")
@click.option("-q", "--quality", default=50.0, show_default=True)
@command.output
def main(
    images: list[Path], model: Path | None, jobs: int, repeat: int, quality: float, output: Path
) -> None:
    """Measure, write JSON, print the figures."""
    result = measure(images, model, jobs, repeat, quality)
    command.write(output, result)
    for line in summary(result):
        click.echo(line)


if __name__ == "__main__":
    main()
