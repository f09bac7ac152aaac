"""What a validation found, and whether it is within tolerance."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["HEADER", "TOLERANCES", "Artefact", "Differences", "Report", "Tolerance"]


@dataclass(frozen=True)
class Tolerance:
    """What an artefact may differ by.

    Attributes:
        code_margin: a code may flip where |E| is below this.
        importance: steps of 1/255.
        reconstruction: 8-bit steps of any pixel, on the reference's codes.
        psnr_db: of the whole path, on any picture at any scale.
    """

    code_margin: float
    importance: int
    reconstruction: int
    psnr_db: float


TOLERANCES = {
    "fp32": Tolerance(code_margin=1e-4, importance=1, reconstruction=1, psnr_db=0.01),
}
"""By the ``precision`` of a manifest."""


@dataclass
class Differences:
    """Differences of one artefact from the reference, over all pictures and scales.

    Attributes:
        codes: code bits compared.
        flips: those that differ.
        largest_flip_margin: largest |E| of one that differs.
        importance_flips: positions whose importance differs.
        importance_largest: largest difference, in 1/255.
        reconstruction_largest: largest difference of a pixel, in 8-bit steps.
        delta_psnr_db: that of the picture and scale where it is farthest from 0.
        delta_bpp: likewise.
    """

    codes: int = 0
    flips: int = 0
    largest_flip_margin: float = 0.0
    importance_flips: int = 0
    importance_largest: int = 0
    reconstruction_largest: int = 0
    delta_psnr_db: float = 0.0
    delta_bpp: float = 0.0
    _error_sum: int = 0
    _samples: int = 0
    _outcomes: dict[float, list[tuple[float, ...]]] = field(default_factory=dict)

    def add_codes(self, flipped: NDArray[np.bool_], margins: NDArray[np.float32]) -> None:
        """``flipped`` and |E| of every code of a picture, of one shape."""
        self.codes += flipped.size
        if flipped.any():
            self.flips += int(flipped.sum())
            self.largest_flip_margin = max(self.largest_flip_margin, float(margins[flipped].max()))

    def add_importance(self, steps: NDArray[np.int16]) -> None:
        """Absolute difference at every position of a picture."""
        self.importance_flips += int(np.count_nonzero(steps))
        self.importance_largest = max(self.importance_largest, int(steps.max()))

    def add_reconstruction(self, steps: NDArray[np.int16]) -> None:
        """Absolute difference at every sample of a picture."""
        self.reconstruction_largest = max(self.reconstruction_largest, int(steps.max()))
        self._error_sum += int(steps.sum(dtype=np.int64))
        self._samples += steps.size

    def add_outcome(
        self, scale: float, *, reference: tuple[float, ...], artefact: tuple[float, ...]
    ) -> None:
        """PSNR in dB and bits per pixel of one picture at one scale."""
        psnr_db, bpp = (a - r for r, a in zip(reference, artefact, strict=True))
        self.delta_psnr_db = max(self.delta_psnr_db, psnr_db, key=abs)
        self.delta_bpp = max(self.delta_bpp, bpp, key=abs)
        self._outcomes.setdefault(scale, []).append((*reference, *artefact))

    @property
    def reconstruction_mean(self) -> float:
        """Mean difference of a sample, in 8-bit steps."""
        return self._error_sum / max(self._samples, 1)

    @property
    def by_scale(self) -> list[dict[str, float]]:
        """Mean PSNR and bits per pixel at each scale, of reference and artefact."""
        names = ("reference_psnr_db", "reference_bpp", "psnr_db", "bpp")
        return [
            {"scale": scale, **dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))}
            for scale, rows in self._outcomes.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        public = {k: v for k, v in asdict(self).items() if not k.startswith("_")}
        return {
            **public,
            "flip_share": self.flips / max(self.codes, 1),
            "reconstruction_mean": self.reconstruction_mean,
            "by_scale": self.by_scale,
        }

    def past(self, tolerance: Tolerance) -> list[str]:
        """What is out of tolerance, in words."""
        limits = (
            (
                "a code flips at |E|",
                self.flips and self.largest_flip_margin,
                tolerance.code_margin,
            ),
            ("importance differs by", self.importance_largest, tolerance.importance),
            ("a pixel differs by", self.reconstruction_largest, tolerance.reconstruction),
            ("PSNR differs by", abs(self.delta_psnr_db), tolerance.psnr_db),
        )
        return [f"{what} {v:.4g} (allowed: {most:g})" for what, v, most in limits if not v <= most]


Status = Literal["passed", "differs", "error", "skipped"]


@dataclass
class Artefact:
    """Result for one pair of graphs.

    Attributes:
        target, precision: as in the manifest.
        differences: from the reference; empty if it was skipped or failed at once.
    """

    target: str
    precision: str
    differences: Differences = field(default_factory=Differences)
    _stopped: Status | None = None
    _reason: str = ""

    def skip(self, reason: str) -> None:
        """It cannot run on this machine."""
        self._stopped, self._reason = "skipped", reason

    def fail(self, reason: str) -> None:
        """It does not load or does not run."""
        self._stopped, self._reason = "error", reason

    @property
    def failed(self) -> bool:
        """Whether it failed to load or run."""
        return self._stopped == "error"

    @property
    def problems(self) -> list[str]:
        """Why it is not `passed`."""
        if self._stopped is not None:
            return [self._reason]
        tolerance = TOLERANCES.get(self.precision)
        if tolerance is None:
            return [f"no tolerance is known for precision {self.precision!r}"]
        return self.differences.past(tolerance)

    @property
    def status(self) -> Status:
        """``passed``, ``differs`` (past tolerance), ``error`` or ``skipped``."""
        if self._stopped is not None:
            return self._stopped
        return "differs" if self.problems else "passed"

    def to_dict(self) -> dict[str, Any]:
        result = {"target": self.target, "precision": self.precision, "status": self.status}
        measured = {} if self._stopped else self.differences.to_dict()
        return {**result, "problems": self.problems, **measured}


HEADER = (
    "artefact",
    "precision",
    "result",
    "codes that differ",
    "largest |E| there",
    "importance differs",
    "largest pixel error",
    "largest ΔPSNR dB",
    "largest Δbpp",
)
"""Names of the values in :meth:`Report.rows`."""


@dataclass(frozen=True)
class Report:
    """Result of one validation.

    Attributes:
        name, model_id: of the bundle.
        pictures: how many were compared.
        scales: rate factors.
        artefacts: one result for each pair of graphs.
    """

    name: str
    model_id: str
    pictures: int
    scales: tuple[float, ...]
    artefacts: list[Artefact]

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing is past tolerance or failed."""
        found = {artefact.status for artefact in self.artefacts}
        return "passed" in found and found <= {"passed", "skipped"}

    def rows(self) -> list[tuple[str, ...]]:
        """One row for each artefact, under :data:`HEADER`."""
        return [_row(artefact) for artefact in self.artefacts]

    def problems(self) -> list[str]:
        """One line for each reason why an artefact is not `passed`."""
        return [f"{a.target} {a.precision}: {p}" for a in self.artefacts for p in a.problems]

    def to_json(self) -> str:
        """The report as JSON."""
        values = {
            "format": "cwic-validation/1",
            "name": self.name,
            "model_id": self.model_id,
            "passed": self.passed,
            "pictures": self.pictures,
            "scales": self.scales,
            "artefacts": [artefact.to_dict() for artefact in self.artefacts],
        }
        return json.dumps(values, indent=2) + "\n"


def _row(artefact: Artefact) -> tuple[str, ...]:
    head = (artefact.target, artefact.precision, artefact.status)
    if artefact.status in ("error", "skipped"):
        return (*head, *("-" for _ in HEADER[len(head) :]))
    d = artefact.differences
    return (
        *head,
        f"{d.flips} of {d.codes}",
        f"{d.largest_flip_margin:.1e}" if d.flips else "-",
        f"{d.importance_flips}, by {d.importance_largest}" if d.importance_flips else "-",
        f"{d.reconstruction_largest}, mean {d.reconstruction_mean:.1g}",
        f"{d.delta_psnr_db:+.4f}",
        f"{d.delta_bpp:+.5f}",
    )
