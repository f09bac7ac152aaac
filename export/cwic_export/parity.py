"""Validation: does every artefact of a bundle do what the eager graphs do?

For every picture, all of it, padded to multiples of 8::

    picture ─┬─▶ eager encoder ──▶ codes, importance ─┬─▶ eager decoder ──▶ PSNR, bpp at each scale
             │                          │ flips,      │        │ reconstruction error
             │                          │ differences └─▶ artefact's decoder
             └─▶ artefact's encoder ──▶ codes, importance ──▶ artefact's decoder ──▶ PSNR, bpp

The decoder is compared on the reference's codes, so that its error is its own, and the
whole path of the artefact gives the differences that a user would see.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.bundle import Bundle
from cwic.context import ContextModel
from cwic.errors import CwicError, ExportError
from cwic.image import crop_to, open_rgb, pad_to_multiple
from cwic.rate import levels_from_importance
from cwic_export.bundle_writer import CONTEXT_FILE
from cwic_export.identity import model_id
from cwic_export.report import Artefact, Differences, Report
from cwic_export.runners import RUNNERS, ArtefactRunner, EagerRunner, Runner
from cwic_training.checkpoint import load_checkpoint

__all__ = ["SCALES", "validate_bundle"]

SCALES = (0.25, 0.5, 1.0)

Bytes: TypeAlias = NDArray[np.uint8]


def validate_bundle(
    bundle_path: str | Path,
    reference_checkpoint: str | Path,
    images: Sequence[str | Path],
    scales: Sequence[float] = SCALES,
) -> Report:
    """Compare every artefact of a bundle that can run here with the eager graphs.

    Args:
        bundle_path: the bundle.
        reference_checkpoint: the checkpoint that it was exported from.
        images: pictures to compare on, each taken whole.
        scales: rate factors, positive.

    Raises:
        ExportError: no picture, no scale, or the bundle is of another model.
        BundleError, CheckpointError, ImageError: an input or the bundle's entropy tables
            cannot be read. An artefact that fails is no exception but a line of the report.
    """
    if not images or not scales:
        raise ExportError("nothing to compare on; pass at least one picture and one scale")
    bundle = Bundle.load(bundle_path)
    checkpoint = load_checkpoint(reference_checkpoint)
    expected = model_id(checkpoint)
    if bundle.model_id != expected:
        raise ExportError(
            f"{bundle.path} is model {bundle.model_id.hex()}, but {reference_checkpoint} is "
            f"model {expected.hex()}; pass the checkpoint that the bundle was exported from"
        )
    context = ContextModel.from_bytes(bundle.read(CONTEXT_FILE), bundle.n, bundle.levels)
    reference = EagerRunner(checkpoint.network())
    compared: list[_Compared] = []
    artefacts = [_open(bundle, key, compared) for key in _artefact_keys(bundle)]
    for path in images:
        picture = _Picture(open_rgb(path), reference, bundle, context, scales)
        for run in compared:
            run.add(picture)
    return Report(bundle.name, bundle.model_id.hex(), len(images), tuple(scales), artefacts)


def _artefact_keys(bundle: Bundle) -> list[tuple[str, str]]:
    """Target and precision of every pair of graphs, in the order of the manifest."""
    graphs = (e for e in bundle.files.values() if e.role in ("encoder", "decoder"))
    return list(dict.fromkeys((entry.target, entry.precision) for entry in graphs))


def _open(bundle: Bundle, key: tuple[str, str], compared: list[_Compared]) -> Artefact:
    """Load one artefact and queue it for comparison; what cannot be loaded says why."""
    artefact = Artefact(*key)
    runner = RUNNERS.get(artefact.target)
    reason = (
        f"nothing here runs {artefact.target} files; validate them where they run"
        if runner is None
        else runner.unavailable()
    )
    if runner is None or reason is not None:
        artefact.skip(reason or "")
        return artefact
    try:
        files = {
            entry.role: name
            for name, entry in bundle.files.items()
            if (entry.target, entry.precision) == key
        }
        loaded = runner.from_bytes(*(_read(bundle, files, r) for r in ("encoder", "decoder")))
    except CwicError as exc:
        artefact.fail(str(exc))
    else:
        compared.append(_Compared(artefact, loaded))
    return artefact


def _read(bundle: Bundle, files: Mapping[str, str], role: str) -> bytes:
    if role not in files:
        raise ExportError(f"{bundle.path} has no {role} of this kind; export the model again")
    return bundle.read(files[role])


class _Picture:
    """One picture with everything the reference makes of it."""

    def __init__(
        self,
        pixels: Bytes,
        reference: EagerRunner,
        bundle: Bundle,
        context: ContextModel,
        scales: Sequence[float],
    ) -> None:
        self.pixels, self.bundle, self.context, self.scales = pixels, bundle, context, scales
        self.padded = pad_to_multiple(pixels, bundle.stride)[None]
        self.margins = np.abs(reference.code_values(self.padded))
        self.codes, self.importance = reference.encode(self.padded)
        self.outcomes = list(self.whole_path(reference, self.codes, self.importance))

    def whole_path(
        self, runner: Runner, codes: Bytes, importance: Bytes
    ) -> Iterator[tuple[Bytes, Bytes, float, float]]:
        """For each scale: levels, reconstruction [1, H, W, 3], PSNR in dB, bits per pixel."""
        for scale in self.scales:
            levels = levels_from_importance(importance, scale, self.bundle.levels)
            image = runner.decode(codes, levels)
            yield levels, image, self._psnr_db(image), self._bpp(codes, levels[0])

    def _psnr_db(self, image: Bytes) -> float:
        shown = crop_to(image[0], *self.pixels.shape[:2])
        mse = np.square(shown.astype(np.float64) - self.pixels).mean()
        return float(10 * np.log10(255**2 / max(mse, 1e-10)))

    def _bpp(self, codes: Bytes, levels: Bytes) -> float:
        """Entropy-coded levels and codes in bits per pixel."""
        height_px, width_px = self.pixels.shape[:2]
        model = self.context
        bits = model.encode_levels(levels).bits + model.encode_codes(codes[0], levels).bits
        return bits / float(height_px * width_px)


@dataclass
class _Compared:
    """An artefact being compared; it leaves the comparison when it fails to run."""

    artefact: Artefact
    runner: ArtefactRunner

    def add(self, picture: _Picture) -> None:
        """Compare on one more picture."""
        if self.artefact.failed:
            return
        try:
            self._compare(picture)
        except CwicError as exc:
            self.artefact.fail(str(exc))

    def _compare(self, picture: _Picture) -> None:
        differences: Differences = self.artefact.differences
        codes, importance = self.runner.encode(picture.padded)
        flipped = np.unpackbits(codes ^ picture.codes, axis=1).astype(bool)
        differences.add_codes(flipped, picture.margins)
        differences.add_importance(_steps(importance, picture.importance))
        for levels, image, _, _ in picture.outcomes:
            differences.add_reconstruction(_steps(self.runner.decode(picture.codes, levels), image))
        own = picture.whole_path(self.runner, codes, importance)
        for scale, theirs, ours in zip(picture.scales, picture.outcomes, own, strict=True):
            differences.add_outcome(scale, reference=theirs[2:], artefact=ours[2:])


def _steps(a: Bytes, b: Bytes) -> NDArray[np.int16]:
    """Absolute difference in 8-bit steps."""
    steps: NDArray[np.int16] = np.abs(a.astype(np.int16) - b)
    return steps
