"""How long each part of the codec takes, on one thread and on all.

Every number of threads has a process of its own, because the threads of NumPy's matrix
products are chosen when it is loaded. The processes take turns, a picture at a time, so that
whatever else the machine does meets all of them.

Stages of the codec, in ms of its own work::

    network     the encoder or decoder graph
    context     probabilities of codes
    levels      choice of the rows of the levels' tables
    rans        symbols to bytes and back
    container   layout and checksums
    other       padding, rates, cutting into tiles, cropping

``coding`` is all of it but the network and ``other``.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from pathlib import Path
from statistics import fmean, median
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import cwic
from cwic import rans
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.container import Stream

__all__ = ["profile", "stopwatch"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
Times = dict[str, float]
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("MKL", "OMP", "OPENBLAS")}


@dataclass
class Stopwatch:
    """Times of measured calls, in ms.

    Attributes:
        own: by stage, without the measured calls that were made inside.
        whole: by stage, with them.
    """

    own: Times = field(default_factory=lambda: defaultdict(float))
    whole: Times = field(default_factory=lambda: defaultdict(float))
    _inside: list[float] = field(default_factory=list)

    def timed(self, stage: str, call: Callable[_P, _R]) -> Callable[_P, _R]:
        """``call``, measured; not for several threads at a time."""

        @wraps(call)
        def measured(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                taken = 1e3 * (time.perf_counter() - start)
                self.own[stage] += taken - self._inside.pop()
                self.whole[stage] += taken
                if self._inside:
                    self._inside[-1] += taken

        return measured


@contextlib.contextmanager
def stopwatch(codec: cwic.Codec) -> Iterator[Stopwatch]:
    """Measure the stages of what ``codec`` does in the block."""
    context, watch = codec.context, Stopwatch()
    calls: list[tuple[str, Any, Sequence[str]]] = [
        ("network", codec.runner, ("encode", "decode")),
        ("coding", codec.coder, ("write", "read")),
        ("context", context, ("encode", "decode_codes")),
        ("levels", context.levels, ("encode", "decode")),
        ("rans", rans, ("encode",)),
        ("rans", rans.Decoder, ("decode_bits", "decode_symbols")),
        ("container", Stream, ("to_bytes", "from_bytes")),
    ]
    with contextlib.ExitStack() as stack:
        for stage, owner, names in calls:
            for name in names:
                timed = watch.timed(stage, getattr(owner, name))
                stack.enter_context(patch.object(owner, name, timed))
        yield watch


def profile(
    pictures: Mapping[str, NDArray[np.uint8]],
    qualities: Mapping[str, int],
    model: Path | None,
    repeat: int,
) -> list[dict[str, Any]]:
    """Times of encoding and decoding, on one thread and on all: medians of ``repeat`` runs.

    Tiles are coded one after the other, or the times of stages could not be told apart.

    Args:
        pictures: by name, uint8 [H, W, 3]; those of one size are averaged.
        qualities: of each picture.
        model: bundle folder; None: the shipped one.
        repeat: runs of each picture.
    """
    sizes: dict[str, list[str]] = defaultdict(list)
    for name, picture in pictures.items():
        height, width = sorted(picture.shape[:2])
        sizes[f"{width}x{height}"].append(name)
    runs: dict[tuple[str, int], list[dict[str, Times]]] = defaultdict(list)
    with _workers() as workers:
        for turn in range(1 + repeat):
            for name, picture in pictures.items():
                for threads, worker in workers.items():
                    job = worker.submit(_run, model, threads, picture, qualities[name])
                    if turn:  # the first one loads the graphs
                        runs[name, threads].append(job.result())
                    else:
                        job.result()
    return [
        {
            "size_px": size,
            "pictures": names,
            "threads": threads,
            **_averaged([runs[name, threads] for name in names]),
        }
        for size, names in sizes.items()
        for threads in workers
    ]


@contextlib.contextmanager
def _workers() -> Iterator[dict[int, ProcessPoolExecutor]]:
    """A process for each number of threads."""
    spawn = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        workers = {}
        for threads, environment in ((1, _ONE_THREAD), (os.cpu_count() or 1, {})):
            pool = stack.enter_context(ProcessPoolExecutor(1, spawn))
            with patch.dict(os.environ, environment):
                pool.submit(os.getpid).result()  # starts it
            workers[threads] = pool
        yield workers


@lru_cache
def _codec(model: Path | None, threads: int) -> cwic.Codec:
    bundle = Bundle.load(model)
    return cwic.Codec(bundle, OnnxRuntimeRunner(bundle, threads=threads), threads=1)


def _run(
    model: Path | None, threads: int, picture: NDArray[np.uint8], quality: int
) -> dict[str, Times]:
    """Encode and decode once: times of both in ms, by stage."""
    codec = _codec(model, threads)
    encoding, data = _measured(codec, lambda: codec.encode(picture, quality=quality))
    decoding, _ = _measured(codec, lambda: codec.decode(data))
    return {"encode": encoding, "decode": decoding}


def _measured(codec: cwic.Codec, work: Callable[[], _R]) -> tuple[Times, _R]:
    with stopwatch(codec) as watch:
        result = watch.timed("other", work)()
    times = {"time_ms": watch.whole["other"], "coding_ms": watch.whole["coding"]}
    watch.own["other"] += watch.own.pop("coding")
    return {**times, **{f"{stage}_ms": ms for stage, ms in watch.own.items()}}, result


def _averaged(runs: Sequence[Sequence[dict[str, Times]]]) -> dict[str, dict[str, float]]:
    """Mean over pictures of the medians over runs, by direction and stage."""
    found: dict[str, dict[str, float]] = {}
    for direction in ("encode", "decode"):
        means = {
            stage: fmean(median(run[direction][stage] for run in each) for each in runs)
            for stage in runs[0][0][direction]
        }
        share = 100 * means["coding_ms"] / means["time_ms"]
        found[direction] = {
            **{stage: round(ms, 2) for stage, ms in means.items()},
            "coding_percent": round(share, 1),
        }
    return found
