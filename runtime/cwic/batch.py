"""Many files: encode or decode them, several at a time.

A job reads a file, runs the network, codes and writes; jobs run in threads, and what takes
long in each of them (Pillow, the backend, NumPy's products, the coder in C) lets the others
run. So one picture is read while another is in the network and a third is coded, and memory
holds as many pictures as there are jobs. Results are renamed into place when they are whole:
a run that is killed leaves no half file, and the next one can resume.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from cwic.backends import open_runner
from cwic.blas import one_thread
from cwic.bundle import Bundle
from cwic.codec import Codec
from cwic.container import DEFAULT_MAX_PIXELS, MAX_SIDE_PX, Stream
from cwic.cores import usable_cores
from cwic.errors import BundleError, CwicError, StreamError, UsageError
from cwic.files import replacing, write_bytes
from cwic.header import read_header
from cwic.image import open_picture
from cwic.metadata import save_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from cwic.types import EncodeOptions

__all__ = [
    "Pair",
    "Result",
    "Summary",
    "check_options",
    "decode_files",
    "encode_files",
    "named",
    "open_codec",
    "read_stream",
    "run",
]

_READ_LIMIT = 1 << 30
_PROBE_SIDE_PX = 64

Pair: TypeAlias = tuple[Path, Path]
"""A file, and where its result goes."""


@dataclass(frozen=True)
class Result:
    """What became of one file.

    Attributes:
        source, target: the file, and where its result lies.
        picture_bytes, stream_bytes: sizes of the picture's file and of the stream.
        width_px, height_px: size of the picture.
        left_out: what could not be restored of a damaged stream, in words.
        skipped: whether a valid result was there already; sizes are then 0.
        error: why there is no result; None if there is one.
    """

    source: Path
    target: Path
    picture_bytes: int = 0
    stream_bytes: int = 0
    width_px: int = 0
    height_px: int = 0
    left_out: str = ""
    skipped: bool = False
    error: Exception | None = None

    @property
    def bpp(self) -> float:
        """Bits of the stream per pixel; 0 if nothing was done."""
        return 8 * self.stream_bytes / max(1, self.width_px * self.height_px)

    @property
    def message(self) -> str:
        """The error as one line that names the file; empty if there is none."""
        if self.error is None:
            return ""
        if isinstance(self.error, MemoryError):
            text = "memory is short; use fewer --jobs, or shrink the picture"
        elif isinstance(self.error, CwicError):
            text = str(self.error)
        else:
            words = " ".join(f"{type(self.error).__name__}: {self.error}".split())
            text = f"an error that was not foreseen ({words}); report it with the file"
        return text if str(self.source) in text else f"{self.source}: {text}"


@dataclass
class Summary:
    """Totals of a run; sizes and pixels are those of the files that were done.

    Attributes:
        done, skipped, failed: numbers of files.
        picture_bytes, stream_bytes: sizes of the pictures' files and of the streams.
        pixels: of all pictures.
        time_s: from the first file to the last.
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    picture_bytes: int = 0
    stream_bytes: int = 0
    pixels: int = 0
    time_s: float = 0.0

    @property
    def bpp(self) -> float:
        """Bits of the streams per pixel; 0 if nothing was done."""
        return 8 * self.stream_bytes / max(1, self.pixels)

    def add(self, result: Result) -> None:
        """Count one file."""
        if result.error is not None:
            self.failed += 1
        elif result.skipped:
            self.skipped += 1
        else:
            self.done += 1
            self.picture_bytes += result.picture_bytes
            self.stream_bytes += result.stream_bytes
            self.pixels += result.width_px * result.height_px


def open_codec(
    model: str | Path | None = None,
    backend: str = "auto",
    *,
    precision: str | None = None,
    rebuild: bool = False,
    jobs: int = 1,
) -> Codec:
    """A codec for ``jobs`` files at a time: on the CPU they share its cores.

    One job takes all cores for its network and its tiles. With several each takes its part: a
    core that works on a picture of its own never waits for the others.

    Raises:
        BundleError, BackendError, UsageError: as :func:`cwic.load`.
    """
    bundle = Bundle.load(model)
    threads = 0 if jobs == 1 else max(1, usable_cores() // jobs)
    runner = open_runner(bundle, backend, precision=precision, rebuild=rebuild, threads=threads)
    return Codec(bundle, runner, threads)


def run(
    work: Callable[[Path, Path], Result],
    pairs: Iterable[Pair],
    *,
    jobs: int = 1,
    on_result: Callable[[Result], None] | None = None,
) -> Summary:
    """``work`` on every pair, ``jobs`` at a time.

    An exception of ``work`` is the result of its file, and the others go on. When the caller
    is interrupted, files that were begun are finished and the rest is dropped; with one job,
    the one that was begun is dropped too.

    Args:
        work: called with a file and its target, in several threads.
        pairs: taken one after the other, not all at once.
        jobs: files at a time.
        on_result: called in the caller's thread with each result, in order of completion.

    Raises:
        UsageError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise UsageError(f"{jobs} jobs do nothing; use 1 or more")
    summary, start = Summary(), time.perf_counter()

    def guarded(source: Path, target: Path) -> Result:
        try:
            return work(source, target)
        except Exception as exc:
            return Result(source, target, error=exc)

    with one_thread(), contextlib.closing(_results(guarded, pairs, jobs)) as results:
        for result in results:
            summary.add(result)
            if on_result is not None:
                on_result(result)
    summary.time_s = time.perf_counter() - start
    return summary


def _results(
    work: Callable[[Path, Path], Result], pairs: Iterable[Pair], jobs: int
) -> Generator[Result, None, None]:
    if jobs == 1:
        for pair in pairs:
            yield work(*pair)
        return
    begun: set[Future[Result]] = set()
    with contextlib.ExitStack() as stack:
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="cwic")
        stack.callback(pool.shutdown, cancel_futures=True)
        for pair in pairs:
            begun.add(pool.submit(work, *pair))
            if len(begun) == 2 * jobs:  # some wait, so that no thread does
                finished, begun = wait(begun, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        while begun:
            finished, begun = wait(begun, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


def encode_files(
    codec: Codec,
    pairs: Iterable[Pair],
    *,
    jobs: int = 1,
    resume: bool = False,
    on_result: Callable[[Result], None] | None = None,
    **options: Unpack[EncodeOptions],
) -> Summary:
    """Encode pictures to files.

    Args:
        codec: the model; :func:`open_codec` makes one for a number of jobs.
        pairs: pictures and their outputs, whose folders exist.
        jobs, on_result: see :func:`run`.
        resume: skip a picture whose output is not older than it and is a whole, valid stream
            of this model, whatever its rate.
        options: of :meth:`cwic.Codec.encode`.

    Raises:
        UsageError, BundleError: what is wrong with every picture: an option, or the model.
    """
    check_options(codec, options)

    def work(source: Path, target: Path) -> Result:
        if resume and _is_encoded(codec, source, target):
            return Result(source, target, skipped=True)
        encoded = codec.encode_detailed(open_picture(source), **options)
        with _writing(target):
            write_bytes(target, encoded.data)
        sizes = source.stat().st_size, len(encoded.data)
        return Result(source, target, *sizes, encoded.width_px, encoded.height_px)

    return run(work, pairs, jobs=jobs, on_result=on_result)


def decode_files(
    codec: Codec | Callable[[bytes], Codec],
    pairs: Iterable[Pair],
    *,
    jobs: int = 1,
    resume: bool = False,
    partial: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_result: Callable[[Result], None] | None = None,
) -> Summary:
    """Decode files to pictures, whose suffixes choose their formats.

    Args:
        codec: the model, or what finds that of a stream by its identity, such as
            :meth:`cwic.packaged.Codecs.of`.
        jobs, on_result: as for :func:`encode_files`.
        pairs: streams and their outputs.
        resume: skip a stream whose output is not older than it and is a whole picture of the
            same size.
        partial: take what is intact of a damaged stream.
        max_pixels: refuse larger pictures.
    """

    def work(source: Path, target: Path) -> Result:
        data, left_out = read_stream(source), ""
        if resume and _is_decoded(data, source, target):
            return Result(source, target, skipped=True)
        with named(source):
            own = codec if isinstance(codec, Codec) else codec(read_header(data).model_id)
            if partial:
                salvaged = own.salvage(data, max_pixels=max_pixels)
                picture, left_out = salvaged.image, salvaged.left_out
            else:
                picture = own.decode(data, max_pixels=max_pixels)
        with _writing(target), replacing(target) as temporary:
            _save(picture, temporary, target)
        sizes = target.stat().st_size, len(data)
        return Result(source, target, *sizes, picture.width, picture.height, left_out)

    return run(work, pairs, jobs=jobs, on_result=on_result)


def read_stream(path: Path) -> bytes:
    """The bytes of a file that may be a stream.

    Raises:
        UsageError: it cannot be read, or is larger than any stream.
    """
    try:
        if path.stat().st_size > _READ_LIMIT:
            raise UsageError(f"{path} is larger than 1 GiB, which no .cwic file is; check the path")
        return path.read_bytes()
    except OSError as exc:
        raise UsageError(f"{path} cannot be read ({exc.strerror}); check the path") from exc


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with its stream."""
    try:
        yield
    except StreamError as exc:
        raise type(exc)(f"{path}: {exc}") from exc


def check_options(codec: Codec, options: EncodeOptions) -> None:
    """Say once what would fail with every picture, and load the graph before the threads."""
    tried = options.copy()
    tried.pop("roi", None)  # belongs to pictures of one size
    grey = np.full((_PROBE_SIDE_PX, _PROBE_SIDE_PX, 3), 128, np.uint8)
    try:
        codec.encode(grey, **tried)
    except (UsageError, BundleError):
        raise
    except CwicError:
        pass  # of this picture: a rate or a limit that it cannot keep


def _is_encoded(codec: Codec, source: Path, target: Path) -> bool:
    try:
        if target.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return False
        stream = Stream.from_bytes(read_stream(target), MAX_SIDE_PX**2)
    except (OSError, CwicError):
        return False
    return stream.header.model_id == codec.bundle.model_id


def _is_decoded(data: bytes, source: Path, target: Path) -> bool:
    try:
        if target.stat().st_mtime_ns < source.stat().st_mtime_ns:
            return False
        header = Stream.from_bytes(data, MAX_SIDE_PX**2).header
        with Image.open(target) as picture:
            picture.load()
            return picture.size == (header.width_px, header.height_px)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError, StreamError):
        return False


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UsageError(
            f"{target} cannot be written ({exc.strerror}); free space or choose another --output"
        ) from exc


def _save(picture: Image.Image, temporary: Path, target: Path) -> None:
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise UsageError(f"{target} has no suffix of a picture format; use for example .png")
    try:
        picture.save(temporary, format=kind, **save_options(picture, kind))
    except (OSError, SyntaxError, ValueError) as exc:  # SyntaxError: of EXIF, by some writers
        raise UsageError(f"cannot write {target} ({exc}); use for example .png") from exc
