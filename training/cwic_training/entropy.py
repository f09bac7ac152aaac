"""Stage `entropy`: fit the integer tables of :mod:`cwic.context` to a trained network.

The network is frozen (its weights rounded to half precision, as a release stores them) and
run over photographs, each coded at one of many rates; the tables are smoothed counts. For
each channel the context bits are chosen greedily by conditional entropy, from the bits
that correlate most with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cwic.context import LEVEL_SPREADS, ContextModel, level_context, level_contexts, level_passes
from cwic.errors import CheckpointError
from cwic.rate import levels_from_importance
from cwic_training.checkpoint import Checkpoint
from cwic_training.data import open_centre
from cwic_training.model import STRIDE, CodecNetwork, ModelConfig

__all__ = ["EntropyReport", "fit_entropy_model"]

_SCALES = (0.06, 1.5)
_GOLDEN = 0.618034
_CONTEXT_BITS = 12
_CANDIDATES = 28
_SELECTION_SAMPLES = 60_000
_SHRINKAGE = 4.0
_LEVEL_SHRINKAGE = 8.0
_RAREST = 32
_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))

_Bits = NDArray[np.uint8]
_Place = tuple[NDArray[np.intp], ...]  # rows and columns
_Neighbour = tuple[int, int, int]


@dataclass(frozen=True)
class _Sample:
    """One picture at one rate.

    Attributes:
        bits: kept code bits, uint8 [n, h + 2, w + 2]; masked ones and the border are 0.
        levels: uint8 [h, w].
    """

    bits: _Bits
    levels: NDArray[np.uint8]

    def seen_from(self, place: _Place, channels: slice, dy: int, dx: int) -> _Bits:
        """Bits of ``channels`` at an offset of -1..1 from positions: [channels, positions]."""
        rows, columns = place
        seen: _Bits = self.bits[channels, rows + (dy + 1), columns + (dx + 1)]
        return seen


@dataclass(frozen=True)
class EntropyReport:
    """Cost per symbol on pictures that the tables were not fitted to.

    Attributes:
        bits_per_code: bits per kept code bit; 1 without a model.
        bits_per_level: bits per position for the levels.
        codes_bpp, levels_bpp: both in bits per pixel.
    """

    bits_per_code: float
    bits_per_level: float
    codes_bpp: float
    levels_bpp: float


def fit_entropy_model(
    checkpoint: Checkpoint,
    train: Sequence[Path],
    valid: Sequence[Path],
    *,
    seed: int = 0,
    largest_px: int = 512,
) -> tuple[Checkpoint, EntropyReport]:
    """Fit the tables and measure them.

    All codes of the training pictures are in memory, a byte each: 0.5 MB for a picture of
    512 x 512 and n=128.

    Args:
        checkpoint: a network trained with an importance map.
        train: pictures to count on.
        valid: pictures to measure on.
        seed: of the rates.
        largest_px: longer sides are cropped to this, centred.

    Returns:
        The release checkpoint (weights rounded to half, tables inside) and the costs.

    Raises:
        CheckpointError: the network's importance map was never trained.
        TrainingError: a picture is unreadable; the message names it.
    """
    if checkpoint.training.get("stage") == "main":
        raise CheckpointError(
            "the checkpoint is of stage main, without an importance map; "
            "run cwic train importance with --init first"
        )
    release = checkpoint.rounded_to_half()
    network, config = release.network(), release.config
    samples = list(_samples(network, train, seed, largest_px))
    neighbours, p1 = _fit_codes(samples, config)
    tables: dict[str, NDArray[Any]] = {
        "levels.frequencies": _fit_levels(samples, config.levels),
        "codes.neighbours": neighbours,
        "codes.p1": p1,
    }
    model = ContextModel(tables, config.n, config.levels)
    report = _measure(model, _samples(network, valid, seed + 1, largest_px))
    release.entropy = {name: torch.from_numpy(table) for name, table in tables.items()}
    release.training = {**release.training, "entropy": asdict(report)}
    return release, report


def _samples(
    network: CodecNetwork, paths: Sequence[Path], seed: int, largest_px: int
) -> Iterator[_Sample]:
    """Codes and levels of each picture; rate factors spread evenly over their logarithm."""
    start = np.random.default_rng([seed, 3]).random()
    low, high = np.log(_SCALES)
    config = network.config
    for index, path in enumerate(paths):
        picture = torch.from_numpy(open_centre(path, largest_px))
        with torch.inference_mode():
            e, p = network.encode(picture.permute(2, 0, 1)[None].float() / 255)
        scale = float(np.exp(low + (high - low) * ((start + index * _GOLDEN) % 1)))
        importance = (p[0, 0] * 255).round().to(torch.uint8).numpy()
        levels = levels_from_importance(importance, scale, config.levels)
        group = np.arange(config.n)[:, None, None] // (config.n // config.levels)
        bits = (e[0].numpy() > 0) & (group < levels)
        yield _Sample(np.pad(bits.astype(np.uint8), ((0, 0), (1, 1), (1, 1))), levels)


def _fit_levels(samples: list[_Sample], levels: int) -> NDArray[np.uint16]:
    """Rows of frequencies: counts, shrunk towards all contexts of the same mean."""
    counts = np.zeros((level_contexts(levels), levels + 1))
    for sample in samples:
        for scan in level_passes(*sample.levels.shape):
            context = level_context(sample.levels, scan, levels)
            np.add.at(counts, (context, sample.levels[scan.rows, scan.columns]), 1)
    by_mean = counts[:-1].reshape(-1, 2 * levels + 1, LEVEL_SPREADS, levels + 1)
    # Where nothing of a mean was seen, levels near to it are likelier.
    mean, level = np.ogrid[0 : 2 * levels + 1, 0 : levels + 1]
    shared = by_mean.sum(axis=(0, 2)) + 2.0 ** -abs(level - mean / 2)
    prior = shared / shared.sum(axis=1, keepdims=True)
    smoothed = by_mean + _LEVEL_SHRINKAGE * prior[None, :, None, :]
    return _frequencies(np.concatenate([smoothed.reshape(-1, levels + 1), counts[-1:] + 1]))


def _frequencies(weights: NDArray[Any]) -> NDArray[np.uint16]:
    """Scale rows of positive weights to whole numbers >= 1 that sum to 65536."""
    symbols = weights.shape[1]
    share = weights / weights.sum(axis=1, keepdims=True) * (65536 - symbols)
    whole = np.floor(share).astype(np.int64) + 1
    whole[np.arange(len(whole)), share.argmax(axis=1)] += 65536 - whole.sum(axis=1)
    frequencies: NDArray[np.uint16] = whole.astype(np.uint16)
    return frequencies


def _fit_codes(
    samples: list[_Sample], config: ModelConfig
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Context bits and probabilities of every channel, group after group."""
    neighbours = np.zeros((config.n, _CONTEXT_BITS, 3), np.int16)
    neighbours[..., 0] = -1
    p1 = np.empty((config.n, 1 << _CONTEXT_BITS), np.uint16)
    size = config.n // config.levels
    for g in range(config.levels):
        first = g * size
        places: list[_Place] = [np.nonzero(sample.levels > g) for sample in samples]
        every = max(1, sum(len(rows) for rows, _ in places) // _SELECTION_SAMPLES)
        few: list[_Place] = [(rows[::every], columns[::every]) for rows, columns in places]
        candidates = [(c, dy, dx) for dy, dx in _OFFSETS for c in range(first)]
        features = np.concatenate(
            [_gathered(samples, few, slice(first), dy, dx) for dy, dx in _OFFSETS]
        )
        for k in range(first, first + size):
            target = _gathered(samples, few, slice(k, k + 1), 0, 0)[0]
            chosen = [candidates[index] for index in _select(features, target)]
            neighbours[k, : len(chosen)] = np.reshape(chosen, (-1, 3))
            p1[k] = _table(samples, places, k, chosen)
    return neighbours, p1


def _gathered(
    samples: list[_Sample], places: list[_Place], channels: slice, dy: int, dx: int
) -> _Bits:
    """:meth:`_Sample.seen_from` over all samples, one after the other."""
    pairs = zip(samples, places, strict=True)
    return np.concatenate([s.seen_from(place, channels, dy, dx) for s, place in pairs], axis=1)


def _select(features: _Bits, target: _Bits) -> list[int]:
    """Rows of ``features`` to use as context bits, greedily by the code length of ``target``."""
    if not len(features) or not len(target):
        return []
    centred = (target - target.mean(dtype=np.float64)).astype(np.float32)
    covariance = features.astype(np.float32) @ centred / len(target)
    mean = features.mean(axis=1, dtype=np.float64)
    correlation = abs(covariance) / np.sqrt(mean * (1 - mean) + 1e-6)
    left = np.argsort(-correlation, kind="stable")[:_CANDIDATES].tolist()
    chosen: list[int] = []
    index = np.zeros(len(target), np.int64)
    while left and len(chosen) < _CONTEXT_BITS:
        contexts = 2 << len(chosen)
        costs = [_cost(2 * index + features[row], target, contexts) for row in left]
        chosen.append(left.pop(int(np.argmin(costs))))
        index = 2 * index + features[chosen[-1]]
    return chosen


def _cost(index: NDArray[np.int64], target: _Bits, contexts: int) -> float:
    """Code length of ``target`` in bits given its context; a context itself costs a little."""
    pair = np.bincount(2 * index + target, minlength=2 * contexts).reshape(-1, 2) + 0.4
    return float((-pair * np.log2(pair / pair.sum(axis=1, keepdims=True))).sum())


def _table(
    samples: list[_Sample], places: list[_Place], k: int, chosen: list[_Neighbour]
) -> NDArray[np.uint16]:
    """Probability of a 1 of channel k in each context, shrunk towards the shorter context."""
    target = _gathered(samples, places, slice(k, k + 1), 0, 0)[0]
    estimate = np.array([(target.sum() + 1) / (len(target) + 2)])
    index = np.zeros(len(target), np.int64)
    for t, (channel, dy, dx) in enumerate(chosen):
        bit = _gathered(samples, places, slice(channel, channel + 1), dy, dx)[0]
        index += bit.astype(np.int64) << t
        ones = np.bincount(index, weights=target, minlength=2 << t)
        total = np.bincount(index, minlength=2 << t)
        estimate = (ones + _SHRINKAGE * np.tile(estimate, 2)) / (total + _SHRINKAGE)
    whole = np.clip(np.rint(estimate * 65536), _RAREST, 65536 - _RAREST).astype(np.uint16)
    return np.resize(whole, 1 << _CONTEXT_BITS)


def _measure(model: ContextModel, samples: Iterator[_Sample]) -> EntropyReport:
    code_bits = level_bits = 0.0
    codes = positions = 0
    for sample in samples:
        coded = model.encode_codes(np.packbits(sample.bits[:, 1:-1, 1:-1], axis=0), sample.levels)
        code_bits += coded.bits
        codes += len(coded.freqs)
        level_bits += model.encode_levels(sample.levels).bits
        positions += sample.levels.size
    pixels = positions * STRIDE**2
    return EntropyReport(
        bits_per_code=round(code_bits / max(1, codes), 4),
        bits_per_level=round(level_bits / positions, 4),
        codes_bpp=round(code_bits / pixels, 4),
        levels_bpp=round(level_bits / pixels, 4),
    )
