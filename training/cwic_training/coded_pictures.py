"""What a frozen network makes of photographs, and what is sent of it at random rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cwic.rate import levels_from_importance
from cwic.targets import refined
from cwic_training.data import open_centre
from cwic_training.model import CodecNetwork
from cwic_training.symbol_fit import SymbolFit

__all__ = ["CodedPicture", "as_tensors", "coded_pictures", "random_crops", "spread_levels"]

_GOLDEN = 0.618034


@dataclass(frozen=True)
class CodedPicture:
    """What the frozen network makes of one photograph.

    Attributes:
        codes: the bytes of an encoder graph, uint8 [channels, h, w].
        importance: uint8 [h, w].
    """

    codes: NDArray[np.uint8]
    importance: NDArray[np.uint8]


def coded_pictures(
    network: CodecNetwork, fit: SymbolFit, paths: Sequence[Path], largest_px: int
) -> Iterator[CodedPicture]:
    """Photographs as the network codes them, one at a time.

    Args:
        network: whose weights stay.
        fit: what its codes are.
        paths: of the photographs.
        largest_px: longer sides are cropped to this, centred.

    Raises:
        TrainingError: a picture is unreadable; the message names it.
    """
    for path in paths:
        picture = torch.from_numpy(open_centre(path, largest_px))
        with torch.inference_mode():
            raw, p = network.analysed(picture.permute(2, 0, 1)[None].float() / 255)
            e = network.decided(raw)
        importance = (p[0, 0] * 255).round().to(torch.uint8).numpy()
        yield CodedPicture(fit.encoded(raw[0], e[0]), importance)


def _spread_scales(scales: tuple[float, float], count: int, seed: int) -> NDArray[np.float64]:
    """Rate factors between two, spread evenly over their logarithm."""
    start = np.random.default_rng([seed, 3]).random()
    low, high = np.log(scales)
    spread = np.exp(low + (high - low) * ((start + np.arange(count) * _GOLDEN) % 1))
    return np.asarray(spread, np.float64)


def spread_levels(
    pictures: list[CodedPicture], levels: int, scales: tuple[float, float], seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Levels of each picture as budgets choose them, at rates that are spread over all."""
    spread = _spread_scales(scales, len(pictures), seed)
    for picture, scale in zip(pictures, spread, strict=True):
        yield levels_from_importance(refined(picture.importance), float(scale), levels)


def random_crops(
    fit: SymbolFit,
    pictures: list[CodedPicture],
    levels: int,
    scales: tuple[float, float],
    side: int,
    batch: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Random crops at random rates.

    Args:
        fit: what the codes are.
        pictures: no side shorter than ``side``.
        levels: highest level.
        scales: least and greatest rate factor; random ones are spread over their logarithm.
        side: of a crop, in positions.
        batch: number of crops N.
        rng: chooses picture, place and rate.

    Returns:
        What is sent, uint8 [N, channels, side, side], and levels, int64 [N, side, side].
    """
    sent, found = [], []
    for _ in range(batch):
        picture = pictures[int(rng.integers(len(pictures)))]
        top, left = (int(rng.integers(length - side + 1)) for length in picture.importance.shape)
        area = slice(top, top + side), slice(left, left + side)
        scale = float(np.exp(rng.uniform(*np.log(scales))))
        chosen = levels_from_importance(picture.importance[area], scale, levels)
        sent.append(fit.sent(picture.codes[:, area[0], area[1]], chosen))
        found.append(chosen)
    return as_tensors(np.stack(sent), np.stack(found))


def as_tensors(sent: NDArray[np.uint8], levels: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """What is sent, uint8 as it is, and levels as int64: the arguments of ``SymbolFit.cost``."""
    return torch.from_numpy(sent), torch.from_numpy(levels.astype(np.int64))
