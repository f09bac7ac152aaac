"""The trained entropy model: learns, is lossless with the coder, and a function of its seed."""

from __future__ import annotations

from collections.abc import Callable
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
from cwic.level_model import LevelModel, level_contexts
from cwic.rate import levels_from_importance
from cwic_training import coded_pictures, entropy
from cwic_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.entropy import fit_entropy_model
from cwic_training.entropy_report import EntropyReport, measured
from cwic_training.fit import FitResult
from cwic_training.level_table import frequencies, level_table
from cwic_training.model import CodecNetwork
from cwic_training.recipe import Recipe
from cwic_training.symbol_fit import SignFit, ValueFit, sigmoid_table

from .conftest import VALUES

STEPS = 60
HIGH = (3.0, 30.0)
"""Rate factors at which a network that hardly learnt keeps hundreds of codes."""
RATES = (0.06, 1.5)
FAST = {"steps": STEPS, "batch": 2, "hidden": 16}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, train: Callable[..., FitResult]
) -> Checkpoint:
    """A network whose codes and importance have learnt something."""
    folder = tmp_path_factory.mktemp("entropy")
    train(folder, steps=60, batch=8, validate_every=60, muon_lr=0.05, adam_lr=0.01)
    return load_checkpoint(folder / "last.safetensors")


@pytest.fixture(scope="module")
def fitted(trained: Checkpoint, photos: Any) -> tuple[Checkpoint, EntropyReport]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "_scales", lambda _: HIGH)
        return fit_entropy_model(trained, photos.train_paths, photos.valid_paths, **FAST)


@pytest.fixture(scope="module")
def tables(fitted: tuple[Checkpoint, EntropyReport]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in fitted[0].entropy.items()}


@pytest.fixture(scope="module")
def model(tables: dict[str, NDArray[Any]], tiny: ModelConfig) -> ContextModel:
    return ContextModel(tables, tiny.n, tiny.levels)


def synthetic(bits: NDArray[np.uint8]) -> coded_pictures.CodedPicture:
    """Every code kept, at every rate factor from 1 on."""
    return coded_pictures.CodedPicture(
        np.packbits(bits, axis=0), np.full(bits.shape[1:], 255, np.uint8)
    )


def steps_done() -> tuple[list[int], Callable[[int], None]]:
    seen: list[int] = []
    return seen, seen.append


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
    fitted: tuple[Checkpoint, EntropyReport], tables: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "release.safetensors", fitted[0])
    loaded = load_checkpoint(tmp_path / "release.safetensors").entropy
    assert loaded.keys() == tables.keys()
    for name, tensor in loaded.items():
        assert tensor.numpy().dtype == tables[name].dtype
        assert np.array_equal(tensor.numpy(), tables[name])


def test_the_rounded_weights_are_the_release(
    fitted: tuple[Checkpoint, EntropyReport], trained: Checkpoint
) -> None:
    release, report = fitted
    wanted = trained.rounded_to_half().tensors
    assert all(torch.equal(release.tensors[k], wanted[k]) for k in wanted)
    assert release.training["entropy"] == {
        "bits_per_code": report.bits_per_code,
        "bits_per_code_float": report.bits_per_code_float,
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
    fitted: tuple[Checkpoint, EntropyReport],
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


def test_a_code_costs_about_what_it_did_before_it_was_rounded(
    fitted: tuple[Checkpoint, EntropyReport], tiny: ModelConfig
) -> None:
    """On pictures that the model has not seen; a level costs less than its index would."""
    report = fitted[1]
    assert 0.2 < report.bits_per_code <= 1.05
    assert report.bits_per_code == pytest.approx(report.bits_per_code_float, rel=0.04)
    assert 0 < report.bits_per_level < np.log2(tiny.levels + 1)
    assert report.levels_bpp == pytest.approx(report.bits_per_level / 64, abs=1e-4)


def test_pictures_are_the_networks_codes(fitted: Any, photos: Any, tiny: ModelConfig) -> None:
    """Bits are E > 0 of the rounded network, importance its P in 255 steps."""
    network = fitted[0].network()
    (picture,) = coded_pictures.coded_pictures(
        network, SignFit(tiny, 4), photos.valid_paths[:1], 64
    )
    pixels = coded_pictures.open_centre(photos.valid_paths[0], 64)
    with torch.no_grad():
        e, p = network.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    assert np.array_equal(np.unpackbits(picture.codes, axis=0), (e[0] > 0).numpy())
    assert np.array_equal(picture.importance, (p[0, 0] * 255).round().numpy())
    assert picture.codes.shape == (2, 8, 8)


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
    seen, progress = steps_done()
    options = {**FAST, "steps": 4}
    fit_entropy_model(
        trained, photos.train_paths[:1], photos.valid_paths[:1], progress=progress, **options
    )
    assert seen == [1, 1, 1, 1]


# ---- What it learns -------------------------------------------------------------------------


def learn(
    pictures: list[coded_pictures.CodedPicture], tiny: ModelConfig, steps: int, hidden: int = 16
) -> tuple[ContextModel, EntropyReport]:
    torch.manual_seed(0)
    fit = SignFit(tiny, hidden)
    entropy._train_context(fit, pictures, tiny.levels, RATES, entropy._Rate(steps), 4, 0, None)
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
    assert report.bits_per_code == pytest.approx(report.bits_per_code_float, rel=0.03)


def test_more_steps_learn_more(tiny: ModelConfig, dependent: Any) -> None:
    pictures = [synthetic(bits) for bits in dependent]
    costs = [learn(pictures, tiny, steps)[1].bits_per_code for steps in (1, 20, 80)]
    assert costs[0] > costs[1] > costs[2]


def test_crops_are_parts_of_the_pictures(tiny: ModelConfig, dependent: Any) -> None:
    """Bits as they are; each crop at its own rate."""
    rng = np.random.default_rng(0)
    codes = np.packbits(dependent[0], axis=0)
    importance = rng.integers(0, 256, (24, 24)).astype(np.uint8)
    pictures = [coded_pictures.CodedPicture(codes, importance)]
    fit = SignFit(tiny, 4)
    sent, levels = coded_pictures.random_crops(fit, pictures, tiny.levels, RATES, 8, 5, rng)
    assert sent.shape == (5, tiny.n // 8, 8, 8)
    assert levels.shape == (5, 8, 8)
    for bytes_, level in zip(sent.numpy(), levels.numpy(), strict=True):
        one = np.unpackbits(bytes_, axis=0)
        places = [
            (top, left)
            for top in range(17)
            for left in range(17)
            if np.array_equal(dependent[0][:, top : top + 8, left : left + 8], one)
        ]
        ((top, left),) = places
        part = importance[top : top + 8, left : left + 8]
        # At some rate: levels do not fall where importance rises.
        order = part.reshape(-1).argsort(kind="stable")
        assert (np.diff(level.reshape(-1)[order]) >= 0).all()
        assert level.max() <= tiny.levels
    assert len({level.tobytes() for level in levels.numpy()}) == 5


def test_crops_come_from_the_pictures_that_hold_one(tiny: ModelConfig) -> None:
    """The largest picture sets the side, at most 32 positions; smaller ones are left out."""
    seen, progress = steps_done()
    small = synthetic(np.ones((tiny.n, 4, 40), np.uint8))
    large = synthetic(np.zeros((tiny.n, 9, 12), np.uint8))
    torch.manual_seed(0)
    fit = SignFit(tiny, 4)
    entropy._train_context(
        fit, [small, large], tiny.levels, RATES, entropy._Rate(30), 2, 0, progress
    )
    assert len(seen) == 30
    with torch.inference_mode():
        parts = coded_pictures.as_tensors(
            large.codes[None], np.full((1, 9, 12), tiny.levels, np.uint8)
        )
        assert fit.cost(*parts).mean() < 0.9, "ones were seen as well"


def test_the_last_steps_train_the_integers(tiny: ModelConfig) -> None:
    fit, seen = SignFit(tiny, 4), []
    picture = synthetic(np.ones((tiny.n, 8, 8), np.uint8))
    rate = entropy._Rate(20)
    entropy._train_context(
        fit, [picture], tiny.levels, RATES, rate, 1, 0, lambda _: seen.append(fit.net.quantised)
    )
    assert seen == [False] * 14 + [True] * 6


# ---- Tables ---------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_frequencies_are_whole_positive_and_complete(levels: int) -> None:
    weights = np.random.default_rng(0).gamma(0.1, size=(50, levels + 1)) + 1e-300
    weights[0] = 1e-300
    weights[0, levels] = 1.0
    rows = frequencies(weights)
    assert rows.dtype == np.uint16
    assert rows.min() >= 1
    assert set(rows.sum(axis=1, dtype=np.int64)) == {65536}
    share = weights / weights.sum(axis=1, keepdims=True)
    assert abs(rows / 65536 - share).max() < 2 * (levels + 1) / 65536


def test_levels_that_never_change_cost_next_to_nothing(tiny: ModelConfig) -> None:
    pictures = [synthetic(np.zeros((tiny.n, 24, 24), np.uint8)) for _ in range(8)]
    table = level_table(coded_pictures.spread_levels(pictures, tiny.levels, RATES, 0), tiny.levels)
    model = LevelModel(table, tiny.levels)
    for scale in coded_pictures._spread_scales(RATES, 8, 0):
        levels = levels_from_importance(pictures[0].importance, float(scale), tiny.levels)
        assert model.encode(levels).bits < 0.3 * levels.size


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


@pytest.mark.parametrize("count", [1, 2, 50])
def test_rates_are_spread_over_their_range(count: int) -> None:
    scales = coded_pictures._spread_scales(RATES, count, 5)
    assert len(scales) == count
    assert scales.min() >= RATES[0]
    assert scales.max() <= RATES[1]
    if count == 50:
        assert np.diff(np.sort(np.log(scales))).max() < 0.2


# ---- Refusals -------------------------------------------------------------------------------


def test_a_bad_picture_is_named(tmp_path: Path, trained: Checkpoint, photos: Any) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(TrainingError, match=r"bad\.png.*leave it out of the glob"):
        fit_entropy_model(trained, [tmp_path / "bad.png"], photos.valid_paths, **FAST)


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


# ---- Values ---------------------------------------------------------------------------------


def valued() -> Checkpoint:
    """A new network, which is a DCT, whose importance is not the same everywhere."""
    torch.manual_seed(0)
    network = CodecNetwork(VALUES).eval()
    torch.nn.init.normal_(network.importance.get_parameter("conv3.weight"), std=0.3)
    recipe = {"scale_min": 0.15, "scale_max": 2.0}
    facts = {"stage": "importance", "steps": 0, "recipe": recipe}
    return Checkpoint(VALUES, network.state_dict(), facts)


@pytest.fixture(scope="module")
def fitted_values(photos: Any) -> tuple[Checkpoint, EntropyReport]:
    return fit_entropy_model(valued(), photos.train_paths, photos.valid_paths, **FAST)


def value_model(checkpoint: Checkpoint) -> ContextModel:
    tables = {name: tensor.numpy() for name, tensor in checkpoint.entropy.items()}
    return ContextModel(tables, VALUES.n, VALUES.levels)


def test_a_release_of_values(
    fitted_values: tuple[Checkpoint, EntropyReport], tmp_path: Path
) -> None:
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


def test_values_cost_about_what_they_did_before_they_were_rounded(
    fitted_values: tuple[Checkpoint, EntropyReport],
) -> None:
    report = fitted_values[1]
    assert 0.1 < report.bits_per_code < 3
    assert report.bits_per_code == pytest.approx(report.bits_per_code_float, rel=0.05)
    assert report.progressive_ratio == 1


def test_the_report_of_values_is_what_the_coder_writes(
    fitted_values: tuple[Checkpoint, EntropyReport], photos: Any
) -> None:
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


def test_typical_bits_are_those_of_a_map_of_one_level(
    fitted_values: tuple[Checkpoint, EntropyReport], photos: Any
) -> None:
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


def test_longer_training_predicts_values_better(
    fitted_values: tuple[Checkpoint, EntropyReport], photos: Any
) -> None:
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


# ---- Training further -----------------------------------------------------------------------


@pytest.fixture(params=["signs", "values"])
def trained_before(
    request: pytest.FixtureRequest,
    trained: Checkpoint,
    fitted: tuple[Checkpoint, EntropyReport],
    fitted_values: tuple[Checkpoint, EntropyReport],
) -> tuple[Checkpoint, tuple[Checkpoint, EntropyReport]]:
    """A network, and what was fitted to it."""
    return (trained, fitted) if request.param == "signs" else (valued(), fitted_values)


def test_what_was_fitted_is_what_goes_on(
    trained_before: tuple[Checkpoint, tuple[Checkpoint, EntropyReport]],
) -> None:
    network = trained_before[0].network()
    before = trained_before[1][0].entropy
    values = network.quantiser is not None
    fit = ValueFit(network, 16) if values else SignFit(network.config, 16)
    fit.start_from(before)
    for name, table in fit.net.integers().items():
        assert np.array_equal(table, before[name].numpy()), name


def test_a_step_of_training_further_keeps_what_was_learnt(
    trained_before: tuple[Checkpoint, tuple[Checkpoint, EntropyReport]],
    photos: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And from noise nothing is known after one."""
    checkpoint, (release, report) = trained_before
    if checkpoint.config.codes == "signs":
        monkeypatch.setattr(entropy, "_scales", lambda _: HIGH)
    options = {**FAST, "steps": 1}
    paths = photos.train_paths, photos.valid_paths
    further = fit_entropy_model(checkpoint, *paths, initial=release, **options)[1]
    anew = fit_entropy_model(checkpoint, *paths, **options)[1]
    assert further.codes_bpp < report.codes_bpp + 0.3 * (anew.codes_bpp - report.codes_bpp)


@pytest.mark.parametrize("kind", ["signs", "values"])
def test_what_was_fitted_to_another_model_is_refused(
    kind: str,
    trained: Checkpoint,
    fitted: tuple[Checkpoint, EntropyReport],
    fitted_values: tuple[Checkpoint, EntropyReport],
    photos: Any,
) -> None:
    pairs = {"signs": (trained, fitted_values[0]), "values": (valued(), fitted[0])}
    checkpoint, other = pairs[kind]
    paths = photos.train_paths[:1], photos.valid_paths[:1]
    with pytest.raises(CheckpointError, match="has no own that fits.*; name a release of the same"):
        fit_entropy_model(checkpoint, *paths, initial=other, **FAST)
    own = fitted[0] if kind == "signs" else fitted_values[0]
    wider = {**FAST, "hidden": 17}
    with pytest.raises(CheckpointError, match="that fits this model; name a release"):
        fit_entropy_model(checkpoint, *paths, initial=own, **wider)
