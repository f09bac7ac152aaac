"""The Lightning module: one training step, validation, and what is logged."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from cwic.errors import TrainingError
from cwic_training import losses
from cwic_training.checkpoint import Checkpoint
from cwic_training.config import ModelConfig
from cwic_training.context_net import ContextNet
from cwic_training.model import CodecNetwork, Coded
from cwic_training.optim import PRICE_RATE, MuonAdam, split_parameters, warmup_stable_decay
from cwic_training.recipe import Recipe
from cwic_training.value_net import ValueNet

__all__ = ["VALIDATION_SCALES", "VALUES_VALIDATION_SCALES", "CodecTask"]

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

VALUES_VALIDATION_SCALES = (0.2, 0.5, 0.9, 1.5)
"""Those of models of values."""


class CodecTask(pl.LightningModule):
    """Training of one network by one recipe.

    Rates and everything random in a step are functions of (recipe, step), so that a resumed
    run continues exactly, and a prolonged one by the schedule of its new length.
    """

    def __init__(self, config: ModelConfig, recipe: Recipe) -> None:
        super().__init__()
        self.network = CodecNetwork(config)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.values = self._value_net(recipe)
        self.context = (
            ContextNet(config, _CONTEXT_HIDDEN) if recipe.rate_model == "context" else None
        )
        self.recipe = recipe
        warmup = 100 if recipe.rate_model == "count" else _PRICE_FIRST
        self.rate_factor = warmup_stable_decay(recipe.steps, recipe.cooldown, warmup)
        self.price_factor = warmup_stable_decay(recipe.steps, recipe.cooldown, 20)
        self.steps_done = 0

    def _value_net(self, recipe: Recipe) -> ValueNet | None:
        quantiser, priced = self.network.quantiser, recipe.rate_model == "values"
        if quantiser is None:
            if priced:
                raise TrainingError(
                    "the codes of this model are signs and no values; use --rate-model context, or "
                    "--model nano"
                )
            return None
        if recipe.stage == "main":
            raise TrainingError("a model of values has no stage main; use stage importance")
        if not priced:
            raise TrainingError(
                f"rate model {recipe.rate_model!r} prices signs, and this model has values; use "
                "--rate-model values"
            )
        return ValueNet(quantiser.sizes, quantiser.levels)

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
            rates.append(PRICE_RATE * self.price_factor(step))
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
        low, high = self.recipe.scale_min, self.recipe.scale_max
        if self.network.quantiser is not None:
            scales = rng.uniform(low, high, count)  # steps are geometric in s already
        else:
            scales = np.exp(rng.uniform(np.log(low), np.log(high), count))
        return torch.from_numpy(scales.astype(np.float32)).to(self.device)

    def _bpp(self, coded: Coded, scale: Tensor | None, *, training: bool) -> tuple[Tensor, Tensor]:
        """(codes, levels) in bits per pixel, per picture, as the recipe prices them."""
        p, config = coded.p, self.network.config
        if scale is None:
            full = torch.full((p.shape[0],), config.n / losses.PIXELS_PER_CODE, device=p.device)
            return full, torch.zeros_like(full)
        levels = losses.level_bpp(p, scale, config.levels)
        if self.values is not None:
            return self._valued_bpp(coded, noisy=training), levels
        if self.context is None:
            return losses.code_bpp(p, scale, config.n), levels
        if training:
            return self._sampled_bpp(losses.code_bpp(p, scale, config.n), coded), levels
        return self._coded_bpp(coded.codes, coded.kept, coded.levels), levels

    def _coded_bpp(self, bits: Tensor, mask: Tensor, levels: Tensor | None) -> Tensor:
        """What the context network makes of the codes, bits per pixel, per picture [N]."""
        if self.context is None or levels is None:
            raise TrainingError("the recipe has no context network; use rate_model='context'")
        with torch.autocast(bits.device.type, enabled=False):
            cost: Tensor = self.context(bits.float(), mask.float(), levels)
        return _per_pixel(cost)

    def _sampled_bpp(self, counted: Tensor, coded: Coded) -> Tensor:
        """:meth:`_coded_bpp` of some pictures; others: kept codes at the mean cost of those.

        How the bits are chosen changes the cost of those few only, so its gradient there counts
        for the others too: the encoder would hardly feel what its bits cost otherwise.
        """
        step = max(1, min(_CONTEXT_SHARE, len(counted) // 2))
        bits, levels = coded.codes[::step], coded.levels
        seen = bits.detach()
        seen = seen + (bits - seen) * (len(counted) / len(seen))
        known = None if levels is None else levels[::step]
        found = self._coded_bpp(seen, coded.kept[::step], known)
        cost = found.detach().sum() / counted[::step].detach().sum().clamp(min=1e-6)
        bpp = counted * cost
        bpp[::step] = found
        return bpp

    def _valued_bpp(self, coded: Coded, *, noisy: bool) -> Tensor:
        """What the smooth model makes of values, bits per pixel, per picture [N]."""
        if self.values is None:
            raise TrainingError("the recipe has no model of values; use rate_model='values'")
        noise = self._noise(coded.codes) if noisy else None
        with torch.autocast(coded.codes.device.type, enabled=False):
            cost: Tensor = self.values(coded.codes, coded.kept, coded.levels, noise)
        return _per_pixel(cost)

    def _noise(self, like: Tensor) -> Tensor:
        """-1/2 to 1/2, a function of the seed and the step."""
        rng = np.random.default_rng([self.recipe.seed, 5, self.trainer.global_step])
        return torch.from_numpy(rng.random(tuple(like.shape), np.float32) - 0.5).to(like.device)

    def _loss(self, distortion: Tensor, bpp: Tensor, scale: Tensor | None) -> Tensor:
        r, quantiser = self.recipe, self.network.quantiser
        if scale is None:
            return distortion.mean()
        if quantiser is not None:
            step = quantiser.reference_steps(scale)
            return losses.step_loss(distortion, bpp, step, r.rate_weight)
        if r.rate_bpp is not None:
            return losses.fixed_rate_loss(distortion, bpp, r.rate_bpp, r.rate_weight)
        return losses.variable_rate_loss(distortion, bpp, scale, r.rate_weight)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = batch.float().div_(255).contiguous(memory_format=torch.channels_last)
        scale = self._scales(x.shape[0])
        coded: Coded = self.network(x, scale)
        y = coded.picture
        distortion = losses.distortion(x, y, self.recipe.ms_ssim)
        codes, levels = self._bpp(coded, scale, training=True)
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
        scales = self._validation_scales()
        total = torch.zeros((), device=self.device)
        for value in scales:
            main = self.recipe.stage == "main"
            scale = None if main else torch.full((1,), value, device=p.device)
            coded = self.network.coded(raw, p, scale)
            y = coded.picture
            codes, levels = self._bpp(coded, scale, training=False)
            total += self._loss(self._distortion(x, y), codes + levels, scale)
            y = y.clamp(0, 1)
            mse = losses.mse255(x, y)
            self.log(f"val/psnr_{value:g}", 10 * torch.log10(255.0**2 / mse).mean())
            self.log(f"val/bpp_{value:g}", codes.mean())
            if batch_idx == 0 and value == scales[len(scales) // 2]:
                self._log_pictures(x[0], y[0], p[0])
        self.log("val/loss", total / len(scales), prog_bar=True)
        self._log_step(self.trainer.global_step)

    def _validation_scales(self) -> tuple[float, ...]:
        if self.network.quantiser is not None:
            return VALUES_VALIDATION_SCALES
        several = self.recipe.stage != "main" and self.recipe.rate_bpp is None
        return VALIDATION_SCALES if several else (1.0,)

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


def _per_pixel(cost: Tensor) -> Tensor:
    """Bits [N, n, h, w] to bits per pixel, per picture [N]."""
    return cost.sum((1, 2, 3)) / (losses.PIXELS_PER_CODE * cost[0, 0].numel())
