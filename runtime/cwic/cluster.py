"""Encoding on a Ray cluster: the same as :func:`cwic.batch.encode_files`, on many machines.

Ray Data hands the paths out in batches. A worker keeps its codec, encodes a batch and sends
back rows of sizes and errors; pictures and streams stay on a file system that all machines
share. When a worker dies, Ray starts another and gives it the batch again. That is harmless,
because outputs are renamed into place when they are whole. A batch that has killed several
workers is tried once more picture by picture, so that one bad file costs only itself.

Every machine needs this package with a backend, and the model at the same path.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cwic import batch, packaged
from cwic.backends import open_runner
from cwic.batch import Pair, Result, Summary
from cwic.bundle import Bundle
from cwic.codec import Codec
from cwic.errors import BackendError, CwicError, UsageError, first_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cwic.types import EncodeOptions

__all__ = ["encode_files"]

_BATCH = 16
_RETRIES = 2
_GPU_BACKENDS = ("cuda", "tensorrt")
_QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}


def encode_files(
    address: str,
    pairs: Iterable[Pair],
    *,
    model: Path | None = None,
    backend: str = "auto",
    precision: str | None = None,
    workers: int = 1,
    batch_size: int = _BATCH,
    resume: bool = False,
    on_result: Callable[[Result], None] | None = None,
    **options: Unpack[EncodeOptions],
) -> Summary:
    """Encode pictures to files, in the processes of a cluster.

    Args:
        address: of the cluster, as ``ray.init`` takes it (``auto``, ``host:port``,
            ``ray://host:port``), or ``local`` to start one on this machine. A connection
            that exists already is used.
        pairs: pictures and their outputs, whose folders exist; seen alike by all machines.
        model: bundle folder; None takes the one in the package.
        backend: one of :data:`cwic.backends.BACKENDS`; each worker takes one core, and with
            ``cuda`` or ``tensorrt`` a GPU.
        precision: see :func:`cwic.backends.open_runner`.
        workers: at most this many processes.
        batch_size: pictures that are handed out at a time.
        resume, on_result, options: as for :func:`cwic.batch.encode_files`.

    Raises:
        BackendError: Ray is not installed, or the cluster cannot be reached.
        UsageError, BundleError: an option, or the model, is wrong for every picture.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers do nothing; use 1 or more")
    batch.check_options(batch.open_codec(model, "cpu"), options)
    places = [(source.absolute(), target.absolute()) for source, target in pairs]
    settings = {
        "model": packaged.folder(model).absolute(),
        "backend": backend,
        "precision": precision,
        "resume": resume,
        "options": options,
    }
    summary, start = Summary(), time.perf_counter()

    def report(result: Result) -> None:
        summary.add(result)
        if on_result is not None:
            on_result(result)

    waiting = list(range(len(places)))
    with _connected(address, workers) as ray:
        for size in (batch_size, 1):
            seen: set[int] = set()
            for row in _rows(ray, places, waiting, size, workers, settings):
                seen.add(row["number"])
                report(_result(places[row["number"]], row))
            waiting = [number for number in waiting if number not in seen]
            if not waiting:
                break
    for number in waiting:
        error = BackendError(
            f"its worker died {2 * (1 + _RETRIES)} times; encode it alone to see why"
        )
        report(Result(*places[number], error=error))
    summary.time_s = time.perf_counter() - start
    return summary


class _Encoder:
    """A worker: opens the model once, and encodes batches of paths."""

    def __init__(
        self,
        model: Path | None,
        backend: str,
        precision: str | None,
        resume: bool,
        options: EncodeOptions,
    ) -> None:
        bundle = Bundle.load(model)
        runner = open_runner(bundle, backend, precision=precision, threads=1)
        self._codec = Codec(bundle, runner, threads=1)
        self._resume, self._options = resume, options

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[Any]]:
        """Rows of number, source and target to rows of number and what :class:`Result` has."""
        results: list[Result] = []
        pairs = [(Path(s), Path(t)) for s, t in zip(rows["source"], rows["target"], strict=True)]
        batch.encode_files(
            self._codec, pairs, resume=self._resume, on_result=results.append, **self._options
        )
        return {
            "number": list(rows["number"]),
            **{
                name: [getattr(result, name) for result in results]
                for name in (*_SIZES, "skipped", "message")
            },
        }


_SIZES = ("picture_bytes", "stream_bytes", "width_px", "height_px")


def _result(pair: Pair, row: dict[str, Any]) -> Result:
    if row["message"]:
        return Result(*pair, error=CwicError(row["message"]))
    return Result(*pair, **{name: row[name] for name in (*_SIZES, "skipped")})


def _rows(
    ray: Any,
    places: Sequence[Pair],
    numbers: Sequence[int],
    size: int,
    workers: int,
    settings: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """What the workers say of the files with these numbers, as it comes in."""
    items = [
        {"number": n, "source": str(places[n][0]), "target": str(places[n][1])} for n in numbers
    ]
    blocks = -(-len(items) // size)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # what is missing is noticed, tried again and reported
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    done = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        _Encoder,
        fn_constructor_kwargs=settings,
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
        num_gpus=1 if settings["backend"] in _GPU_BACKENDS else None,
        max_restarts=-1,
        max_task_retries=_RETRIES,
    )
    yield from done.iter_rows()


@contextlib.contextmanager
def _connected(address: str, workers: int) -> Iterator[Any]:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise BackendError(
            f"a cluster needs Ray, which is not installed ({exc}); pip install 'cwic[cluster]'"
        ) from exc
    if ray.is_initialized():
        yield ray
        return
    own: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(
            address,
            **(own if address == "local" else {}),
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except Exception as exc:  # Ray raises kinds of many modules
        raise BackendError(
            f"no Ray cluster at {address} ({first_line(exc)}); check the address, or use 'local'"
        ) from exc
    try:
        yield ray
    finally:
        ray.shutdown()
