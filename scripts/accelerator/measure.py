"""One artefact: how far it is from the eager graphs on the CPU, and how long its graphs take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scripts.accelerator.targets import Opened, Target

from cwic import bench
from cwic.backends import Runner
from cwic.bundle import CONTEXT_FILE, Bundle
from cwic.codec import Codec
from cwic.entropy_model import ContextModel
from cwic.errors import UsageError
from cwic.image import pad_to_multiple
from cwic.rate import levels_from_importance
from cwic_export.runners import EagerRunner
from cwic_export.validation import SCALES
from cwic_export.validation.compare import Picture, compare
from cwic_export.validation.matrix import Matrix
from cwic_export.validation.report import Artefact
from cwic_export.validation.run import REFERENCE
from cwic_export.validation.tolerances import TOLERANCES
from cwic_training.data import open_centre
from cwic_training.model import CodecNetwork

__all__ = ["Reference", "end_to_end", "graph_times", "parse_sizes", "picture_of", "validate"]

Bytes = NDArray[np.uint8]
_WHOLE = 1 << 16
"""Pixels a side: no picture is larger."""
_WARM_UPS = 5
_TIMED_SCALE = 0.5
"""Rate factor of the levels that decoders are timed with."""


@dataclass(frozen=True)
class Reference:
    """The eager graphs in fp32 on the CPU, and what they make of the pictures."""

    runner: EagerRunner
    bundle: Bundle
    pictures: tuple[Picture, ...]

    @classmethod
    def of(
        cls,
        network: CodecNetwork,
        bundle: Bundle,
        paths: Sequence[Path],
        crop_px: int | None = None,
    ) -> Reference:
        """Run the graphs on the centres of pictures, ``crop_px`` a side or (None) all of them."""
        runner = EagerRunner(network)
        codec = Codec(bundle, runner)
        pictures = (
            Picture(path.name, open_centre(path, crop_px or _WHOLE), codec, runner, SCALES)
            for path in paths
        )
        return cls(runner, bundle, tuple(pictures))


def validate(target: Target, runner: Runner, reference: Reference, device: str) -> dict[str, Any]:
    """Differences and cross-decoding, judged by the project's tolerances.

    Returns:
        ``status`` is ``passed``, ``differs``, or ``no verdict`` for a precision that has no
        tolerances; see docs/accelerator.md for the rest.

    Raises:
        CwicError: the artefact does not run.
    """
    artefact = Artefact(target.name, target.precision)
    here = f"{target.label} on {device}"
    matrix = Matrix({REFERENCE: "fp32", here: target.precision})
    for picture in reference.pictures:
        views = compare(picture, runner, artefact)
        made = {REFERENCE: (reference.runner, picture.views), here: (runner, views)}
        matrix.add(picture, made)
    differences = artefact.differences.to_dict()
    del differences["outcomes"]
    crossings = [crossing.to_dict() for crossing in matrix.crossings]
    if target.precision not in TOLERANCES:
        return {"status": "no verdict", "problems": [], **differences, "crossings": crossings}
    problems = [*artefact.problems, *(p for c in matrix.crossings for p in c.problems)]
    status = "differs" if problems else "passed"
    return {"status": status, "problems": problems, **differences, "crossings": crossings}


def graph_times(opened: Opened, bundle: Bundle, picture: Bytes, repeats: int) -> dict[str, Any]:
    """Times of both graphs for one picture, in milliseconds.

    Returns:
        For ``encoder`` and ``decoder``: ``host``, from host arrays to host arrays as the codec
        calls it, and where the framework has such calls ``device``, with inputs and outputs on
        the device.
    """
    runner = opened.runner
    image = pad_to_multiple(picture, bundle.stride)[None]
    codes, importance = runner.encode(image)
    levels = levels_from_importance(importance, _TIMED_SCALE, bundle.levels)
    context = ContextModel.from_bytes(bundle.read(CONTEXT_FILE), bundle.n, bundle.levels)
    codes = context.codes.sent(codes[0], levels[0])[None]
    calls: dict[str, tuple[Callable[[], object], dict[str, Bytes]]] = {
        "encoder": (lambda: runner.encode(image), {"image": image}),
        "decoder": (lambda: runner.decode(codes, levels), {"codes": codes, "levels": levels}),
    }
    resident: Any = getattr(runner, "resident", None)
    times: dict[str, Any] = {}
    for role, (call, feeds) in calls.items():
        times[role] = {"host": _timed(call, repeats)}
        if resident is not None:
            times[role]["device"] = _timed(resident(role, feeds), repeats)
    return times


def _timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and quartiles of calls that return when the device is done."""
    for _ in range(_WARM_UPS):
        call()
    times_ms = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times_ms.append(1e3 * (time.perf_counter() - started))
    first, median, third = (float(q) for q in np.percentile(times_ms, (25, 50, 75)))
    return {"median_ms": median, "quartile_1_ms": first, "quartile_3_ms": third}


def end_to_end(opened: Opened, target: Target, pictures: dict[str, Bytes], repeats: int) -> Any:
    """`cwic bench` of the same graphs; None for an artefact that is no backend of the runtime."""
    if opened.bundle is None or opened.backend is None:
        return None
    result = bench.run(
        pictures,
        opened.bundle.path,
        opened.backend,
        precision=target.precision,
        repeats=repeats,
    ).to_json()
    return {key: result[key] for key in ("backend", "quality", "repeats", "coder", "pictures")}


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """``768x512,1920x1080`` to (width, height) in pixels.

    Raises:
        UsageError: something else.
    """
    try:
        pairs = [part.lower().split("x") for part in text.split(",")]
        sizes = [(int(width), int(height)) for width, height in pairs]
    except ValueError as exc:
        raise UsageError(
            f"--sizes {text!r} are not sizes in pixels; use for example 768x512,1920x1080"
        ) from exc
    if any(not 8 <= side <= _WHOLE for size in sizes for side in size):
        raise UsageError(f"--sizes {text!r} are out of range; use for example 768x512,1920x1080")
    return sizes


def picture_of(pixels: Bytes, width_px: int, height_px: int) -> Bytes:
    """A picture of a size from a photograph: its corner, mirrored on where it is too small."""
    below, right = (
        max(0, want - have)
        for want, have in zip((height_px, width_px), pixels.shape[:2], strict=True)
    )
    grown = np.pad(pixels, [(0, below), (0, right), (0, 0)], mode="symmetric")
    return np.ascontiguousarray(grown[:height_px, :width_px])
