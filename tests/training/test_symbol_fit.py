"""What both kinds of codes are trained with: tables, kept codes and losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cwic.context import LOGITS, CodeModel
from cwic.errors import TrainingError
from cwic.value_model import ValueModel
from cwic.value_network import MEANS, REACH, SCALES, SYMBOLS, scale_of
from cwic_training.config import ModelConfig
from cwic_training.fixed_point import fixed_point_bytes
from cwic_training.model import CodecNetwork
from cwic_training.symbol_fit import (
    SignFit,
    SymbolFit,
    ValueFit,
    feature_table,
    logistic_table,
    sigmoid_table,
)

from .conftest import VALUES


def network_of(n: int, levels: int) -> CodecNetwork:
    torch.manual_seed(0)
    config = VALUES.to_dict() | {"n": n, "levels": levels, "width": 192}
    return CodecNetwork(ModelConfig.from_dict(config))


def no_tables() -> np.ndarray:
    raise AssertionError("signs have typical bits of their own")


# ---- Tables ---------------------------------------------------------------------------------


def test_the_table_of_probabilities_is_the_sigmoid_in_steps() -> None:
    table = sigmoid_table()
    assert table.dtype == np.uint16
    assert table.shape == (LOGITS,)
    assert (np.diff(table.astype(int)) >= 0).all()
    assert table.min() == 32
    assert table.max() == 65536 - 32
    assert table[384] == 32768
    assert table[384 + 32] == round(65536 / (1 + np.exp(-1)))
    assert np.array_equal(table[1:384], 65536 - table[:384:-1].astype(int))


def test_features_are_logarithms() -> None:
    table = feature_table()
    assert (table.dtype, table.shape) == (np.uint8, (128,))
    assert [int(table[q]) for q in (0, 1, 3, 7, 127)] == [0, 8, 16, 24, 56]
    assert (np.diff(table.astype(int)) >= 0).all()
    assert (np.diff(table[:4].astype(int)) > 0).all()


def test_rows_are_distributions() -> None:
    starts = logistic_table()
    assert (starts.dtype, starts.shape) == (np.uint16, (SCALES * MEANS, SYMBOLS))
    freqs = np.diff(np.append(starts.astype(int), np.full((len(starts), 1), 65536), 1))
    assert (freqs >= 0).all()
    assert (freqs.sum(1) == 65536).all()
    assert not starts[:, 0].any()
    assert (freqs[:, -1] >= 1).all(), "what stands for all others can always be said"


@pytest.mark.parametrize("place", [0, 10, 25, 40, 63])
@pytest.mark.parametrize("part", [0, 1, 4, 7])
def test_rows_are_logistic(place: int, part: int) -> None:
    """Of mean part/8: symbol 31 is the whole number below it."""
    starts = logistic_table()[8 * place + part].astype(int)
    found = np.diff(np.append(starts, 65536)) / 65536
    values = np.arange(-REACH, REACH + 1)
    edges = (np.append(values - 0.5, values[-1] + 0.5) - part / 8) / scale_of(place)
    wanted = np.diff(1 / (1 + np.exp(-np.clip(edges, -700, 700))))
    off = np.sort(np.abs(found[:-1] - wanted))
    assert off[:-1].max() <= 0.5 / 65536 + 1e-9
    assert off[-1] < 40 / 65536  # the likeliest takes what rounding leaves
    assert found[-1] == pytest.approx(1 - wanted.sum(), abs=40 / 65536)
    nearest = found[REACH : REACH + 2]
    assert nearest.max() == found[:-1].max()
    assert part == 4 or nearest[int(part > 4)] == nearest.max()


@pytest.mark.parametrize(("n", "levels"), [(8, 1), (24, 8), (128, 32), (192, 255)])
def test_the_runtime_takes_the_tables_of_values(n: int, levels: int) -> None:
    network = network_of(n, levels)
    fit = ValueFit(network, 5)
    tables = fit.tables(lambda: np.arange(levels + 1, dtype=np.float64))
    model = ValueModel(tables, n, levels)
    quantiser = network.quantiser
    assert quantiser is not None
    assert model.sizes == quantiser.sizes
    assert tables["values.steps"].dtype == np.float32
    assert np.array_equal(tables["values.steps"], quantiser.steps)
    assert np.array_equal(model.typical_bits, np.arange(levels + 1))
    # As many values at each level as in training.
    level = torch.arange(levels + 1).view(1, 1, -1)
    kept = quantiser.kept(level).sum(1).reshape(-1).tolist()
    assert [model.count(model.groups_at[[k]]) for k in range(levels + 1)] == kept


def test_the_runtime_takes_the_tables_of_signs(tiny: ModelConfig) -> None:
    tables = SignFit(tiny, 5).tables(no_tables)
    assert CodeModel(tables, tiny.n, tiny.levels).sizes == (2,) * 8


# ---- From networks to what is coded ---------------------------------------------------------


def test_signs_are_bits_of_positive_values(tiny: ModelConfig) -> None:
    fit = SignFit(tiny, 4)
    e = torch.randn(16, 3, 5)
    codes = fit.encoded(torch.zeros(16, 3, 5), e)
    assert np.array_equal(np.unpackbits(codes, axis=0), (e > 0).numpy())
    levels = np.full((3, 5), 2, np.uint8)
    assert np.array_equal(fit.sent(codes, levels), codes)
    assert fit.progressive


def test_values_are_fixed_point_and_then_steps() -> None:
    network = network_of(24, 8)
    fit, quantiser = ValueFit(network, 4), network.quantiser
    assert quantiser is not None
    y = torch.randn(24, 3, 9) * 3
    codes = fit.encoded(y, torch.zeros(24, 3, 9))
    assert np.array_equal(codes, fixed_point_bytes(y[None])[0])
    levels = torch.arange(27).remainder(9).view(3, 9)
    sent = fit.sent(codes, levels.numpy().astype(np.uint8))
    wanted = quantiser.quantised(y[None], levels[None])[0].numpy()
    assert (sent.astype(int) - 128 != wanted).mean() < 0.01  # at borders of fixed point
    assert np.unique(wanted).size > 8
    assert not fit.progressive


def test_values_that_do_not_exist_cost_nothing() -> None:
    network = network_of(24, 8)
    fit, quantiser = ValueFit(network, 4), network.quantiser
    assert quantiser is not None
    levels = torch.arange(27).remainder(9).view(1, 3, 9)
    sent = fit.sent(
        fit.encoded(torch.randn(24, 3, 9), torch.zeros(1)), levels[0].numpy().astype(np.uint8)
    )
    cost = fit.cost(torch.from_numpy(sent[None]), levels)
    assert torch.equal(cost > 0, quantiser.kept(levels) > 0)


def test_signs_that_are_left_out_cost_nothing(tiny: ModelConfig) -> None:
    fit = SignFit(tiny, 4)
    levels = torch.arange(35).remainder(9).view(1, 5, 7)
    sent = torch.randint(0, 256, (1, 2, 5, 7), dtype=torch.uint8)
    for progressive in (False, True):
        cost = fit.cost(sent, levels, progressive=progressive)
        kept = torch.arange(16).view(1, -1, 1, 1) < 2 * levels[:, None]
        assert torch.equal(cost > 0, kept)


def test_a_network_of_signs_has_no_values(tiny: ModelConfig) -> None:
    with pytest.raises(TrainingError, match="no values; use its own entropy stage"):
        ValueFit(CodecNetwork(tiny), 4)


# ---- Losses ---------------------------------------------------------------------------------


def test_signs_are_weighed_alike(tiny: ModelConfig) -> None:
    """The loss is bits per kept code, whatever the levels are."""
    fit = SignFit(tiny, 4)
    levels = torch.randint(0, 9, (3, 5, 7))
    cost = fit.kept(levels) * 0.7
    assert float(fit.loss(cost, levels)) == pytest.approx(0.7)
    assert float(fit.loss(cost * 0, levels * 0)) == 0


def test_crops_of_values_are_weighed_by_what_they_cost() -> None:
    """A crop at a high rate has a gradient that is as much smaller as it costs more."""
    fit: SymbolFit = ValueFit(network_of(24, 8), 4)
    per_position = torch.tensor([2.0, 200.0])
    cost = (per_position / 24).view(2, 1, 1, 1).expand(2, 24, 5, 7).clone().requires_grad_()
    loss = fit.loss(cost, torch.full((2, 5, 7), 8))
    assert float(loss.detach()) == pytest.approx((2 / 4 + 200 / 202) / 2)
    (gradient,) = torch.autograd.grad(loss, cost)
    low, high = gradient.sum((1, 2, 3)).tolist()
    assert low / high == pytest.approx(202 / 4)
