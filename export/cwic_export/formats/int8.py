"""``onnx-int8``: ONNX files whose layers compute in int8 where that costs little quality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cwic.errors import ExportError
from cwic.rate import QualityScale
from cwic_export.formats.base import INSTALL, ROLES, Format, Job, Options, needed

__all__ = ["Int8Format"]


@dataclass(frozen=True)
class Int8Format(Format):
    """Both graphs with Q and DQ nodes; see :mod:`cwic_export.quantize`.

    The inputs and outputs are those of fp32. What was measured lies in the manifest's facts
    under ``name``: the number of calibration pictures, the limit, and for each graph what
    :meth:`cwic_export.quantize.search.Quantised.facts` gives.

    Attributes:
        name: of the format.
        target: what runs the files, in the manifest: ``onnx`` or ``onnx-tensorrt``.
        scheme: name of a scheme in :mod:`cwic_export.quantize.qdq`.
        suffix: of the files.
    """

    name: str
    target: str
    scheme: str
    suffix: str

    def prepare(self, options: Options) -> None:
        if not options.calibration:
            raise ExportError(
                f"{self.name} measures the graphs on pictures and was given none; add "
                "--calibration with a quoted glob of some typical ones"
            )
        if not options.int8_loss_db > 0:
            raise ExportError(
                f"--int8-loss {options.int8_loss_db} leaves int8 no room; use for example 0.1"
            )
        needed("cwic_export.quantize.qdq", self.name, INSTALL)
        scoring: Any = needed("cwic_export.quantize.scoring", self.name, INSTALL)
        scoring.open_pictures(options.calibration)

    def write(self, job: Job) -> None:
        from cwic_export.onnx import serialise
        from cwic_export.quantize import qdq
        from cwic_export.quantize.scoring import Scorer, open_pictures
        from cwic_export.quantize.search import search
        from cwic_export.quantize.session import Session

        options = job.options
        encoder, decoder = (Session(serialise(job.onnx_model(role))) for role in ROLES)
        pictures = open_pictures(options.calibration)
        qualities = QualityScale(job.bundle.quality_scales)
        scorer = Scorer(encoder, decoder, job.entropy_model(), qualities, pictures)
        facts: dict[str, Any] = {
            "calibration_pictures": len(options.calibration),
            "loss_limit_db": options.int8_loss_db,
        }
        for role in ROLES:
            scheme = getattr(qdq, self.scheme)
            found = search(role, job.onnx_model(role), scorer, scheme, options.int8_loss_db)
            facts[role] = found.facts()
            data = serialise(found.model)
            name = f"{role}.{self.suffix}"
            job.write(name, data, role=role, target=self.target, precision="int8")
        job.state({self.name: facts})
