"""How long this machine takes to encode and decode, and where the time goes.

Each picture is encoded at one quality and decoded again with the codec that everyone uses,
and three phases are told apart:

=========  ==================================================================================
network    the encoder's or decoder's graph, measured around the backend inside of the codec
container  the stream's bytes, written or parsed, with checksums: measured right after, alone
entropy    all the rest: levels, context model, rANS, padding, cropping
=========  ==================================================================================

so that the phases of one repeat add up to its total. Files are read and pictures are
unpacked before anything is timed. Repeats go through all pictures in turn, so that a machine
that slows down as it warms does so for each of them alike.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cwic import rans, rate
from cwic.backends import Runner, open_runner
from cwic.backends.device import find_device
from cwic.backends.host import driver_version, find_jetson
from cwic.bundle import Bundle
from cwic.codec import Codec
from cwic.container import DEFAULT_MAX_PIXELS, Stream
from cwic.cores import usable_cores
from cwic.doctor import library_versions
from cwic.engines.library import installed
from cwic.errors import BackendError, UsageError

__all__ = ["PHASES", "BenchResult", "Machine", "PictureTimes", "Times", "cpu_name", "run", "timed"]

PHASES = ("total", "network", "entropy", "container")
# An engine captures its CUDA graph in the second run of a shape.
_WARM_UPS = 2

_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Times:
    """Median, smallest and largest time of the repeats, in milliseconds."""

    median_ms: float
    min_ms: float
    max_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Times:
        """Those of ``times_ms``, at least one."""
        return cls(statistics.median(times_ms), min(times_ms), max(times_ms))


@dataclass(frozen=True)
class PictureTimes:
    """One picture.

    Attributes:
        name: of the picture.
        width_px, height_px: its size.
        size_bytes: of its stream.
        first_encode_ms, first_decode_ms: the first time it was coded. For the first picture
            this loads the graphs or engines, and it is no part of the times below.
        encode, decode: times by phase, one of :data:`PHASES` each.
    """

    name: str
    width_px: int
    height_px: int
    size_bytes: int
    first_encode_ms: float
    first_decode_ms: float
    encode: Mapping[str, Times]
    decode: Mapping[str, Times]

    @property
    def bpp(self) -> float:
        """Bits of the whole stream per pixel."""
        return 8 * self.size_bytes / (self.width_px * self.height_px)


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        system: operating system and architecture.
        cpu: what the system calls the processor.
        cores: processors that this process may use.
        jetson: board and version of Jetson Linux, on a Jetson.
        gpu: name and SM of the GPU; whether it was used depends on the backend.
        driver: version of the NVIDIA driver.
    """

    system: str
    cpu: str
    cores: int
    jetson: str | None
    gpu: str | None
    driver: str | None

    @classmethod
    def here(cls) -> Machine:
        """This machine."""
        jetson = find_jetson()
        try:
            device = find_device()
            gpu: str | None = f"{device.name}, SM {device.sm}"
        except BackendError:
            gpu = None
        return cls(
            system=f"{platform.system()} {platform.machine()}",
            cpu=cpu_name(),
            cores=usable_cores(),
            jetson=None if jetson is None else f"{jetson.model}, L4T {jetson.l4t}",
            gpu=gpu,
            driver=driver_version(),
        )


@dataclass(frozen=True)
class BenchResult:
    """What :func:`run` measured.

    Attributes:
        model: name and identity of the bundle.
        backend: the one that ran, also where ``auto`` was asked for.
        precision: the one that was asked for; None: the backend's own choice, fp32 for
            ``cpu`` and ``cuda``, the most exact engine that fits for ``tensorrt``.
        quality: at which the pictures were encoded.
        repeats: how often each picture was coded, two runs to warm up not counted.
        coder: the rANS coder, ``c`` or the slower ``numpy``.
        machine: where.
        versions: of Python and the libraries; None for one that is not installed.
        pictures: the times.
    """

    model: str
    backend: str
    precision: str | None
    quality: float
    repeats: int
    coder: str
    machine: Machine
    versions: Mapping[str, str | None]
    pictures: tuple[PictureTimes, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def run(
    pictures: Mapping[str, NDArray[np.uint8]],
    bundle: str | Path | None = None,
    backend: str = "auto",
    *,
    precision: str | None = None,
    quality: float = rate.DEFAULT_QUALITY,
    repeats: int = 10,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> BenchResult:
    """Encode and decode each picture ``repeats`` times.

    Args:
        pictures: by name, uint8 [H, W, 3].
        bundle: folder of the model; None takes the model in the package.
        backend: one of :data:`cwic.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``int8``; see :func:`cwic.backends.open_runner`.
        quality: 1..100.
        repeats: at least 1.
        max_pixels: refuse larger pictures.

    Raises:
        UsageError: nothing to measure, or an option out of range.
        BundleError, BackendError, ImageError: as encoding and decoding raise them.
    """
    if not pictures or repeats < 1:
        raise UsageError(
            f"{len(pictures)} pictures in {repeats} repeats measure nothing; "
            "give a picture and at least one repeat"
        )
    opened = Bundle.load(bundle)
    runner = _TimedRunner(open_runner(opened, backend, precision=precision))
    codec = Codec(opened, runner)
    rounds = [
        [_once(codec, runner, picture, quality, max_pixels) for picture in pictures.values()]
        for _ in range(_WARM_UPS + repeats)
    ]
    return BenchResult(
        model=f"{opened.name} {opened.model_id.hex()}",
        backend=runner.backend,
        precision=precision,
        quality=quality,
        repeats=repeats,
        coder=rans.implementation(),
        machine=Machine.here(),
        versions={"python": platform.python_version(), **library_versions(installed())},
        pictures=tuple(
            _summary(name, picture, times)
            for (name, picture), times in zip(
                pictures.items(), zip(*rounds, strict=True), strict=True
            )
        ),
    )


class _TimedRunner(Runner):
    """Another runner, and how long its last call took."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self.backend = inner.backend
        self.last_ms = 0.0

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        result, self.last_ms = timed(lambda: self._inner.encode(image))
        return result

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        result, self.last_ms = timed(lambda: self._inner.decode(codes, levels))
        return result


@dataclass(frozen=True)
class _Once:
    """One picture there and back: milliseconds by phase."""

    size_bytes: int
    encode: dict[str, float]
    decode: dict[str, float]


def _once(
    codec: Codec,
    runner: _TimedRunner,
    picture: NDArray[np.uint8],
    quality: float,
    max_pixels: int,
) -> _Once:
    data, total_ms = timed(lambda: codec.encode(picture, quality=quality, max_pixels=max_pixels))
    network_ms = runner.last_ms
    stream = Stream.from_bytes(data, max_pixels)
    _, container_ms = timed(stream.to_bytes)
    encode = _phases(total_ms, network_ms, container_ms)
    _, total_ms = timed(lambda: codec.decode(data, max_pixels=max_pixels))
    network_ms = runner.last_ms
    _, container_ms = timed(lambda: Stream.from_bytes(data, max_pixels))
    return _Once(len(data), encode, _phases(total_ms, network_ms, container_ms))


def _phases(total_ms: float, network_ms: float, container_ms: float) -> dict[str, float]:
    rest_ms = total_ms - network_ms - container_ms
    return dict(zip(PHASES, (total_ms, network_ms, rest_ms, container_ms), strict=True))


def _summary(name: str, picture: NDArray[np.uint8], times: Sequence[_Once]) -> PictureTimes:
    first, counted = times[0], times[_WARM_UPS:]
    return PictureTimes(
        name=name,
        width_px=picture.shape[1],
        height_px=picture.shape[0],
        size_bytes=first.size_bytes,
        first_encode_ms=first.encode["total"],
        first_decode_ms=first.decode["total"],
        encode={phase: Times.of([once.encode[phase] for once in counted]) for phase in PHASES},
        decode={phase: Times.of([once.decode[phase] for once in counted]) for phase in PHASES},
    )


def timed(work: Callable[[], _Out]) -> tuple[_Out, float]:
    """What ``work`` returns, and how long it took in ms."""
    started = time.perf_counter()
    result = work()
    return result, 1e3 * (time.perf_counter() - started)


def cpu_name() -> str:
    """What the system calls the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
