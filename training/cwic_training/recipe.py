"""What a training run does, as one record that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cwic.errors import TrainingError
from cwic_training.config import STRIDE
from cwic_training.losses import MS_SSIM_SMALLEST_PX

__all__ = ["RATE_MODELS", "VALUES_DEFAULTS", "Recipe"]

RATE_MODELS = "count", "context", "values"

VALUES_DEFAULTS: dict[str, Any] = {
    "batch": 4,
    "crop": 192,
    "ms_ssim": 0.5,
    "rate_weight": 253.0,
    "rate_model": "values",
    "scale_min": 0.15,
    "scale_max": 2.0,
    "muon_lr": 0.003,
    "adam_lr": 0.001,
}
"""Where a recipe for models of values differs from :class:`Recipe`'s own defaults, which are those
of models of signs."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of one run.

    Attributes:
        stage: ``"main"`` (every code kept) or ``"importance"`` (with the importance map).
        steps: total optimiser steps; a resumed run goes on to this number.
        cooldown: last fraction of the steps over which learning rates fall to zero.
        batch: crops per step.
        crop: side of a crop in pixels, a multiple of 8.
        ms_ssim: share of the pictures whose distortion is 1 - MS-SSIM instead of MSE, 0..1.
        rate_weight: weight of the rate term; with ``rate_bpp`` the weight of the hinge.
        rate_model: what kept codes cost in the loss: ``"count"``, one bit each; ``"context"``,
            what a context network trained along with the model makes of them; ``"values"``, for
            models of values and the only one for them, what a smooth model of values does.
        rate_bpp: None for variable rate, else the paper's fixed target r in bits per pixel.
        scale_min, scale_max: range of the rate factor s, drawn log-uniformly, with
            ``rate_model="values"`` uniformly.
        muon_lr, adam_lr: learning rates of weight matrices and of the rest.
        seed: of initial weights, crops and rate factors; 0 to 2**32 - 1.
        precision: ``"bf16-mixed"`` or ``"32-true"``.
        validate_every: steps between validations.
    """

    stage: str = "importance"
    steps: int = 30_000
    cooldown: float = 0.3
    batch: int = 16
    crop: int = 128
    ms_ssim: float = 0.0
    rate_weight: float = 20.0
    rate_model: str = "count"
    rate_bpp: float | None = None
    scale_min: float = 0.08
    scale_max: float = 1.5
    muon_lr: float = 0.005
    adam_lr: float = 0.0008
    seed: int = 0
    precision: str = "bf16-mixed"
    validate_every: int = 1000

    def __post_init__(self) -> None:
        if self.stage not in ("main", "importance"):
            raise TrainingError(f"unknown stage {self.stage!r}; use 'main' or 'importance'")
        if self.rate_model not in RATE_MODELS:
            raise TrainingError(
                f"unknown rate model {self.rate_model!r}; use one of {', '.join(RATE_MODELS)}"
            )
        if self.rate_model == "values":
            self._check_values()
        if self.steps < 1 or self.batch < 1 or self.validate_every < 1:
            raise TrainingError("steps, batch and validation interval must be at least 1")
        if self.crop <= 0 or self.crop % STRIDE:
            raise TrainingError(f"crop {self.crop} is not a positive multiple of {STRIDE}; use 128")
        if not 0 <= self.ms_ssim <= 1:
            raise TrainingError(
                f"MS-SSIM share {self.ms_ssim} is outside 0..1; use for example 0.5"
            )
        if self.ms_ssim and self.crop < MS_SSIM_SMALLEST_PX:
            raise TrainingError(
                f"MS-SSIM needs crops of {MS_SSIM_SMALLEST_PX} pixels, not {self.crop}; "
                "use for example 192"
            )
        if not 0 <= self.seed < 1 << 32:
            raise TrainingError(f"seed {self.seed} is outside 0..2^32-1; use for example 0")
        if not 0 <= self.cooldown <= 1:
            raise TrainingError(f"cooldown {self.cooldown} is outside 0..1; use for example 0.3")
        if self.rate_bpp is not None and self.rate_bpp <= 0:
            raise TrainingError(f"rate {self.rate_bpp} bpp is not positive; use for example 0.5")
        if not 0 < self.scale_min <= self.scale_max:
            raise TrainingError("scales must satisfy 0 < scale_min <= scale_max")
        if min(self.muon_lr, self.adam_lr, self.rate_weight) < 0:
            raise TrainingError("learning rates and the rate weight must not be negative")

    @classmethod
    def suited_to(cls, codes: str, stage: str, **fields: Any) -> Recipe:
        """The recipe for a kind of codes.

        Args:
            codes: of the model, ``"signs"`` or ``"values"``.
            stage: see :attr:`stage`.
            fields: others by name; None stands for the default of ``codes``.

        Raises:
            TrainingError: as the class.
        """
        defaults = VALUES_DEFAULTS if codes == "values" and stage == "importance" else {}
        given = {name: value for name, value in fields.items() if value is not None}
        return cls(stage=stage, **{**defaults, **given})

    def _check_values(self) -> None:
        if self.stage != "importance":
            raise TrainingError(
                "without importance no step is chosen for values; use stage importance"
            )
        if self.rate_bpp is not None:
            raise TrainingError("values are trained for all rates at once; leave out --rate-bpp")
        if self.rate_weight == 0:
            raise TrainingError("values need a price; use for example --rate-weight 253")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
