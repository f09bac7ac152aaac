"""One picture through the eager graphs and through an artefact.

::

    picture ─┬─▶ eager encoder ──▶ codes, levels at each rate ─┬─▶ eager decoder ──▶ PSNR, bpp
             │                          │ flips,               │        │ pixel differences
             │                          │ levels that differ   └─▶ artefact's decoder
             └─▶ artefact's encoder ──▶ codes, levels ──▶ artefact's decoder ──▶ PSNR, bpp

The decoder is compared on the reference's codes and levels, so that its error is its own;
the whole path of the artefact gives the differences that a user would see. Files are real:
the bytes that :meth:`cwic.codec.Codec.write_stream` writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.backends import Runner
from cwic.codec import Codec
from cwic.image import crop_to, pad_to_multiple
from cwic.rate import levels_from_importance
from cwic.symbol_model import SymbolModel
from cwic_export.runners import EagerRunner
from cwic_export.validation.differences import Outcome
from cwic_export.validation.metrics import Quality, measure
from cwic_export.validation.report import Artefact, Bytes, Exhibit

__all__ = ["Picture", "View", "compare"]

_EXHIBIT_PX = 192


@dataclass(frozen=True)
class View:
    """What one pair of graphs makes of a picture at one rate.

    Attributes:
        scale: rate factor.
        codes: as the decoder graph takes them, uint8 [channels, h, w]; signs that the rate drops
            are included.
        levels: uint8 [h, w].
        restored: uint8 [H, W, 3].
        stream: the ``.cwic`` file.
        quality: of ``restored``.
    """

    scale: float
    codes: Bytes
    levels: Bytes
    restored: Bytes
    stream: bytes
    quality: Quality


class Picture:
    """One picture with everything that the reference makes of it.

    Args:
        name: how the report calls it.
        pixels: uint8 [H, W, 3].
        codec: of the bundle, with the eager graphs as its runner.
        reference: these eager graphs.
        scales: rate factors.
    """

    def __init__(
        self,
        name: str,
        pixels: Bytes,
        codec: Codec,
        reference: EagerRunner,
        scales: Sequence[float],
    ) -> None:
        self.name, self.pixels, self.scales = name, pixels, scales
        self.codec, self.bundle = codec, codec.bundle
        self.padded = pad_to_multiple(pixels, self.bundle.stride)[None]
        # Artefacts that agree share the work behind the graphs.
        self._streams: dict[bytes, bytes] = {}
        self._qualities: dict[bytes, Quality] = {}
        self.margins = reference.margins(self.padded)
        self.decided_at_once = reference.decided_at_once
        self.codes, self.importance = reference.encode(self.padded)
        self.symbols = self.all_symbols(self.codes)
        self.views = self.views_of(reference, self.codes, self.importance)

    def views_of(self, runner: Runner, codes: Bytes, importance: Bytes) -> list[View]:
        """For each rate, what a runner's decoder makes of its encoder's outputs."""
        views = []
        for scale in self.scales:
            levels = levels_from_importance(importance, scale, self.bundle.levels)
            sent = self._model.sent(codes[0], levels[0])
            restored = self.decode(runner, sent[None], levels)
            stream = self._stream(sent, levels[0], scale)
            quality = self._quality(restored)
            views.append(View(scale, sent, levels[0], restored, stream, quality))
        return views

    @property
    def _model(self) -> SymbolModel[Any, Any]:
        return self.codec.context.codes

    def all_symbols(self, codes: Bytes) -> NDArray[Any]:
        """Codes of an encoder graph, [1, channels, h, w], one by one: [1, n, h, w].

        Signs as zeros and ones; values as whole numbers, in the smallest steps that there are.
        """
        return self._model.finest(codes[0]).reshape(1, -1, *codes.shape[2:])

    def symbols_of(self, sent: Bytes) -> NDArray[Any]:
        """Codes as they are sent, [channels, h, w], one by one: [n, h, w]."""
        return self._model.symbols(sent).reshape(-1, *sent.shape[1:])

    def digest(self, codes: Bytes, levels: Bytes) -> bytes:
        """Of what a stream of these holds: codes that levels drop make no difference."""
        return _digest(np.where(self._model.kept(levels), self.symbols_of(codes), 0), levels)

    def decode(self, runner: Runner, codes: Bytes, levels: Bytes) -> Bytes:
        """``codes`` [1, channels, h, w] and ``levels`` [1, h, w] to the picture [H, W, 3]."""
        return crop_to(runner.decode(codes, levels)[0], *self.pixels.shape[:2])

    def bpp(self, stream: bytes) -> float:
        """Bits of a file per pixel."""
        height_px, width_px = self.pixels.shape[:2]
        return 8 * len(stream) / float(height_px * width_px)

    def _stream(self, codes: Bytes, levels: Bytes, scale: float) -> bytes:
        height_px, width_px = self.pixels.shape[:2]
        key = self.digest(codes, levels) + np.float64(scale).tobytes()
        if key not in self._streams:
            self._streams[key] = self.codec.write_stream(codes, levels, width_px, height_px, scale)
        return self._streams[key]

    def _quality(self, restored: Bytes) -> Quality:
        key = _digest(restored)
        if key not in self._qualities:
            self._qualities[key] = measure(self.pixels, restored)
        return self._qualities[key]


def _digest(*arrays: NDArray[np.generic] | np.generic) -> bytes:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.digest()


def follow_others(flipped: NDArray[np.bool_], decided_at_once: int) -> NDArray[np.bool_]:
    """Codes that depend directly on a flipped one, [N, n, h, w] as ``flipped`` is.

    With feedback a code sees the bits of all earlier groups at its position and around it; values
    depend on no other.
    """
    _, n, height, width = flipped.shape
    earlier = np.logical_or.accumulate(flipped, axis=1)
    seen = np.zeros_like(flipped)
    for first in range(decided_at_once, n, decided_at_once):
        seen[:, first : first + decided_at_once] = earlier[:, first - 1 : first]
    wide = np.pad(seen, ((0, 0), (0, 0), (1, 1), (1, 1)))
    around = np.zeros_like(flipped)
    for row in range(3):
        for column in range(3):
            around |= wide[:, :, row : row + height, column : column + width]
    return around


def compare(picture: Picture, runner: Runner, artefact: Artefact) -> list[View]:
    """Add one picture to an artefact's differences; returns what the artefact made of it.

    Raises:
        BackendError: the artefact does not run.
    """
    codes, importance = runner.encode(picture.padded)
    flipped = picture.all_symbols(codes) != picture.symbols
    views = picture.views_of(runner, codes, importance)
    decoded = [
        picture.decode(runner, reference.codes[None], reference.levels[None])
        for reference in picture.views
    ]
    # Nothing failed: only now the figures are those of a whole picture.
    follows = follow_others(flipped, picture.decided_at_once)
    artefact.differences.add_codes(flipped, follows, picture.margins)
    artefact.differences.add_importance(_steps(importance, picture.importance))
    for reference, own, same_codes in zip(picture.views, views, decoded, strict=True):
        outcome = _outcome(picture, reference, own, same_codes)
        artefact.differences.outcomes.append(outcome)
        _exhibit(artefact, picture, reference, own)
    return views


def _outcome(picture: Picture, reference: View, own: View, same_codes: Bytes) -> Outcome:
    kept = picture.codec.context.codes.kept(reference.levels)
    flipped = picture.symbols_of(reference.codes) != picture.symbols_of(own.codes)
    levels = _steps(own.levels, reference.levels)
    pixels = _steps(same_codes, reference.restored)
    return Outcome(
        picture=picture.name,
        scale=reference.scale,
        kept_codes=int(kept.sum()),
        kept_flips=int((kept & flipped).sum()),
        positions=levels.size,
        levels_differ=int(np.count_nonzero(levels)),
        level_largest=int(levels.max()),
        pixel_largest=int(pixels.max()),
        pixel_mean=float(pixels.mean()),
        reference=reference.quality,
        own=own.quality,
        reference_bpp=picture.bpp(reference.stream),
        own_bpp=picture.bpp(own.stream),
    )


def _exhibit(artefact: Artefact, picture: Picture, reference: View, own: View) -> None:
    """Keep the part of the picture that differs most, if it is the worst so far."""
    steps = _steps(own.restored, reference.restored)
    mean = float(steps.mean())
    if artefact.exhibit is not None and mean <= artefact.exhibit.pixel_mean:
        return
    area = _worst_area(steps.sum(2, dtype=np.int64))
    artefact.exhibit = Exhibit(
        picture=picture.name,
        scale=reference.scale,
        original=picture.pixels[area].copy(),
        reference=reference.restored[area].copy(),
        own=own.restored[area].copy(),
        pixel_mean=mean,
    )


def _worst_area(errors: NDArray[np.int64]) -> tuple[slice, slice]:
    """The square with the largest sum, on a grid of a quarter of its side."""
    sums = np.pad(errors.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    height, width = (min(side, _EXHIBIT_PX) for side in errors.shape)
    tops = range(0, errors.shape[0] - height + 1, _EXHIBIT_PX // 4)
    lefts = range(0, errors.shape[1] - width + 1, _EXHIBIT_PX // 4)

    def error(corner: tuple[int, int]) -> int:
        top, left = corner
        bottom, right = top + height, left + width
        return int(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left])

    top, left = max(((t, x) for t in tops for x in lefts), key=error)
    return slice(top, top + height), slice(left, left + width)


def _steps(a: Bytes, b: Bytes) -> NDArray[np.int16]:
    """Absolute difference in 8-bit steps."""
    steps: NDArray[np.int16] = np.abs(a.astype(np.int16) - b)
    return steps
