"""The automatic choice: the best backend that really runs.

In the order tensorrt, cuda, cpu, each backend is opened and then tried with one tiny
picture, there and back, whose shapes are compared with what :class:`Runner` promises. One
that fails is skipped, and why is kept. The last one is not tried: there is nothing left to
take instead, and what is wrong with it shows when it is used. So a machine without a GPU
never pays for a trial.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cwic.backends.base import Runner
from cwic.bundle import Bundle
from cwic.errors import BackendError, BundleError

__all__ = ["PROBE_SIDE_PX", "Choice", "Skipped", "choose", "probe"]

PROBE_SIDE_PX = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Skipped:
    """A backend that does not run here, and why: one line that ends with the remedy."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """The runner that was chosen, and the better backends that do not run here."""

    runner: Runner
    skipped: tuple[Skipped, ...]


def choose(bundle: Bundle, openers: Mapping[str, Callable[[], Runner]]) -> Choice:
    """The first backend that runs the bundle.

    Args:
        bundle: the model.
        openers: what makes each runner, the best first.

    Raises:
        BackendError: none runs; the message gives each one's reason and remedy.
        BundleError: none runs, the last one because of the bundle.
    """
    skipped: list[Skipped] = []
    for place, (backend, opener) in enumerate(openers.items(), 1):
        try:
            runner = opener()
            if place < len(openers):
                probe(bundle, runner)
        except (BackendError, BundleError) as exc:
            if isinstance(exc, BundleError) and place == len(openers):
                raise  # the model is damaged; no backend is to blame
            _log.info("backend %s skipped: %s", backend, exc)
            skipped.append(Skipped(backend, str(exc)))
        else:
            return Choice(runner, tuple(skipped))
    names: dict[str, list[str]] = {}
    for entry in skipped:
        names.setdefault(entry.reason, []).append(entry.backend)
    reasons = " | ".join(f"{', '.join(those)}: {reason}" for reason, those in names.items())
    raise BackendError(f"no backend runs here: {reasons}")


def probe(bundle: Bundle, runner: Runner) -> None:
    """Encode and decode one picture of 64x64 pixels and check what comes back.

    Raises:
        BackendError: it fails, or the shapes or types are not those that were promised.
    """
    stride = bundle.stride
    side_px = -(-PROBE_SIDE_PX // stride) * stride
    grid = side_px // stride
    ramp = np.linspace(0, 255, side_px, dtype=np.uint8)
    image = np.broadcast_to(ramp[None, :, None, None], (1, side_px, side_px, 3)).copy()
    codes, importance = runner.encode(image)
    _check(runner, "codes", codes, (1, bundle.encoder_channels, grid, grid))
    _check(runner, "importance", importance, (1, grid, grid))
    levels = np.full((1, grid, grid), bundle.levels, np.uint8)
    sent = np.zeros((1, bundle.decoder_channels, grid, grid), np.uint8)
    _check(runner, "image", runner.decode(sent, levels), image.shape)


def _check(runner: Runner, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.uint8:
        raise BackendError(
            f"the {runner.backend} backend gives {name} as {array.dtype}{list(array.shape)}, not "
            f"uint8{list(shape)}; export the model again and build its engines anew"
        )
