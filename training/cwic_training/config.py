"""Shapes of networks and the presets: `base`, the paper's, `nano` and variants, for devices."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cwic.errors import CheckpointError
from cwic_training.quantiser import MOST_VALUES

__all__ = ["DEFAULT_PRESETS", "PRESETS", "STRIDE", "ModelConfig"]

STRIDE = 8
"""Pixels per code position, along each side."""


@dataclass(frozen=True)
class ModelConfig:
    """What determines a network's shape.

    Attributes:
        arch: ``"base"`` or ``"nano"``.
        n: code channels per position, a multiple of 8; of signs one of ``levels`` too, of
            values at most 192.
        levels: L, the highest importance level; 1..255.
        width: feature channels (`nano` only).
        hidden: channels inside a block (`nano` only).
        encoder_blocks, decoder_blocks: blocks on each side (`nano` only).
        feedback: groups that the codes are decided in, one after the other, a divisor of
            ``n``; 0 decides all at once, as the paper does.
        codes: ``"signs"``, balanced bits, as the paper has them, or ``"values"``, numbers in
            steps that the importance map chooses (`nano` without feedback only).
        lapped: whether the first and the last convolution see the positions around, too
            (`nano` only).
        importance: ``"learned"``, or ``"uniform"`` for the same importance everywhere: the
            model without its map, to measure what the map is worth.
    """

    arch: str = "nano"
    n: int = 128
    levels: int = 16
    width: int = 256
    hidden: int = 768
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    feedback: int = 0
    codes: str = "signs"
    lapped: bool = False
    importance: str = "learned"

    def __post_init__(self) -> None:
        if self.arch not in ("base", "nano"):
            raise CheckpointError(f"unknown architecture {self.arch!r}; use 'base' or 'nano'")
        if self.importance not in ("learned", "uniform"):
            raise CheckpointError(
                f"unknown importance {self.importance!r}; use 'learned' or 'uniform'"
            )
        sizes = (self.n, self.levels, self.width, self.hidden)
        counts = (self.encoder_blocks, self.decoder_blocks, self.feedback)
        if not all(isinstance(v, int) for v in sizes + counts) or min(*sizes, *counts) < 0:
            raise CheckpointError("the model's sizes are no whole numbers; use a preset's")
        if self.codes not in ("signs", "values"):
            raise CheckpointError(f"unknown codes {self.codes!r}; use 'signs' or 'values'")
        if self.codes == "values":
            self._check_values()
        elif not 1 <= self.levels <= 255 or self.n < 8 or self.n % 8 or self.n % self.levels:
            raise CheckpointError(
                f"n={self.n}, levels={self.levels}: n must be a multiple of 8 and of levels, "
                "and levels 1..255; choose for example n=128 and levels=16"
            )
        if self.feedback and self.n % self.feedback:
            raise CheckpointError(f"feedback={self.feedback} does not divide n={self.n}; use 8")

    def _check_values(self) -> None:
        if self.arch != "nano" or self.feedback:
            raise CheckpointError(
                f"codes='values' with arch={self.arch!r} and feedback={self.feedback}: values are "
                "for nano and are not decided one after the other; use arch='nano', feedback=0"
            )
        if not 1 <= self.levels <= 255 or not 8 <= self.n <= MOST_VALUES or self.n % 8:
            raise CheckpointError(
                f"n={self.n}, levels={self.levels}: of values n must be a multiple of 8 up to "
                f"{MOST_VALUES}, and levels 1..255; choose for example n=128 and levels=32"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        try:
            return cls(**values)
        except TypeError as exc:
            raise CheckpointError(
                f"model configuration not understood ({exc}); use a checkpoint of this release"
            ) from exc


PRESETS: dict[str, ModelConfig] = {
    "base": ModelConfig(arch="base", n=128, levels=32),
    "nano": ModelConfig(
        arch="nano",
        n=128,
        levels=32,
        codes="values",
        lapped=True,
        encoder_blocks=3,
        decoder_blocks=5,
        importance="uniform",
    ),
    "nano-signs": ModelConfig(arch="nano", n=128, levels=16, feedback=8),
    "nano-signs-deep": ModelConfig(
        arch="nano", n=128, levels=16, feedback=8, encoder_blocks=5, decoder_blocks=8
    ),
    "nano-signs-uniform": ModelConfig(
        arch="nano", n=128, levels=16, feedback=8, importance="uniform"
    ),
}
"""Shapes by name."""

DEFAULT_PRESETS = {"main": "nano-signs", "importance": "nano"}
"""By stage; values have no stage `main`, for without levels no step is chosen for them."""
