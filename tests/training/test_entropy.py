"""The trained entropy model of signs: lossless with the coder, and a function of its seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cwic import rans
from cwic.context import LOGITS
from cwic.entropy_model import ContextModel
from cwic.errors import CheckpointError, TrainingError
from cwic.level_model import level_contexts
from cwic.rate import levels_from_importance
from cwic_training import coded_pictures, entropy
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.entropy import fit_entropy_model
from cwic_training.recipe import Recipe
from cwic_training.symbol_fit import SignFit

from .entropy_fits import FAST, HIGH, STEPS, Fitted, fit_signs


@pytest.fixture(scope="module")
def fitted(trained: Checkpoint, photos: Any) -> Fitted:
    return fit_signs(trained, photos.train_paths, photos.valid_paths)


@pytest.fixture(scope="module")
def tables(fitted: Fitted) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in fitted[0].entropy.items()}


@pytest.fixture(scope="module")
def model(tables: dict[str, NDArray[Any]], tiny: ModelConfig) -> ContextModel:
    return ContextModel(tables, tiny.n, tiny.levels)


# ---- The release ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "scales"),
    [
        ({}, (0.05, Recipe.scale_max)),
        ({"scale_min": 0.08, "scale_max": 3.0}, (0.05, 3.0)),
        ({"scale_min": 0.6, "scale_max": 0.6}, (0.6, 0.6)),
    ],
    ids=["no recipe", "variable rate", "one rate"],
)
def test_rates_that_the_codes_are_seen_at(
    recipe: dict[str, float], scales: tuple[float, float]
) -> None:
    trained = Checkpoint(ModelConfig(), {}, {"recipe": recipe})
    assert entropy._scales(trained) == scales


def test_the_release_holds_what_the_runtime_reads(
    tables: dict[str, NDArray[Any]], tiny: ModelConfig
) -> None:
    groups, hidden, size = tiny.levels, FAST["hidden"], tiny.n // tiny.levels
    shapes = {name: (array.dtype.name, array.shape) for name, array in tables.items()}
    assert shapes == {
        "levels.frequencies": ("uint16", (level_contexts(groups), groups + 1)),
        "codes.own": ("int8", (6, groups, 12 * size, hidden)),
        "codes.earlier": ("int8", (groups, tiny.n, hidden)),
        "codes.level": ("int32", (groups, groups + 1, hidden)),
        "codes.kind": ("int32", (7, groups, hidden)),
        "codes.middle": ("int8", (groups, hidden, hidden)),
        "codes.middle_bias": ("int32", (groups, hidden)),
        "codes.last": ("int8", (groups, hidden, size)),
        "codes.last_bias": ("int32", (groups, size)),
        "codes.p1": ("uint16", (LOGITS,)),
    }


def test_a_saved_release_is_the_same_model(
    fitted: Fitted, tables: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "release.safetensors", fitted[0])
    loaded = load_checkpoint(tmp_path / "release.safetensors").entropy
    assert loaded.keys() == tables.keys()
    for name, tensor in loaded.items():
        assert tensor.numpy().dtype == tables[name].dtype
        assert np.array_equal(tensor.numpy(), tables[name])


def test_the_rounded_weights_are_the_release(fitted: Fitted, trained: Checkpoint) -> None:
    release, report = fitted
    wanted = trained.rounded_to_half().tensors
    assert all(torch.equal(release.tensors[k], wanted[k]) for k in wanted)
    assert release.training["entropy"] == {
        "bits_per_code": report.bits_per_code,
        "bits_per_code_network": report.bits_per_code_network,
        "bits_per_level": report.bits_per_level,
        "codes_bpp": report.codes_bpp,
        "levels_bpp": report.levels_bpp,
        "progressive_ratio": report.progressive_ratio,
        "steps": STEPS,
    }
    assert release.training["steps"] == 60
    assert trained.entropy == {}
    assert "entropy" not in trained.training


def test_the_report_is_what_the_coder_writes(
    fitted: Fitted,
    model: ContextModel,
    photos: Any,
    tiny: ModelConfig,
) -> None:
    """The held-out pictures through rANS: the bytes are the report's bits, and lossless."""
    release, report = fitted
    fit = SignFit(tiny, FAST["hidden"])
    pictures = list(coded_pictures.coded_pictures(release.network(), fit, photos.valid_paths, 512))
    assert [p.importance.shape for p in pictures] == [(16, 20), (16, 20)]
    written = [0.0, 0.0]
    pixels = codes = 0
    for picture, scale in zip(pictures, coded_pictures._spread_scales(HIGH, 2, 1), strict=True):
        levels = levels_from_importance(picture.importance, float(scale), tiny.levels)
        made = model.levels.encode(levels)
        decoder = rans.Decoder(made.to_bytes(1), 1)
        assert np.array_equal(model.levels.decode(decoder, 16, 20), levels)
        decoder.finish()
        written[0] += 8 * len(made.to_bytes(1)) - 32
        made = model.codes.encode(picture.codes, levels)
        decoder = rans.Decoder(made.to_bytes(1), 1)
        kept = np.arange(tiny.n)[:, None, None] < 2 * levels.astype(int)
        restored = model.decode_codes(decoder, levels).codes
        decoder.finish()
        assert np.array_equal(restored, picture.codes & np.packbits(kept, axis=0))
        written[1] += 8 * len(made.to_bytes(1)) - 32
        pixels += 64 * levels.size
        codes += int(kept.sum())
    assert written[0] / pixels == pytest.approx(report.levels_bpp, abs=0.002)
    assert written[1] / pixels == pytest.approx(report.codes_bpp, abs=0.002)
    assert codes > 500
    assert written[1] / codes == pytest.approx(report.bits_per_code, abs=0.02)


def test_a_code_costs_what_the_network_that_was_frozen_says(
    fitted: Fitted, tiny: ModelConfig
) -> None:
    """On pictures that the model has not seen; a level costs less than its index would."""
    report = fitted[1]
    assert 0.2 < report.bits_per_code <= 1.05
    assert report.bits_per_code == pytest.approx(report.bits_per_code_network, rel=0.005)
    assert 0 < report.bits_per_level < np.log2(tiny.levels + 1)
    assert report.levels_bpp == pytest.approx(report.bits_per_level / 64, abs=1e-4)


@pytest.mark.parametrize("what", ["seed", "weights"])
def test_fitting_is_a_function_of_the_seed(trained: Checkpoint, photos: Any, what: str) -> None:
    options = {**FAST, "steps": 3}
    paths = photos.train_paths[:1], photos.valid_paths[:1]
    torch.manual_seed(1)  # whatever happened before
    first = fit_entropy_model(trained, *paths, **options)
    torch.manual_seed(2)
    if what == "seed":
        again = fit_entropy_model(trained, *paths, **options)
        assert again[1] == first[1]
        for name, tensor in first[0].entropy.items():
            assert torch.equal(tensor, again[0].entropy[name])
    else:
        other = fit_entropy_model(trained, *paths, seed=1, **options)
        for name in ("codes.own", "codes.last", "levels.frequencies"):
            assert not torch.equal(first[0].entropy[name], other[0].entropy[name])


def test_progress_is_told_step_by_step(trained: Checkpoint, photos: Any) -> None:
    seen: list[int] = []
    options = {**FAST, "steps": 4}
    fit_entropy_model(
        trained, photos.train_paths[:1], photos.valid_paths[:1], progress=seen.append, **options
    )
    assert seen == [1, 1, 1, 1]


# ---- Refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["steps", "batch", "hidden"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_must_be_positive(trained: Checkpoint, photos: Any, option: str, value: int) -> None:
    with pytest.raises(TrainingError, match="must be at least 1; use the defaults"):
        fit_entropy_model(
            trained, photos.train_paths, photos.valid_paths, **{**FAST, option: value}
        )


def test_a_network_without_importance_is_refused(trained: Checkpoint, photos: Any) -> None:
    main = Checkpoint(trained.config, trained.tensors, {"stage": "main"})
    with pytest.raises(CheckpointError, match="run cwic train importance with --init first$"):
        fit_entropy_model(main, photos.train_paths, photos.valid_paths, **FAST)
