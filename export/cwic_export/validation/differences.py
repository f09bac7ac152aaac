"""How one artefact differs from the eager graphs, and whether it may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic_export.validation.metrics import Quality
from cwic_export.validation.tolerances import Tolerance

__all__ = ["Differences", "Outcome", "Rate"]


@dataclass(frozen=True)
class Outcome:
    """One picture at one rate.

    Attributes:
        picture: its file name.
        scale: rate factor.
        kept_codes: code bits that the reference keeps at this rate.
        kept_flips: those of them that differ.
        positions: positions of the map.
        levels_differ: those whose level differs after the choice of the rate.
        level_largest: largest difference of a level.
        pixel_largest, pixel_mean: of the two decoders' pictures from the reference's codes and
            levels, in 8-bit steps.
        reference, own: quality of the whole path of the eager graphs, and of the artefact.
        reference_bpp, own_bpp: bits of the whole ``.cwic`` file per pixel.
    """

    picture: str
    scale: float
    kept_codes: int
    kept_flips: int
    positions: int
    levels_differ: int
    level_largest: int
    pixel_largest: int
    pixel_mean: float
    reference: Quality
    own: Quality
    reference_bpp: float
    own_bpp: float

    @property
    def delta_psnr_db(self) -> float:
        """Negative: the artefact loses."""
        return self.own.psnr_db - self.reference.psnr_db

    @property
    def delta_ms_ssim(self) -> float | None:
        """Negative: the artefact loses. None for small pictures."""
        if self.own.ms_ssim is None or self.reference.ms_ssim is None:
            return None
        return self.own.ms_ssim - self.reference.ms_ssim

    @property
    def bpp_rise(self) -> float:
        """Change of the file's size, relative to the reference's."""
        return self.own_bpp / self.reference_bpp - 1

    @property
    def level_share(self) -> float:
        """Share of the positions whose level differs."""
        return self.levels_differ / self.positions

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "delta_psnr_db": self.delta_psnr_db,
            "delta_ms_ssim": self.delta_ms_ssim,
            "delta_bpp": self.own_bpp - self.reference_bpp,
        }


@dataclass(frozen=True)
class Rate:
    """All pictures at one rate: means, and of each difference the worst."""

    scale: float
    outcomes: tuple[Outcome, ...]

    def mean(self, name: str) -> float | None:
        """Mean of an attribute of :class:`Outcome` over the pictures that have it."""
        values = _known(getattr(outcome, name) for outcome in self.outcomes)
        return float(np.mean(values)) if values else None

    def lowest(self, name: str) -> float | None:
        values = _known(getattr(outcome, name) for outcome in self.outcomes)
        return min(values, default=None)

    def highest(self, name: str) -> float | None:
        values = _known(getattr(outcome, name) for outcome in self.outcomes)
        return max(values, default=None)

    def total(self, name: str) -> int:
        return sum(getattr(outcome, name) for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        means = {name: self.mean(name) for name in ("reference_bpp", "own_bpp", "pixel_mean")}
        changes = {
            f"{what}_{kind}": getattr(self, function)(name)
            for what, name, worst in (
                ("delta_psnr_db", "delta_psnr_db", "lowest"),
                ("delta_ms_ssim", "delta_ms_ssim", "lowest"),
                ("bpp_rise", "bpp_rise", "highest"),
            )
            for kind, function in (("mean", "mean"), ("worst", worst))
        }
        return {
            "scale": self.scale,
            "kept_codes": self.total("kept_codes"),
            "kept_flips": self.total("kept_flips"),
            "positions": self.total("positions"),
            "levels_differ": self.total("levels_differ"),
            "level_largest": self.highest("level_largest"),
            "pixel_largest": self.highest("pixel_largest"),
            **means,
            **changes,
        }


@dataclass
class Differences:
    """Differences of one artefact from the reference, over all pictures.

    Attributes:
        codes: code bits compared, those that no rate keeps included.
        flips: those that differ.
        causes: those of them that do not follow from another.
        free: codes that depend on no flip, whether they flip or not.
        largest_flip_margin: largest |E| of one that differs and does not follow from another.
        importance_flips: positions whose importance differs.
        importance_largest: largest difference, in 1/255.
        outcomes: one for each picture and rate.
    """

    codes: int = 0
    flips: int = 0
    causes: int = 0
    free: int = 0
    largest_flip_margin: float = 0.0
    importance_flips: int = 0
    importance_largest: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    def add_codes(
        self,
        flipped: NDArray[np.bool_],
        follows: NDArray[np.bool_],
        margins: NDArray[np.float32],
    ) -> None:
        """What differs, what depends directly on another flip, and |E|: of one shape.

        Of values |E| is what :meth:`cwic_export.runners.EagerRunner.margins` says.
        """
        self.codes += flipped.size
        self.free += int(np.count_nonzero(~follows))
        causes = flipped & ~follows
        if flipped.any():
            self.flips += int(flipped.sum())
            self.causes += int(causes.sum())
            self.largest_flip_margin = max(self.largest_flip_margin, float(margins[causes].max()))

    def add_importance(self, steps: NDArray[np.int16]) -> None:
        """Absolute difference at every position of a picture."""
        self.importance_flips += int(np.count_nonzero(steps))
        self.importance_largest = max(self.importance_largest, int(steps.max()))

    @property
    def flip_share(self) -> float:
        return self.flips / max(self.codes, 1)

    @property
    def cause_share(self) -> float:
        """Of the codes that depend on no flip, those that flip."""
        return self.causes / max(self.free, 1)

    @property
    def by_scale(self) -> list[Rate]:
        """The outcomes by rate, in the order in which they were measured."""
        scales = dict.fromkeys(outcome.scale for outcome in self.outcomes)
        return [Rate(s, tuple(o for o in self.outcomes if o.scale == s)) for s in scales]

    def to_dict(self) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if name != "outcomes"}
        return {
            **plain,
            "flip_share": self.flip_share,
            "cause_share": self.cause_share,
            "by_scale": [rate.to_dict() for rate in self.by_scale],
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
        }

    def past(self, tolerance: Tolerance) -> list[str]:
        """What is out of tolerance, in words."""
        outcomes = self.outcomes
        ms_ssim = _known(outcome.delta_ms_ssim for outcome in outcomes)
        limits = (
            ("a code flips at |E|", self.largest_flip_margin, tolerance.code_margin),
            ("share of codes that flip", self.cause_share, tolerance.flip_share),
            ("importance differs by", self.importance_largest, tolerance.importance),
            (
                "share of levels that differ",
                max((o.level_share for o in outcomes), default=0.0),
                tolerance.level_share,
            ),
            (
                "a pixel differs by",
                max((o.pixel_largest for o in outcomes), default=0),
                tolerance.pixel_largest,
            ),
            (
                "mean difference of pixels",
                max((o.pixel_mean for o in outcomes), default=0.0),
                tolerance.pixel_mean,
            ),
            (
                "PSNR loss in dB",
                -min((o.delta_psnr_db for o in outcomes), default=0.0),
                tolerance.psnr_loss_db,
            ),
            ("MS-SSIM loss", -min(ms_ssim, default=0.0), tolerance.ms_ssim_loss),
            ("rise in bpp", max((o.bpp_rise for o in outcomes), default=0.0), tolerance.bpp_rise),
        )
        # Written so that NaN is past every limit.
        return [f"{what} {v:.4g} (allowed: {most:g})" for what, v, most in limits if not v <= most]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
