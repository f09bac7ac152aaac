"""The networks `base` (the paper's) and `nano` (for small devices).

Data flow, in the paper's notation; x is an RGB picture in [0, 1]::

    x ──▶ trunk ──▶ F(x) ─┬─▶ E(x) ──▶ binarize ──▶ B(e) ──▶ 2 B(e) - 1 ─┐
                          │                                              × ──▶ z ──▶ D(z) = x^
                          └─▶ P(x) ──▶ importance_mask(P, s, L, n) ──▶ m ┘

E is normalised per channel (batch normalisation without affine), so that each code bit
starts balanced; :meth:`CodecNetwork.folded_projection` folds it into the convolution. In
`nano` the codes are decided in groups, and E of a group depends on the bits of the earlier
ones (:class:`~cwic_training.layers.DecisionFeedback`). In `nano-planes` the codes are bit planes
of fewer values instead (:mod:`cwic_training.planes`), and it starts as a DCT.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cwic.errors import CheckpointError
from cwic_training import ops
from cwic_training.digits import dct_basis, deviations
from cwic_training.layers import (
    ChannelsLast,
    Conv2d,
    DecisionFeedback,
    ImportanceHead,
    MixBlock,
    ResidualBlock,
    UniformImportance,
)
from cwic_training.planes import BitPlanes

__all__ = ["PRESETS", "STRIDE", "CodecNetwork", "ModelConfig"]

STRIDE = 8
"""Pixels per code position, along each side."""


@dataclass(frozen=True)
class ModelConfig:
    """What determines a network's shape.

    Attributes:
        arch: ``"base"`` or ``"nano"``.
        n: code channels per position, a multiple of 8 and of ``levels``.
        levels: L, the highest importance level; 1..255.
        width: feature channels (`nano` only).
        hidden: channels inside a block (`nano` only).
        encoder_blocks, decoder_blocks: blocks on each side (`nano` only).
        feedback: groups that the codes are decided in, one after the other, a divisor of
            ``n``; 0 decides all at once, as the paper does.
        codes: ``"signs"``, balanced bits, as the paper has them, or ``"planes"``, bit planes of
            values (`nano` only; with feedback in groups of a multiple of 2 codes).
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
        if not 1 <= self.levels <= 255 or self.n < 8 or self.n % 8 or self.n % self.levels:
            raise CheckpointError(
                f"n={self.n}, levels={self.levels}: n must be a multiple of 8 and of levels, "
                "and levels 1..255; choose for example n=128 and levels=16"
            )
        if self.feedback and self.n % self.feedback:
            raise CheckpointError(f"feedback={self.feedback} does not divide n={self.n}; use 8")
        if self.codes not in ("signs", "planes"):
            raise CheckpointError(f"unknown codes {self.codes!r}; use 'signs' or 'planes'")
        if self.codes == "planes" and (
            self.arch != "nano" or self.feedback == 0 or self.n // self.feedback % 2
        ):
            raise CheckpointError(
                f"codes='planes' with arch={self.arch!r} and feedback={self.feedback}: bit planes "
                "are for nano and are decided in groups of pairs; choose for example feedback=24"
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
    "nano": ModelConfig(arch="nano", n=128, levels=16, feedback=8),
    "nano-deep": ModelConfig(
        arch="nano", n=128, levels=16, feedback=8, encoder_blocks=5, decoder_blocks=8
    ),
    "nano-uniform": ModelConfig(arch="nano", n=128, levels=16, feedback=8, importance="uniform"),
    "nano-planes": ModelConfig(
        arch="nano",
        n=384,
        levels=24,
        feedback=24,
        codes="planes",
        lapped=True,
        encoder_blocks=3,
        decoder_blocks=5,
        importance="uniform",
    ),
}
"""Shapes by name; those of the packaged models are `nano` and, for MS-SSIM, `nano-deep`."""


def _nano_trunk(c: ModelConfig) -> nn.Sequential:
    blocks = [MixBlock(c.width, c.hidden) for _ in range(c.encoder_blocks)]
    first = Conv2d(3 * STRIDE**2, c.width, 3 if c.lapped else 1)
    return nn.Sequential(nn.PixelUnshuffle(STRIDE), ChannelsLast(), first, *blocks)


def _nano_synthesis(c: ModelConfig, inputs: int) -> nn.Sequential:
    blocks = [MixBlock(c.width, c.hidden) for _ in range(c.decoder_blocks)]
    last = Conv2d(c.width, 3 * STRIDE**2, 3 if c.lapped else 1)
    first = Conv2d(inputs, c.width)
    return nn.Sequential(ChannelsLast(), first, *blocks, last, nn.PixelShuffle(STRIDE))


def _base_trunk() -> nn.Sequential:
    return nn.Sequential(
        ChannelsLast(),
        Conv2d(3, 128, 8, stride=4),
        nn.ReLU(),
        ResidualBlock(128),
        Conv2d(128, 256, 4, stride=2),
        nn.ReLU(),
        ResidualBlock(256),
        ResidualBlock(256),
    )


def _base_synthesis(c: ModelConfig) -> nn.Sequential:
    return nn.Sequential(
        ChannelsLast(),
        Conv2d(c.n, 256),
        ResidualBlock(256),
        ResidualBlock(256),
        Conv2d(256, 128 * 4, 3),
        nn.PixelShuffle(2),
        ChannelsLast(),
        nn.ReLU(),
        ResidualBlock(128),
        Conv2d(128, 32 * 16, 3),
        nn.PixelShuffle(4),
        ChannelsLast(),
        nn.ReLU(),
        Conv2d(32, 3, 3),
    )


class CodecNetwork(nn.Module):
    """Encoder, importance map and decoder of one model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        planes = config.codes == "planes"
        self.planes = BitPlanes(config.n, config.feedback) if planes else None
        projected = config.n if self.planes is None else self.planes.values
        if config.arch == "nano":
            self.trunk, self.synthesis = _nano_trunk(config), _nano_synthesis(config, projected)
            width, head = config.width, 64
        else:
            self.trunk, self.synthesis = _base_trunk(), _base_synthesis(config)
            width, head = 256, 128
        self.projection = Conv2d(width, projected)
        self.normalise = (
            nn.BatchNorm2d(config.n, affine=False, momentum=0.05) if self.planes is None else None
        )
        signs = config.feedback and self.planes is None
        self.feedback = DecisionFeedback(config.n, config.feedback) if signs else None
        if self.planes is not None:
            self._start_as_dct(self.planes)
        learned = config.importance == "learned"
        self.importance = (
            ImportanceHead(width, head, centred=planes) if learned else UniformImportance()
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Picture in [0, 1], float [N, 3, H, W], sides multiples of 8, to (E, P).

        Returns:
            E: normalised code values, float32 [N, n, H/8, W/8]; a code bit is E > 0.
            P: importance in [0, 1], float32 [N, 1, H/8, W/8].
        """
        raw, p = self.analysed(x)
        return self.decided(raw), p

    def analysed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the features were projected to, [N, n or m, h, w], and P as above."""
        features = self.trunk((x - 0.5) * 2)
        p: Tensor = self.importance(features)
        if self.planes is None:
            return self.projection(features), p
        # In bfloat16 the last planes would drown in the rounding of large values.
        with torch.autocast(x.device.type, enabled=False):
            return self.projection(features.float()), p

    def decided(self, raw: Tensor, levels: Tensor | None = None) -> Tensor:
        """E of what the features were projected to.

        Args:
            raw: of :meth:`analysed`.
            levels: int64 [N, h, w], which codes will be kept: bit planes are rounded to those.
                None: not known yet.
        """
        if self.planes is not None:
            lifted = raw
            if levels is not None:
                lifted = self.planes.lifted(raw, levels, self.config.levels)
            e: Tensor = self.planes(lifted)
            return e
        if self.feedback is not None:
            return self.feedback(raw, self._normalise)  # type: ignore[no-any-return]
        return self._normalise(raw.float(), slice(None))

    @torch.no_grad()
    def _start_as_dct(self, planes: BitPlanes) -> None:
        """Linear layers that together are a DCT; blocks start as nothing.

        Features have about the same variance, so that a step of training changes small ones
        as little, in proportion, as large ones.
        """
        rows = list(planes.schedule.rows)
        basis, spread = dct_basis(), deviations()[:, None]
        order = (rows + [row for row in range(len(basis)) if row not in rows])[: self.config.width]
        there, back = (basis / spread)[order], (basis * spread)[order].T
        first, last = self.trunk[2], self.synthesis[-2]
        entry = self.synthesis[1]
        if not (
            isinstance(first, Conv2d) and isinstance(last, Conv2d) and isinstance(entry, Conv2d)
        ):
            raise CheckpointError("the networks are not those of nano; use a preset's model")
        spare = first.centre()[len(order) :].clone()
        for conv in (first, last):
            conv.weight.zero_()
        first.centre()[: len(order)] = there
        first.centre()[len(order) :] = spare
        last.centre()[:, : len(order)] = back
        eye = torch.eye(planes.values, self.config.width)
        self.projection.weight.copy_(eye)
        entry.weight.copy_(eye.T)

    def _normalise(self, sums: Tensor, channels: slice) -> Tensor:
        """:attr:`normalise` for some of its channels, which are known one group at a time."""
        norm = self.normalise
        mean, var = (None, None) if norm is None else (norm.running_mean, norm.running_var)
        if norm is None or mean is None or var is None or norm.momentum is None:
            raise CheckpointError("the normalisation keeps no statistics; use a preset's model")
        return F.batch_norm(
            sums,
            mean[channels],
            var[channels],
            training=self.training,
            momentum=norm.momentum,
            eps=norm.eps,
        )

    def decode(self, z: Tensor) -> Tensor:
        """Masked codes in {-1, 0, 1}, float [N, n, h, w], to a picture [N, 3, 8h, 8w].

        The result is not clipped: training needs the gradient outside [0, 1] too.
        """
        return self._pictures(z if self.planes is None else self.planes.restored(z))

    def _pictures(self, values: Tensor) -> Tensor:
        y: Tensor = self.synthesis(values).float()
        return y / 2 + 0.5

    def forward(
        self, x: Tensor, scale: Tensor | None, *, codes_are_priced: bool = True
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One pass as training sees it.

        Args:
            x: picture in [0, 1], float [N, 3, H, W].
            scale: rate factor per picture, float [N]; None keeps every code (stage `main`).
            codes_are_priced: whether a loss of B itself follows. Without one the codes of bit
                planes have no gradient, for pictures have theirs through the values.

        Returns:
            The reconstruction (unclipped), the code bits B [N, n, h, w], the mask m of that
            shape (ones if ``scale`` is None), P [N, 1, h, w] and what the features were
            projected to, [N, n, h, w], of bit planes the values [N, m, h, w].
        """
        raw, p = self.analysed(x)
        levels = None if scale is None else self.levels(p, scale)
        followed = self.planes is None or codes_are_priced
        with torch.set_grad_enabled(followed and torch.is_grad_enabled()):
            bits = ops.binarize(self.decided(raw, levels))
        if scale is None:
            mask = torch.ones_like(bits)
        elif self.planes is None:
            mask = ops.importance_mask(p, scale, self.config.levels, self.config.n)
        else:
            mask = self.planes.mask(p, scale, self.config.levels)
        if self.planes is None:
            values = (2 * bits - 1) * mask
        else:
            values = self.planes.straight_through(raw, bits, mask)
        return self._pictures(values), bits, mask, p, raw

    def levels(self, p: Tensor, scale: Tensor) -> Tensor:
        """Levels of importance [N, 1, h, w] at rate factors [N], int64 [N, h, w]."""
        return ops.importance_levels(p.detach(), scale, self.config.levels)[:, 0].long()

    def folded_projection(self) -> tuple[Tensor, Tensor]:
        """Weight [n, width, 1, 1] and bias [n] of E, with what follows folded in."""
        if self.planes is not None:
            return self.planes.folded_projection(self.projection.weight, self.projection.bias)
        gain, mean = self._gain_and_mean()
        weight = self.projection.weight.double() * gain[:, None]
        bias = (self.projection.bias.double() - mean) * gain
        return weight.float()[:, :, None, None], bias.float()

    def folded_feedback(self) -> Tensor | None:
        """Kernel [n, n, k, k] from earlier signs to E; None without feedback."""
        if self.planes is not None:
            return self.planes.folded_feedback()
        if self.feedback is None:
            return None
        return (
            self.feedback.kernel().double() * self._gain_and_mean()[0][:, None, None, None]
        ).float()

    def folded_synthesis(self) -> nn.Sequential:
        """The decoder as a network of masked codes."""
        if self.planes is None:
            return self.synthesis
        before, *others = self.synthesis
        return nn.Sequential(before, self.planes.restoring(), *others)

    def _gain_and_mean(self) -> tuple[Tensor, Tensor]:
        norm = self.normalise
        mean, var = (None, None) if norm is None else (norm.running_mean, norm.running_var)
        if norm is None or mean is None or var is None:
            raise CheckpointError("the network has no running statistics; train it first")
        return torch.rsqrt(var.double() + norm.eps), mean.double()
