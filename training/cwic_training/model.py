"""The network of a model: encoder, importance map and decoder.

Data flow, in the paper's notation; x is an RGB picture in [0, 1]::

    x ──▶ trunk ──▶ F(x) ─┬─▶ E(x) ──▶ binarize ──▶ B(e) ──▶ 2 B(e) - 1 ─┐
                          │                                              × ──▶ z ──▶ D(z) = x^
                          └─▶ P(x) ──▶ importance_mask(P, s, L, n) ──▶ m ┘

E is normalised per channel (batch normalisation without affine), so that each code bit
starts balanced; :meth:`CodecNetwork.folded_projection` folds it into the convolution. In
`nano-signs` the codes are decided in groups, and E of a group depends on the bits of the earlier
ones (:class:`~cwic_training.layers.DecisionFeedback`).

In `nano` codes are numbers instead, values in steps that P chooses
(:mod:`cwic_training.quantiser`), and a new network is a DCT::

    F(x) ─┬─▶ E(x) × gain = y ──▶ q = round(y / step) ──▶ y^ = q step ──▶ D(y^ / gain) = x^
          └─▶ P(x) ──▶ level ──▶ step
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cwic.errors import CheckpointError
from cwic_training import ops
from cwic_training.config import STRIDE, ModelConfig
from cwic_training.dct import dct_basis, deviations
from cwic_training.layers import (
    ChannelsLast,
    Conv2d,
    DecisionFeedback,
    ImportanceHead,
    MixBlock,
    ResidualBlock,
    UniformImportance,
)
from cwic_training.quantiser import Quantiser

__all__ = ["CodecNetwork", "Coded"]


def _nano_trunk(c: ModelConfig) -> nn.Sequential:
    blocks = [MixBlock(c.width, c.hidden) for _ in range(c.encoder_blocks)]
    first = Conv2d(3 * STRIDE**2, c.width, 3 if c.lapped else 1)
    return nn.Sequential(nn.PixelUnshuffle(STRIDE), ChannelsLast(), first, *blocks)


def _nano_synthesis(c: ModelConfig) -> nn.Sequential:
    blocks = [MixBlock(c.width, c.hidden) for _ in range(c.decoder_blocks)]
    last = Conv2d(c.width, 3 * STRIDE**2, 3 if c.lapped else 1)
    first = Conv2d(c.n, c.width)
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


@dataclass(frozen=True)
class Coded:
    """A batch of pictures as codes, and what the decoder makes of them.

    Attributes:
        picture: reconstruction, float32 [N, 3, 8h, 8w], not clipped: training needs the gradient
            outside [0, 1] too.
        codes: float32 [N, n, h, w]. Of signs the bits B, all of them; of values u, which are in
            steps, -127..127, and become codes when they are rounded.
        kept: which codes are sent, ones and zeros of that shape.
        p: importance in [0, 1], float32 [N, 1, h, w].
        levels: int64 [N, h, w], 0..L; None where every code is kept.
    """

    picture: Tensor
    codes: Tensor
    kept: Tensor
    p: Tensor
    levels: Tensor | None


class CodecNetwork(nn.Module):
    """Encoder, importance map and decoder of one model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        values = config.codes == "values"
        if config.arch == "nano":
            self.trunk, self.synthesis = _nano_trunk(config), _nano_synthesis(config)
            width, head = config.width, 64
        else:
            self.trunk, self.synthesis = _base_trunk(), _base_synthesis(config)
            width, head = 256, 128
        self.projection = Conv2d(width, config.n)
        self.normalise = None if values else nn.BatchNorm2d(config.n, affine=False, momentum=0.05)
        self.feedback = DecisionFeedback(config.n, config.feedback) if config.feedback else None
        self.quantiser = Quantiser(config.n, config.levels) if values else None
        self.importance: nn.Module = UniformImportance()
        if config.importance == "learned":
            self.importance = ImportanceHead(width, head, centred=values)
        if self.quantiser is not None:
            self._start_as_dct(self.quantiser)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Picture in [0, 1], float [N, 3, H, W], sides multiples of 8, to (E, P).

        Returns:
            E: float32 [N, n, H/8, W/8]. Of signs the normalised values, a code bit is E > 0; of
                values y, which the quantiser takes.
            P: importance in [0, 1], float32 [N, 1, H/8, W/8].
        """
        raw, p = self.analysed(x)
        return self.decided(raw), p

    def analysed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the features were projected to, [N, n, h, w], of values y in float32; P as above."""
        features = self.trunk((x - 0.5) * 2)
        p: Tensor = self.importance(features)
        if self.quantiser is None:
            return self.projection(features), p
        # In bfloat16 the finest steps would drown in the rounding of large values.
        with torch.autocast(x.device.type, enabled=False):
            return self.projection(features.float()) * self.quantiser.gain.view(1, -1, 1, 1), p

    def decided(self, raw: Tensor) -> Tensor:
        """E of what :meth:`analysed` returns; of values that is E already."""
        if self.quantiser is not None:
            return raw
        if self.feedback is not None:
            return self.feedback(raw, self._normalise)  # type: ignore[no-any-return]
        return self._normalise(raw.float(), slice(None))

    @torch.no_grad()
    def _start_as_dct(self, quantiser: Quantiser) -> None:
        """Linear layers that together are a DCT; blocks and the importance map start as nothing.

        Features have about the same variance, so that a step of training changes small ones
        as little, in proportion, as large ones.
        """
        rows = list(quantiser.rows)
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
        eye = torch.eye(self.config.n, self.config.width)
        self.projection.weight.copy_(eye)
        entry.weight.copy_(eye.T)
        if isinstance(self.importance, ImportanceHead):
            self.importance.conv3.weight.zero_()

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
        """Codes, float [N, n, h, w], to a picture, float32 [N, 3, 8h, 8w], not clipped.

        Args:
            z: of signs the masked codes in {-1, 0, 1}; of values y^.
        """
        if self.quantiser is not None:
            z = z / self.quantiser.gain.view(1, -1, 1, 1)
        y: Tensor = self.synthesis(z).float()
        return y / 2 + 0.5

    def forward(self, x: Tensor, scale: Tensor | None) -> Coded:
        """One pass as training sees it.

        Args:
            x: picture in [0, 1], float [N, 3, H, W].
            scale: rate factor per picture, float [N]; None keeps every code (stage `main`).

        Raises:
            CheckpointError: ``scale`` is None and codes are values.
        """
        return self.coded(*self.analysed(x), scale)

    def coded(self, raw: Tensor, p: Tensor, scale: Tensor | None) -> Coded:
        """:meth:`forward` of what :meth:`analysed` returns, which several rates may share."""
        if self.quantiser is not None:
            if scale is None:
                raise CheckpointError(
                    "without importance no step is chosen for values; use stage importance"
                )
            restored, u, kept, levels = self.quantiser.straight_through(raw, p, scale)
            return Coded(self.decode(restored), u, kept, p, levels)
        bits = ops.binarize(self.decided(raw))
        if scale is None:
            kept = torch.ones_like(bits)
        else:
            kept = ops.importance_mask(p, scale, self.config.levels, self.config.n)
        picture = self.decode((2 * bits - 1) * kept)
        return Coded(picture, bits, kept, p, None if scale is None else self.levels(p, scale))

    def levels(self, p: Tensor, scale: Tensor) -> Tensor:
        """Levels of importance [N, 1, h, w] at rate factors [N], int64 [N, h, w]."""
        return ops.importance_levels(p.detach(), scale, self.config.levels)[:, 0].long()

    def folded_projection(self) -> tuple[Tensor, Tensor]:
        """Weight [n, width, 1, 1] and bias [n] of E, float32, with what follows folded in."""
        gain, mean = self._gain_and_mean()
        weight = self.projection.weight.double() * gain[:, None]
        bias = (self.projection.bias.double() - mean) * gain
        return weight.float()[:, :, None, None], bias.float()

    def folded_feedback(self) -> Tensor | None:
        """Kernel [n, n, k, k] from earlier signs to E; None without feedback."""
        if self.feedback is None:
            return None
        return (
            self.feedback.kernel().double() * self._gain_and_mean()[0][:, None, None, None]
        ).float()

    def folded_synthesis(self) -> nn.Sequential:
        """The decoder as a network of what :meth:`decode` takes; its pictures are in [-1, 1].

        Of signs it is :attr:`synthesis` itself, of values a copy.
        """
        if self.quantiser is None:
            return self.synthesis
        folded = copy.deepcopy(self.synthesis)
        entry = folded[1]
        if not isinstance(entry, Conv2d):
            raise CheckpointError("the decoder is not that of nano; use a preset's model")
        with torch.no_grad():
            entry.weight.copy_(entry.weight.double() / self.quantiser.gain.double())
        return folded

    def _gain_and_mean(self) -> tuple[Tensor, Tensor]:
        """What sums are multiplied by, and what is subtracted before: float64 [n] both."""
        if self.quantiser is not None:
            gain = self.quantiser.gain.double()
            return gain, torch.zeros_like(gain)
        norm = self.normalise
        mean, var = (None, None) if norm is None else (norm.running_mean, norm.running_var)
        if norm is None or mean is None or var is None:
            raise CheckpointError("the network has no running statistics; train it first")
        return torch.rsqrt(var.double() + norm.eps), mean.double()
