"""Artefacts to measure: exported from the checkpoint when they are asked for, or of a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cwic.bundle import Bundle
from cwic.errors import ExportError
from cwic_export.bundle_writer import export_bundle
from cwic_export.formats import FORMATS, Options
from cwic_export.identity import model_id
from cwic_export.validation.artefacts import artefacts_of
from cwic_training.checkpoint import load_checkpoint

__all__ = ["Bundles"]

_KINDS = {
    "onnx": ("onnx", "fp32"),
    "onnx-fp16": ("onnx", "fp16"),
    "onnx-int8-tensorrt": ("onnx-tensorrt", "int8"),
    "torchscript": ("torchscript", "fp32"),
    "exported-program": ("exported-program", "fp32"),
    "torch-tensorrt": ("torch-tensorrt", "fp32"),
}
"""Target and precision in a manifest, by format."""


class Bundles:
    """Gives a bundle that holds a format.

    Args:
        checkpoint: the model's weights.
        folder: where exports go, one folder for each format, so that one that fails takes
            nothing along.
        given: a bundle to take everything from instead.
        calibration: pictures for int8.

    Raises:
        ExportError: ``given`` is of another model.
        BundleError, CheckpointError: an input cannot be read.
    """

    def __init__(
        self,
        checkpoint: Path,
        folder: Path,
        given: Path | None = None,
        calibration: Sequence[Path] = (),
    ) -> None:
        self._checkpoint, self._folder, self._calibration = checkpoint, folder, tuple(calibration)
        self.network = (loaded := load_checkpoint(checkpoint)).network()
        self._given = None if given is None else Bundle.load(given)
        if self._given is not None and self._given.model_id != model_id(loaded):
            raise ExportError(
                f"{given} is not the model of {checkpoint}; pass the checkpoint that the bundle "
                "was exported from"
            )
        self._made: dict[str, Bundle] = {}

    def check(self, form: str) -> None:
        """Whether ``form`` can be had here.

        Raises:
            CwicError: it cannot; the message says what is missing.
        """
        if self._given is None:
            FORMATS[form].prepare(Options((form,), self._calibration))
        elif _KINDS[form] not in [(a.target, a.precision) for a in artefacts_of(self._given)]:
            raise ExportError(
                f"{self._given.path} has no {form}; export it with --formats {form}, or leave "
                "out --bundle"
            )

    def get(self, form: str) -> Bundle:
        """A bundle with the graphs of ``form``.

        Raises:
            CwicError: the export fails.
        """
        if self._given is not None:
            return self._given
        if form not in self._made:
            self._made[form] = export_bundle(
                self._checkpoint, self._folder / form, [form], calibration=self._calibration
            )
        return self._made[form]

    def any(self) -> Bundle:
        """One for the entropy coder, whatever graphs it holds."""
        return next(iter(self._made.values()), None) or self.get("torchscript")
