"""``tensorrt`` and ``tensorrt-rtx``: engines, built from the ONNX files of the same export."""

from __future__ import annotations

from dataclasses import dataclass

from cwic.engines.build import Target, build_engines, find_target
from cwic.engines.library import Kind, load_library
from cwic.errors import ExportError
from cwic_export.formats.base import Format, Job, Options

__all__ = ["EngineFormat"]

_PRECISIONS = {"onnx": "fp32", "onnx-fp16": "fp16", "onnx-int8-tensorrt": "int8"}
"""What engines can be built from, by format."""


@dataclass(frozen=True)
class EngineFormat(Format):
    """An engine for each precision that the bundle has as ONNX, for the usual picture sizes.

    ``cwic engine`` builds single ones, with other sizes.

    Attributes:
        kind: the library.
    """

    kind: Kind

    def prepare(self, options: Options) -> None:
        if not self._precisions(options):
            raise ExportError(
                f"{self.kind} engines are built from ONNX files; add one or more of "
                f"{', '.join(_PRECISIONS)} to --formats"
            )
        self._target(options)

    def write(self, job: Job) -> None:
        target = self._target(job.options)
        for precision in self._precisions(job.options):
            # The builder works on a bundle whose manifest is on disk.
            job.bundle.save()
            job.bundle, _ = build_engines(job.bundle, target, precision=precision)

    @staticmethod
    def _precisions(options: Options) -> list[str]:
        return [p for form, p in _PRECISIONS.items() if form in options.formats]

    def _target(self, options: Options) -> Target:
        return find_target(load_library(self.kind), options.sm)
