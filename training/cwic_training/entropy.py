"""Stage `entropy`: train the entropy model of a frozen network and freeze it to integers.

The network's weights are rounded to half precision, as a release stores them, and run over
photographs once. Then a context network (:mod:`cwic_training.context_net`) learns to predict
the kept bits of random crops at random rates, at last with the integers that it is frozen
to; and a table of level frequencies is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cwic.context import LOGITS
from cwic.entropy_model import ContextModel
from cwic.errors import CheckpointError, TrainingError
from cwic.level_model import LEVEL_SPREADS, level_context, level_contexts
from cwic.rate import levels_from_importance
from cwic.rounding import Rounding
from cwic.scan import KINDS, PASSES
from cwic_training.checkpoint import Checkpoint
from cwic_training.context_net import ContextNet
from cwic_training.data import open_centre
from cwic_training.model import STRIDE, CodecNetwork, ModelConfig
from cwic_training.quality import quality_scales
from cwic_training.recipe import Recipe

__all__ = ["EntropyReport", "fit_entropy_model", "plane_tables"]

_LOWEST_SCALE = 0.05
"""Below that of quality 1: small budgets need smaller ones."""
_GOLDEN = 0.618034
_CROP = 32
_LEARNING_RATE = 4e-3
_DECAY = 0.7
"""Last part of the steps over which the learning rate falls to zero."""
_QUANTISED = 0.3
"""Last part of the steps that train the integers."""
_PROGRESSIVE = 4
"""Each such step is taken in the order of a progressive stream."""
_LEVEL_SHRINKAGE = 8.0
_RAREST = 32


@dataclass(frozen=True)
class _Picture:
    """What the frozen network makes of one photograph.

    Attributes:
        codes: packed, uint8 [n/8, h, w].
        importance: uint8 [h, w].
    """

    codes: NDArray[np.uint8]
    importance: NDArray[np.uint8]


@dataclass(frozen=True)
class EntropyReport:
    """Cost per symbol on pictures that the model was not trained on.

    Attributes:
        bits_per_code: bits per kept code, integers; 1 without a model.
        bits_per_code_float: of the same network before its weights are rounded.
        bits_per_level: bits per position for the levels.
        codes_bpp, levels_bpp: both in bits per pixel.
        progressive_ratio: what both take in a progressive stream, 1: as much as in a plain one.
    """

    bits_per_code: float
    bits_per_code_float: float
    bits_per_level: float
    codes_bpp: float
    levels_bpp: float
    progressive_ratio: float


def fit_entropy_model(
    checkpoint: Checkpoint,
    train: Sequence[Path],
    valid: Sequence[Path],
    *,
    steps: int = 3000,
    batch: int = 8,
    hidden: int = 64,
    seed: int = 0,
    largest_px: int = 512,
    progress: Callable[[int], None] | None = None,
) -> tuple[Checkpoint, EntropyReport]:
    """Train the entropy model and measure it.

    Args:
        checkpoint: a network trained with an importance map.
        train: pictures to train on; their codes are held in memory, 33 kB for 512 x 512.
        valid: pictures to measure on.
        steps: optimiser steps of the context network.
        batch: crops of 32 x 32 positions per step.
        hidden: width of the context network.
        seed: of rates, crops and initial weights.
        largest_px: longer sides are cropped to this, centred.
        progress: called with the number of steps done since it was last called.

    Returns:
        The release checkpoint (weights rounded to half, integers inside) and the costs.

    Raises:
        CheckpointError: the network's importance map was never trained.
        TrainingError: a picture is unreadable; the message names it.
    """
    if checkpoint.training.get("stage") == "main":
        raise CheckpointError(
            "the checkpoint is of stage main, without an importance map; "
            "run cwic train importance with --init first"
        )
    if min(steps, batch, hidden) < 1:
        raise TrainingError("steps, batch and width must be at least 1; use the defaults")
    release = checkpoint.rounded_to_half()
    network, config = release.network(), release.config
    scales = _scales(checkpoint)
    pictures = list(_pictures(network, train, largest_px))
    tables = plane_tables(network)
    rounding = Rounding.of(tables, config.n, config.levels)
    context = _train_context(
        pictures, config, scales, steps, batch, hidden, seed, progress, rounding
    )
    tables |= {
        **context.integers(),
        "codes.p1": _sigmoid_table(),
        "levels.frequencies": _fit_levels(pictures, config.levels, scales, seed),
    }
    model = ContextModel(tables, config.n, config.levels)
    held_out = list(_pictures(network, valid, largest_px))
    report = _measure(model, context, held_out, scales, seed + 1)
    release.entropy = {name: torch.from_numpy(table) for name, table in tables.items()}
    release.training = {**release.training, "entropy": {**asdict(report), "steps": steps}}
    qualities = quality_scales(network, valid, scales[1])
    if qualities is not None:
        release.training["quality_scales"] = qualities
    return release, report


def _scales(checkpoint: Checkpoint) -> tuple[float, float]:
    """Rate factors that pictures will be coded at: the range, or the one of a fixed rate."""
    recipe = checkpoint.training.get("recipe", {})
    highest = float(recipe.get("scale_max", Recipe.scale_max))
    return (highest if recipe.get("scale_min") == highest else _LOWEST_SCALE), highest


def _pictures(network: CodecNetwork, paths: Sequence[Path], largest_px: int) -> Iterator[_Picture]:
    for path in paths:
        picture = torch.from_numpy(open_centre(path, largest_px))
        with torch.inference_mode():
            e, p = network.encode(picture.permute(2, 0, 1)[None].float() / 255)
        codes = np.packbits((e[0] > 0).numpy(), axis=0)
        yield _Picture(codes, (p[0, 0] * 255).round().to(torch.uint8).numpy())


def _spread_scales(scales: tuple[float, float], count: int, seed: int) -> NDArray[np.float64]:
    """Rate factors between two, spread evenly over their logarithm."""
    start = np.random.default_rng([seed, 3]).random()
    low, high = np.log(scales)
    spread = np.exp(low + (high - low) * ((start + np.arange(count) * _GOLDEN) % 1))
    return np.asarray(spread, np.float64)


def _train_context(
    pictures: list[_Picture],
    config: ModelConfig,
    scales: tuple[float, float],
    steps: int,
    batch: int,
    hidden: int,
    seed: int,
    progress: Callable[[int], None] | None,
    rounding: Rounding | None = None,
) -> ContextNet:
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 4])
    net = ContextNet(config, hidden)
    optimiser = torch.optim.Adam(net.parameters(), _LEARNING_RATE)
    side = min(_CROP, max(min(p.importance.shape) for p in pictures))
    large = [p for p in pictures if min(p.importance.shape) >= side]
    for step in range(steps):
        net.quantised = step >= steps * (1 - _QUANTISED)
        for group in optimiser.param_groups:
            group["lr"] = _LEARNING_RATE * min(1.0, (steps - step) / (steps * _DECAY))
        bits, mask, levels = _crops(large, config, scales, side, batch, rng, rounding)
        cost = net(bits, mask, levels, progressive=step % _PROGRESSIVE == 0)
        loss = cost.sum() / mask.sum().clamp(min=1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if progress is not None:
            progress(1)
    return net


def _crops(
    pictures: list[_Picture],
    config: ModelConfig,
    scales: tuple[float, float],
    side: int,
    batch: int,
    rng: np.random.Generator,
    rounding: Rounding | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random crops at random rates: bits and mask [N, n, side, side], levels [N, side, side]."""
    codes, levels = [], []
    for _ in range(batch):
        picture = pictures[int(rng.integers(len(pictures)))]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.importance.shape)
        area = slice(top, top + side), slice(left, left + side)
        scale = float(np.exp(rng.uniform(*np.log(scales))))
        chosen = levels_from_importance(picture.importance[area], scale, config.levels)
        own = picture.codes[:, area[0], area[1]]
        codes.append(own if rounding is None else rounding.codes(own, chosen))
        levels.append(chosen)
    return _tensors(np.stack(codes), np.stack(levels), config)


def _tensors(
    codes: NDArray[np.uint8], levels: NDArray[np.uint8], config: ModelConfig
) -> tuple[Tensor, Tensor, Tensor]:
    bits = torch.from_numpy(np.unpackbits(codes, axis=1)).float()
    kept = torch.from_numpy(levels.astype(np.int64))
    group = torch.arange(config.n).view(1, -1, 1, 1) // (config.n // config.levels)
    return bits, (group < kept[:, None]).float(), kept


def plane_tables(network: CodecNetwork) -> dict[str, NDArray[Any]]:
    """What :mod:`cwic.rounding` needs, of a network whose codes are bit planes."""
    if network.planes is None:
        return {}
    return {"planes.values": np.array(network.planes.schedule.value, np.uint16)}


def _sigmoid_table() -> NDArray[np.uint16]:
    logits = (np.arange(LOGITS) - LOGITS // 2) / 32
    whole = np.rint(65536 / (1 + np.exp(-logits)))
    return np.clip(whole, _RAREST, 65536 - _RAREST).astype(np.uint16)


def _fit_levels(
    pictures: list[_Picture], levels: int, scales: tuple[float, float], seed: int
) -> NDArray[np.uint16]:
    """Rows of frequencies: counts, shrunk towards all contexts of the same mean."""
    counts = np.zeros((level_contexts(levels), levels + 1))
    spread = _spread_scales(scales, len(pictures), seed)
    for picture, scale in zip(pictures, spread, strict=True):
        chosen = levels_from_importance(picture.importance, float(scale), levels)
        flat = chosen.reshape(-1)
        for scan in PASSES:
            positions = scan.positions(*chosen.shape)
            nearest = scan.neighbours(positions, *chosen.shape)[:, :4]
            context = level_context(flat, scan, nearest, levels)
            np.add.at(counts, (context, flat[positions]), 1)
    by_mean = counts.reshape(KINDS, 2 * levels + 1, LEVEL_SPREADS, levels + 1)
    # Where nothing of a mean was seen, levels near to it are likelier.
    mean, level = np.ogrid[0 : 2 * levels + 1, 0 : levels + 1]
    shared = by_mean[:-1].sum(axis=(0, 2)) + 2.0 ** -abs(level - mean / 2)
    prior = shared / shared.sum(axis=1, keepdims=True)
    smoothed = by_mean + _LEVEL_SHRINKAGE * prior[None, :, None, :]
    return _frequencies(smoothed.reshape(-1, levels + 1))


def _frequencies(weights: NDArray[Any]) -> NDArray[np.uint16]:
    """Scale rows of positive weights to whole numbers >= 1 that sum to 65536."""
    symbols = weights.shape[1]
    share = weights / weights.sum(axis=1, keepdims=True) * (65536 - symbols)
    whole = np.floor(share).astype(np.int64) + 1
    whole[np.arange(len(whole)), share.argmax(axis=1)] += 65536 - whole.sum(axis=1)
    frequencies: NDArray[np.uint16] = whole.astype(np.uint16)
    return frequencies


def _measure(
    model: ContextModel,
    net: ContextNet,
    pictures: list[_Picture],
    scales: tuple[float, float],
    seed: int,
) -> EntropyReport:
    config = ModelConfig(n=net.n, levels=net.levels)
    net.quantised = False
    integer_bits = float_bits = level_bits = progressive_bits = 0.0
    codes = positions = 0
    for picture, scale in zip(pictures, _spread_scales(scales, len(pictures), seed), strict=True):
        chosen = levels_from_importance(picture.importance, float(scale), net.levels)
        kept = model.rounded(picture.codes, chosen)
        coded = model.encode(kept, chosen)
        integer_bits += coded.codes.bits
        codes += len(coded.codes.freqs)
        with torch.inference_mode():
            float_bits += float(net(*_tensors(kept[None], chosen[None], config)).sum())
        level_bits += coded.levels.bits
        layered = model.encode(kept, chosen, progressive=True)
        progressive_bits += layered.codes.bits + layered.levels.bits
        positions += chosen.size
    pixels = positions * STRIDE**2
    return EntropyReport(
        bits_per_code=round(integer_bits / max(1, codes), 4),
        bits_per_code_float=round(float_bits / max(1, codes), 4),
        bits_per_level=round(level_bits / positions, 4),
        codes_bpp=round(integer_bits / pixels, 4),
        levels_bpp=round(level_bits / pixels, 4),
        progressive_ratio=round(progressive_bits / (integer_bits + level_bits), 4),
    )
