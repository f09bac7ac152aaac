"""What the entropy model costs on pictures that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cwic.entropy_model import ContextModel
from cwic_training.coded_pictures import CodedPicture, as_tensors, spread_levels
from cwic_training.config import STRIDE
from cwic_training.symbol_fit import SymbolFit

__all__ = ["EntropyReport", "measured"]


@dataclass(frozen=True)
class EntropyReport:
    """Cost per symbol on pictures that the model was not trained on.

    Attributes:
        bits_per_code: bits per kept code, integers; 1 without a model where codes are signs.
        bits_per_code_network: what the network that was frozen says, on the grids of its integers.
        bits_per_level: bits per position for the levels.
        codes_bpp, levels_bpp: both in bits per pixel.
        progressive_ratio: what both take in a progressive stream, 1: as much as in a plain one.
    """

    bits_per_code: float
    bits_per_code_network: float
    bits_per_level: float
    codes_bpp: float
    levels_bpp: float
    progressive_ratio: float


def measured(
    model: ContextModel,
    fit: SymbolFit,
    pictures: list[CodedPicture],
    scales: tuple[float, float],
    seed: int,
) -> EntropyReport:
    """Costs of pictures, each at one of the rates that are spread over all.

    Args:
        model: as it was frozen to integers.
        fit: the network that it was frozen from; it is switched to the grids.
        pictures: that it was not trained on.
        scales: least and greatest rate factor.
        seed: of where the spread begins.
    """
    levels = model.codes.levels
    fit.net.quantised = True
    integer_bits = network_bits = level_bits = progressive_bits = 0.0
    codes = positions = 0
    spread = spread_levels(pictures, levels, scales, seed)
    for picture, chosen in zip(pictures, spread, strict=True):
        sent = model.codes.sent(picture.codes, chosen)
        coded = model.encode(sent, chosen)
        integer_bits += coded.codes.bits
        codes += model.codes.count(model.codes.groups_at[chosen])
        with torch.inference_mode():
            network_bits += float(fit.cost(*as_tensors(sent[None], chosen[None])).sum())
        level_bits += coded.levels.bits
        layered = model.encode(sent, chosen, progressive=True)
        progressive_bits += layered.codes.bits + layered.levels.bits
        positions += chosen.size
    pixels = positions * STRIDE**2
    return EntropyReport(
        bits_per_code=round(integer_bits / max(1, codes), 4),
        bits_per_code_network=round(network_bits / max(1, codes), 4),
        bits_per_level=round(level_bits / positions, 4),
        codes_bpp=round(integer_bits / pixels, 4),
        levels_bpp=round(level_bits / pixels, 4),
        progressive_ratio=round(progressive_bits / (integer_bits + level_bits), 4),
    )
