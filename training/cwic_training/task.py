"""The Lightning module: one training step, validation, and what is logged."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from cwic.errors import TrainingError
from cwic_training import losses, ops
from cwic_training.checkpoint import Checkpoint
from cwic_training.context_net import ContextNet
from cwic_training.model import CodecNetwork, ModelConfig
from cwic_training.optim import CONTEXT_RATE, MuonAdam, split_parameters, warmup_stable_decay
from cwic_training.recipe import Recipe
from cwic_training.value_net import ValueNet

__all__ = ["VALIDATION_SCALES", "CodecTask"]

_CONTEXT_HIDDEN = 48
"""Less than the width of the network that is shipped: its gradients only have to point the way."""

_PRICE_FIRST = 300
"""Steps over which learning rates rise, while the network that prices codes learns fast: what it
says of their cost before that would drive the codec to send nothing."""

_CONTEXT_SHARE = 4
"""The context network sees each fourth picture, but two at least: seeing all takes half as long
again a step."""

VALIDATION_SCALES = (0.1, 0.25, 0.6, 1.5)
"""Rate factors at which a variable-rate model is validated."""


class CodecTask(pl.LightningModule):
    """Training of one network by one recipe.

    Rates and everything random in a step are functions of (recipe, step), so that a resumed
    run continues exactly, and a prolonged one by the schedule of its new length.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__()
        self.network = CodecNetwork(config)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.context = (
            ContextNet(config, _CONTEXT_HIDDEN) if recipe.rate_model == "context" else None
        )
        self.values = self._value_net() if recipe.rate_model == "values" else None
        self.recipe = recipe
        warmup = 100 if recipe.rate_model == "count" else _PRICE_FIRST
        self.rate_factor = warmup_stable_decay(recipe.steps, recipe.cooldown, warmup)
        self.price_factor = warmup_stable_decay(recipe.steps, recipe.cooldown, 20)
        self.steps_done = 0

    def _value_net(self) -> ValueNet:
        if self.network.planes is None:
            raise TrainingError(
                "the model has no values behind its codes; use rate_model='context' or a model of "
                "bit planes"
            )
        return ValueNet(self.network.planes.values, self.network.config.levels)

    def configure_optimizers(self) -> MuonAdam:
        matrices, others = split_parameters(self.network)
        price = self.context or self.values
        parameters = () if price is None else price.parameters()
        return MuonAdam(matrices, others, self.recipe.muon_lr, self.recipe.adam_lr, parameters)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        step, groups = self.trainer.global_step, self.trainer.optimizers[0].param_groups
        factor = self.rate_factor(step)
        rates = [self.recipe.muon_lr * factor, self.recipe.adam_lr * factor]
        if len(groups) > len(rates):
            rates.append(CONTEXT_RATE * self.price_factor(step))
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def on_train_batch_end(self, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        if self.trainer.global_step >= self.recipe.steps:
            # Lightning validates before it stops when asked to: the final weights count too.
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["cwic"] = {
            "steps": self.trainer.global_step,
            "config": self.network.config.to_dict(),
            "recipe": self.recipe.to_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.steps_done = int(checkpoint["cwic"]["steps"])

    def checkpoint(self) -> Checkpoint:
        """Weights now, with the facts a model card needs."""
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        facts = {
            "stage": self.recipe.stage,
            "steps": self.trainer.global_step,
            "recipe": self.recipe.to_dict(),
            "validation": {k: v for k, v in metrics.items() if k.startswith("val/")},
        }
        tensors = {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}
        return Checkpoint(self.network.config, tensors, facts)

    def _scales(self, count: int) -> Tensor | None:
        if self.recipe.stage == "main":
            return None
        if self.recipe.rate_bpp is not None:
            return torch.ones(count, device=self.device)
        rng = np.random.default_rng([self.recipe.seed, 2, self.trainer.global_step])
        low, high = np.log(self.recipe.scale_min), np.log(self.recipe.scale_max)
        scales = np.exp(rng.uniform(low, high, count)).astype(np.float32)
        return torch.from_numpy(scales).to(self.device)

    def _bpp(self, p: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
        """(codes, levels) in bits per pixel, per picture, both before entropy coding."""
        config = self.network.config
        if scale is None:
            full = torch.full((p.shape[0],), config.n / losses.PIXELS_PER_CODE, device=p.device)
            return full, torch.zeros_like(full)
        codes = losses.code_bpp(p, scale, config.n)
        return codes, losses.level_bpp(p, scale, config.levels)

    def _coded_bpp(self, bits: Tensor, mask: Tensor, p: Tensor, scale: Tensor) -> Tensor:
        """What the context network makes of the codes, bits per pixel, per picture [N]."""
        if self.context is None:
            raise TrainingError("the recipe has no context network; use rate_model='context'")
        levels = self.network.levels(p, scale)
        with torch.autocast(p.device.type, enabled=False):
            cost: Tensor = self.context(bits.float(), mask.float(), levels)
        return cost.sum((1, 2, 3)) / (losses.PIXELS_PER_CODE * p[0].numel())

    def _sampled_bpp(
        self, counted: Tensor, bits: Tensor, mask: Tensor, p: Tensor, scale: Tensor
    ) -> Tensor:
        """:meth:`_coded_bpp` of some pictures; others: kept codes at the mean cost of those.

        How the bits are chosen changes the cost of those few only, so its gradient there counts
        for the others too: the encoder would hardly feel what its bits cost otherwise.
        """
        # A code of bit planes may cost next to nothing or many bits, so no mean stands for it.
        planes = self.network.planes is not None
        step = 1 if planes else max(1, min(_CONTEXT_SHARE, len(counted) // 2))
        seen = bits[::step].detach()
        seen = seen + (bits[::step] - seen) * (len(counted) / len(seen))
        coded = self._coded_bpp(seen, mask[::step], p[::step], scale[::step])
        cost = coded.detach().sum() / counted[::step].detach().sum().clamp(min=1e-6)
        bpp = counted * cost
        bpp[::step] = coded
        return bpp

    def _valued_bpp(self, raw: Tensor, p: Tensor, scale: Tensor, *, noisy: bool) -> Tensor:
        """What the smooth model makes of the values behind the codes, per picture [N]."""
        if self.values is None or self.network.planes is None:
            raise TrainingError("the recipe has no model of values; use rate_model='values'")
        levels = self.network.levels(p, scale)
        w, kept = self.network.planes.intervals(raw, levels, self.network.config.levels)
        noise = self._noise(w) if noisy else None
        with torch.autocast(p.device.type, enabled=False):
            cost: Tensor = self.values(w, kept, levels, noise)
        return cost.sum((1, 2, 3)) / (losses.PIXELS_PER_CODE * p[0].numel())

    def _noise(self, like: Tensor) -> Tensor:
        """-1/2 to 1/2, a function of the seed and the step."""
        rng = np.random.default_rng([self.recipe.seed, 5, self.trainer.global_step])
        return torch.from_numpy(rng.random(tuple(like.shape), np.float32) - 0.5).to(like.device)

    def _loss(self, distortion: Tensor, bpp: Tensor, scale: Tensor | None) -> Tensor:
        r = self.recipe
        if scale is None:
            return distortion.mean()
        if r.rate_bpp is not None:
            return losses.fixed_rate_loss(distortion, bpp, r.rate_bpp, r.rate_weight)
        return losses.variable_rate_loss(distortion, bpp, scale, r.rate_weight)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = batch.float().div_(255).contiguous(memory_format=torch.channels_last)
        scale = self._scales(x.shape[0])
        priced = self.context is not None
        y, bits, mask, p, raw = self.network(x, scale, codes_are_priced=priced)
        distortion = losses.distortion(x, y, self.recipe.ms_ssim)
        codes, levels = self._bpp(p, scale)
        if self.context is not None and scale is not None:
            codes = self._sampled_bpp(codes, bits, mask, p, scale)
        if self.values is not None and scale is not None:
            codes = self._valued_bpp(raw, p, scale, noisy=True)
        loss = self._loss(distortion, codes + levels, scale)
        psnr = 10 * torch.log10(255.0**2 / losses.mse255(x, y.detach())).mean()
        self.log("psnr", psnr, prog_bar=True)
        self.log("bpp", codes.detach().mean(), prog_bar=True)
        self.log("loss", loss.detach())
        self._log_step(self.trainer.global_step + 1)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        x = batch.float() / 255
        raw, p = self.network.analysed(x)
        config = self.network.config
        several = self.recipe.stage != "main" and self.recipe.rate_bpp is None
        scales: tuple[float, ...] = VALIDATION_SCALES if several else (1.0,)
        total = torch.zeros((), device=self.device)
        for value in scales:
            scale = (
                None if self.recipe.stage == "main" else torch.full((1,), value, device=p.device)
            )
            levels = None if scale is None else self.network.levels(p, scale)
            bits = ops.binarize(self.network.decided(raw, levels))
            mask = (
                torch.ones_like(bits)
                if scale is None
                else ops.importance_mask(p, scale, config.levels, config.n)
            )
            y = self.network.decode((2 * bits - 1) * mask)
            codes, levels = self._bpp(p, scale)
            if self.context is not None and scale is not None:
                codes = self._coded_bpp(bits, mask, p, scale)
            if self.values is not None and scale is not None:
                codes = self._valued_bpp(raw, p, scale, noisy=False)
            total += self._loss(self._distortion(x, y), codes + levels, scale)
            y = y.clamp(0, 1)
            mse = losses.mse255(x, y)
            self.log(f"val/psnr_{value:g}", 10 * torch.log10(255.0**2 / mse).mean())
            self.log(f"val/bpp_{value:g}", codes.mean())
            if batch_idx == 0 and value == scales[len(scales) // 2]:
                self._log_pictures(x[0], y[0], p[0])
        self.log("val/loss", total / len(scales), prog_bar=True)
        self._log_step(self.trainer.global_step)

    def _distortion(self, x: Tensor, y: Tensor) -> Tensor:
        """Of a validation picture, which may be too small for MS-SSIM: by both measures."""
        share = self.recipe.ms_ssim if min(x.shape[2:]) >= losses.MS_SSIM_SMALLEST_PX else 0.0
        by_mse = losses.distortion(x, y, 0)
        if share == 0:
            return by_mse
        return (1 - share) * by_mse + share * losses.distortion(x, y, 1)

    def _log_step(self, done: int) -> None:
        """Where curves are drawn; Lightning's own count drifts when a run is resumed."""
        self.log("step", float(done))

    def _log_pictures(self, x: Tensor, y: Tensor, p: Tensor) -> None:
        writer = getattr(self.logger, "experiment", None)
        if writer is None or self.trainer.sanity_checking:
            return
        step = self.trainer.global_step
        writer.add_image("picture/input", x.float().cpu(), step)
        writer.add_image("picture/reconstruction", y.float().cpu(), step)
        writer.add_image("picture/importance", p.float().cpu(), step)
