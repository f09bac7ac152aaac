"""What a validation found, and whether it is within tolerance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cwic_export.validation.differences import Differences
from cwic_export.validation.metrics import CONVENTION
from cwic_export.validation.tolerances import TOLERANCES

__all__ = ["Artefact", "Crossing", "Departure", "Exhibit", "Report", "Status"]

Bytes = NDArray[np.uint8]
Status = Literal["passed", "differs", "error", "skipped"]


@dataclass(frozen=True)
class Departure:
    """A node of an ONNX graph that adds to the error.

    Attributes:
        graph: ``encoder`` or ``decoder``.
        node: its name in the artefact.
        op: its operator.
        layer: name of its weights, for example ``trunk.2.up``; empty if it has none.
        tensor: name of its output.
        error: RMS difference of the output from the reference, relative to its RMS.
        before: the largest such error among what goes into it.
        first: whether it is the first node that differs at all.
    """

    graph: str
    node: str
    op: str
    layer: str
    tensor: str
    error: float
    before: float
    first: bool

    def to_dict(self) -> dict[str, Any]:
        values = dict(vars(self))
        # A half that overflows: JSON has no infinity.
        return {
            k: None if isinstance(v, float) and not isfinite(v) else v for k, v in values.items()
        }


@dataclass(frozen=True)
class Exhibit:
    """Part of a picture where an artefact differs most; arrays uint8 [h, w, 3].

    Attributes:
        picture: file name.
        scale: rate factor.
        original, reference, own: the picture, and what eager graphs and artefact restore.
        pixel_mean: difference of the last two over the whole picture, in 8-bit steps.
    """

    picture: str
    scale: float
    original: Bytes
    reference: Bytes
    own: Bytes
    pixel_mean: float


@dataclass
class Artefact:
    """Result for one pair of graphs.

    Attributes:
        target, precision: as in the manifest.
        differences: from the reference; empty if it was skipped or failed at once.
        departures: the nodes that its error comes from; only for ONNX files.
        exhibit: where it differs most.
    """

    target: str
    precision: str
    differences: Differences = field(default_factory=Differences)
    departures: list[Departure] = field(default_factory=list)
    exhibit: Exhibit | None = None
    _stopped: Literal["error", "skipped"] | None = None
    _reason: str = ""

    @property
    def label(self) -> str:
        """Target and precision."""
        return f"{self.target} {self.precision}"

    def skip(self, reason: str) -> None:
        """It cannot run on this machine."""
        self._stopped, self._reason = "skipped", reason

    def fail(self, reason: str) -> None:
        """It does not load or does not run."""
        self._stopped, self._reason = "error", reason

    @property
    def runs(self) -> bool:
        """Whether it was compared."""
        return self._stopped is None

    @property
    def problems(self) -> list[str]:
        """Why it is not `passed`."""
        if self._stopped is not None:
            return [self._reason]
        tolerance = TOLERANCES.get(self.precision)
        if tolerance is None:
            return [
                f"no tolerance is known for precision {self.precision!r}; "
                f"known: {', '.join(TOLERANCES)}"
            ]
        return self.differences.past(tolerance)

    @property
    def status(self) -> Status:
        """``passed``, ``differs`` (past tolerance), ``error`` or ``skipped``."""
        if self._stopped is not None:
            return self._stopped
        return "differs" if self.problems else "passed"

    def to_dict(self) -> dict[str, Any]:
        result = {"target": self.target, "precision": self.precision, "status": self.status}
        measured = self.differences.to_dict() if self.runs else {}
        if self.departures:
            measured["departures"] = [departure.to_dict() for departure in self.departures]
        return {**result, "problems": self.problems, **measured}


@dataclass
class Crossing:
    """Streams of one artefact, decoded by another.

    Attributes:
        encoder, decoder: labels of the artefacts.
        pixel_limit, mean_limit: what the decoder's pictures may differ by from those of the
            encoder's own decoder, in 8-bit steps.
        streams: how many were decoded.
        wrong: streams that gave other codes or levels than were encoded.
        pixel_largest, pixel_mean: largest difference of a sample, and the largest mean.
    """

    encoder: str
    decoder: str
    pixel_limit: float
    mean_limit: float
    streams: int = 0
    wrong: int = 0
    pixel_largest: int = 0
    pixel_mean: float = 0.0

    def add(self, *, same_codes: bool, restored: Bytes, own: Bytes) -> None:
        """One stream: the picture decoded from it, and that of the encoder's own decoder."""
        steps = np.abs(restored.astype(np.int16) - own)
        self.streams += 1
        self.wrong += not same_codes
        self.pixel_largest = max(self.pixel_largest, int(steps.max()))
        self.pixel_mean = max(self.pixel_mean, float(steps.mean()))

    def add_lost(self) -> None:
        """One stream that cannot be read."""
        self.streams += 1
        self.wrong += 1

    @property
    def problems(self) -> list[str]:
        """What is out of tolerance."""
        found = []
        if self.wrong:
            found.append(f"{self.wrong} of {self.streams} streams give other codes or levels")
        for what, value, limit in (
            ("a pixel differs by", self.pixel_largest, self.pixel_limit),
            ("mean difference of pixels", self.pixel_mean, self.mean_limit),
        ):
            if not value <= limit:
                found.append(f"{what} {value:.4g} (allowed: {limit:g})")
        return [f"encoded by {self.encoder}, decoded by {self.decoder}: {p}" for p in found]

    def to_dict(self) -> dict[str, Any]:
        shown = ("encoder", "decoder", "streams", "wrong", "pixel_largest", "pixel_mean")
        return {**{name: getattr(self, name) for name in shown}, "problems": self.problems}


@dataclass(frozen=True)
class Report:
    """Result of one validation.

    Attributes:
        name, model_id: of the bundle.
        pictures: file names of what was compared.
        scales: rate factors.
        artefacts: one result for each pair of graphs.
        crossings: one result for each ordered pair of what runs here, eager graphs included.
    """

    name: str
    model_id: str
    pictures: tuple[str, ...]
    scales: tuple[float, ...]
    artefacts: list[Artefact]
    crossings: list[Crossing] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was compared and nothing is past tolerance or failed."""
        found = {artefact.status for artefact in self.artefacts}
        right = "passed" in found and found <= {"passed", "skipped"}
        return right and not any(crossing.problems for crossing in self.crossings)

    def problems(self) -> list[str]:
        """One line for each reason why something is not `passed`."""
        lines = [f"{a.label}: {problem}" for a in self.artefacts for problem in a.problems]
        return lines + [problem for crossing in self.crossings for problem in crossing.problems]

    def to_json(self) -> str:
        """The report as JSON."""
        precisions = dict.fromkeys(a.precision for a in self.artefacts if a.precision in TOLERANCES)
        values = {
            "format": "cwic-validation/2",
            "name": self.name,
            "model_id": self.model_id,
            "passed": self.passed,
            "pictures": self.pictures,
            "scales": self.scales,
            "metrics": CONVENTION,
            "tolerances": {name: TOLERANCES[name].to_dict() for name in precisions},
            "artefacts": [artefact.to_dict() for artefact in self.artefacts],
            "crossings": [crossing.to_dict() for crossing in self.crossings],
        }
        return json.dumps(values, indent=2, allow_nan=False) + "\n"
