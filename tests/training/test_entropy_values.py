"""The trained entropy model of values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cwic import rans
from cwic.entropy_model import ContextModel
from cwic.rate import levels_from_importance
from cwic_training import coded_pictures, entropy
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.entropy import fit_entropy_model
from cwic_training.symbol_fit import ValueFit

from .conftest import VALUES
from .entropy_fits import FAST, Fitted, valued


@pytest.fixture(scope="module")
def fitted_values(photos: Any) -> Fitted:
    return fit_entropy_model(valued(), photos.train_paths, photos.valid_paths, **FAST)


def value_model(checkpoint: Checkpoint) -> ContextModel:
    tables = {name: tensor.numpy() for name, tensor in checkpoint.entropy.items()}
    return ContextModel(tables, VALUES.n, VALUES.levels)


def test_a_release_of_values(fitted_values: Fitted, tmp_path: Path) -> None:
    """Saved and loaded it is what the runtime takes, with bits that rise with the level."""
    release, report = fitted_values
    save_checkpoint(tmp_path / "release.safetensors", release)
    loaded = load_checkpoint(tmp_path / "release.safetensors")
    model = value_model(loaded)
    bits = model.codes.typical_bits
    assert bits[0] == 0
    assert (np.diff(bits) > 0).all()
    assert bits[-1] > 10
    assert loaded.training["entropy"]["bits_per_code"] == report.bits_per_code
    assert not any(name.startswith("codes.") for name in loaded.entropy)


def test_values_cost_what_the_network_that_was_frozen_says(
    fitted_values: Fitted,
) -> None:
    report = fitted_values[1]
    assert 0.1 < report.bits_per_code < 3
    assert report.bits_per_code == pytest.approx(report.bits_per_code_network, rel=0.005)
    assert report.progressive_ratio == 1


def test_the_report_of_values_is_what_the_coder_writes(fitted_values: Fitted, photos: Any) -> None:
    release, report = fitted_values
    network, model = release.network(), value_model(release)
    fit = ValueFit(network, FAST["hidden"])
    pictures = list(coded_pictures.coded_pictures(network, fit, photos.valid_paths, 512))
    assert [p.codes.shape for p in pictures] == [(48, 16, 20)] * 2
    written = pixels = 0.0
    scales = entropy._scales(release)
    for picture, scale in zip(pictures, coded_pictures._spread_scales(scales, 2, 1), strict=True):
        levels = levels_from_importance(picture.importance, float(scale), VALUES.levels)
        sent = model.codes.sent(picture.codes, levels)
        assert np.array_equal(sent, fit.sent(picture.codes, levels))
        made = model.codes.encode(sent, levels)
        decoder = rans.Decoder(made.to_bytes(1), 1)
        assert np.array_equal(model.decode_codes(decoder, levels).codes, sent)
        decoder.finish()
        written += 8 * len(made.to_bytes(1)) - 32
        pixels += 64 * levels.size
    assert written / pixels == pytest.approx(report.codes_bpp, abs=0.004)
    assert report.codes_bpp > 0.05


def test_typical_bits_are_those_of_a_map_of_one_level(fitted_values: Fitted, photos: Any) -> None:
    """By the integers; at the finest steps a network of 60 steps is too far off to compare."""
    release = fitted_values[0]
    network, model = release.network(), value_model(release)
    pictures = coded_pictures.coded_pictures(network, ValueFit(network, 4), photos.train_paths, 512)
    parts = [picture.codes[:, :16, :16] for picture in pictures]
    found = []
    for level in range(5):
        chosen = np.full((16, 16), level, np.uint8)
        bits = [
            model.codes.position_bits(model.codes.sent(part, chosen), chosen).mean()
            for part in parts
        ]
        found.append(np.exp(np.log(np.add(bits, 0.1)).mean()) - 0.1)  # the geometric mean
    np.testing.assert_allclose(model.codes.typical_bits[:5], found, rtol=0.05, atol=0.05)


def test_longer_training_predicts_values_better(fitted_values: Fitted, photos: Any) -> None:
    options = {**FAST, "steps": 2}
    short = fit_entropy_model(valued(), photos.train_paths, photos.valid_paths, **options)[1]
    assert fitted_values[1].bits_per_code < 0.9 * short.bits_per_code


@pytest.mark.parametrize("what", ["seed", "weights"])
def test_fitting_values_is_a_function_of_the_seed(photos: Any, what: str) -> None:
    options = {**FAST, "steps": 3}
    paths = photos.train_paths[:1], photos.valid_paths[:1]
    seeds = (0, 0) if what == "seed" else (0, 1)
    results = []
    for noise, seed in enumerate(seeds):
        checkpoint = valued()
        torch.manual_seed(noise)  # whatever happened before
        results.append(fit_entropy_model(checkpoint, *paths, seed=seed, **options))
    (first, first_report), (second, second_report) = results
    assert first.entropy.keys() == second.entropy.keys()
    fixed = {"sizes", "first_levels", "steps", "features", "cumulative"}
    for name, tensor in first.entropy.items():
        same = torch.equal(tensor, second.entropy[name])
        if what == "seed" or name.removeprefix("values.") in fixed:
            assert same, name
    if what == "seed":
        assert first_report == second_report
    else:
        for name in ("values.1.own", "values.2.last", "levels.frequencies"):
            assert not torch.equal(first.entropy[name], second.entropy[name])
