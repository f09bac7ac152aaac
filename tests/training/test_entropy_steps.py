"""Steps of the entropy stage: what they learn, from what, and when the integers are trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cwic.entropy_model import ContextModel
from cwic_training import coded_pictures, entropy
from cwic_training.config import ModelConfig
from cwic_training.entropy_report import EntropyReport, measured
from cwic_training.level_table import level_table
from cwic_training.symbol_fit import SignFit

from .entropy_fits import RATES, synthetic


def learn(
    pictures: list[coded_pictures.CodedPicture], tiny: ModelConfig, steps: int, hidden: int = 16
) -> tuple[ContextModel, EntropyReport]:
    torch.manual_seed(0)
    schedule = entropy._Schedule.from_noise(steps)
    fit = SignFit(tiny, hidden)
    entropy._train_context(fit, pictures, tiny.levels, RATES, schedule, 4, 0, None)
    tensors = fit.tables(lambda: np.zeros(0))
    chosen = coded_pictures.spread_levels(pictures, tiny.levels, RATES, 0)
    tensors["levels.frequencies"] = level_table(chosen, tiny.levels)
    model = ContextModel(tensors, tiny.n, tiny.levels)
    return model, measured(model, fit, pictures, RATES, 1)


def per_channel(model: ContextModel, bits: NDArray[np.uint8], tiny: ModelConfig) -> list[float]:
    """Bits per code of each channel, every code kept."""
    cost = np.zeros(tiny.n)
    levels = np.full(bits.shape[1:], tiny.levels, np.uint8)
    freqs = model.codes.encode(np.packbits(bits, axis=0), levels).freqs.reshape(tiny.levels, -1, 2)
    cost = (16 - np.log2(freqs.astype(float))).mean(1)
    return [float(value) for value in cost.reshape(-1)]


@pytest.fixture(scope="module")
def dependent(tiny: ModelConfig) -> list[NDArray[np.uint8]]:
    """Channel 5 repeats channel 0; 9 is blotches of 3 x 3; 11 is not 9; the rest is noise."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        bits = rng.integers(0, 2, (tiny.n, 24, 24), dtype=np.uint8)
        bits[5] = bits[0]
        bits[9] = np.kron(rng.integers(0, 2, (8, 8), dtype=np.uint8), np.ones((3, 3), np.uint8))
        bits[11] = 1 - bits[9]
        found.append(bits)
    return found


def test_what_predicts_a_code_is_found(tiny: ModelConfig, dependent: Any) -> None:
    """In an earlier group, in the own group around; noise costs its bit and little more.

    In a picture that was not trained on.
    """
    model, report = learn([synthetic(bits) for bits in dependent[1:]], tiny, 120)
    cost = per_channel(model, dependent[0], tiny)
    assert cost[5] < 0.1
    assert cost[11] < 0.1
    assert cost[9] < 0.6
    noise = [cost[k] for k in range(tiny.n) if k not in (5, 9, 11)]
    assert 0.97 < min(noise) <= max(noise) < 1.1
    assert report.bits_per_code == pytest.approx(report.bits_per_code_network, rel=0.005)


def test_more_steps_learn_more(tiny: ModelConfig, dependent: Any) -> None:
    pictures = [synthetic(bits) for bits in dependent]
    costs = [learn(pictures, tiny, steps)[1].bits_per_code for steps in (1, 20, 80)]
    assert costs[0] > costs[1] > costs[2]


def test_crops_come_from_the_pictures_that_hold_one(tiny: ModelConfig) -> None:
    """The largest picture sets the side, at most 32 positions; smaller ones are left out."""
    seen: list[int] = []
    small = synthetic(np.ones((tiny.n, 4, 40), np.uint8))
    large = synthetic(np.zeros((tiny.n, 9, 12), np.uint8))
    torch.manual_seed(0)
    fit = SignFit(tiny, 4)
    schedule = entropy._Schedule.from_noise(30)
    entropy._train_context(fit, [small, large], tiny.levels, RATES, schedule, 2, 0, seen.append)
    assert len(seen) == 30
    with torch.inference_mode():
        parts = coded_pictures.as_tensors(
            large.codes[None], np.full((1, 9, 12), tiny.levels, np.uint8)
        )
        assert fit.cost(*parts).mean() < 0.9, "ones were seen as well"


@pytest.mark.parametrize(
    ("schedule", "floats"), [("from_noise", 14), ("further", 0)], ids=["from noise", "further"]
)
def test_the_last_steps_train_the_integers(tiny: ModelConfig, schedule: str, floats: int) -> None:
    """And all of them where the network was read back from integers."""
    fit, seen = SignFit(tiny, 4), []
    picture = synthetic(np.ones((tiny.n, 8, 8), np.uint8))
    steps = getattr(entropy._Schedule, schedule)(20)
    entropy._train_context(
        fit, [picture], tiny.levels, RATES, steps, 1, 0, lambda _: seen.append(fit.net.quantised)
    )
    assert seen == [False] * floats + [True] * (20 - floats)
