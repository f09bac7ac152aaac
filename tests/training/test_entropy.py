"""The fitted entropy model: valid tables, lossless with the coder, and cheaper than raw bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cwic import rans
from cwic.context import ContextModel, level_contexts
from cwic.errors import TrainingError
from cwic_training import entropy
from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.entropy import EntropyReport, fit_entropy_model
from cwic_training.fit import FitResult
from cwic_training.model import ModelConfig


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
    return fit_entropy_model(trained, photos.train_paths, photos.valid_paths)


@pytest.fixture(scope="module")
def tables(fitted: tuple[Checkpoint, EntropyReport]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in fitted[0].entropy.items()}


@pytest.fixture(scope="module")
def model(tables: dict[str, NDArray[Any]], tiny: ModelConfig) -> ContextModel:
    return ContextModel(tables, tiny.n, tiny.levels)


def test_tables_are_frequencies_and_causal(
    tables: dict[str, NDArray[Any]], tiny: ModelConfig, fitted: Any, photos: Any
) -> None:
    frequencies = tables["levels.frequencies"]
    assert frequencies.shape == (level_contexts(tiny.levels), tiny.levels + 1)
    assert frequencies.min() >= 1
    assert set(frequencies.sum(axis=1, dtype=np.int64)) == {65536}
    neighbours = tables["codes.neighbours"].astype(int)
    size = tiny.n // tiny.levels
    samples = entropy._samples(fitted[0].network(), photos.train_paths, 0, 512)
    groups = max(int(sample.levels.max()) for sample in samples)
    assert groups > 2
    for k, rows in enumerate(neighbours):
        used = rows[rows[:, 0] >= 0]
        assert (used[:, 0] < k // size * size).all(), "a neighbour of the same or a later group"
        assert (abs(used[:, 1:]) <= 1).all()
        assert len({tuple(row) for row in used.tolist()}) == len(used)
        assert (rows[len(used) :, 0] == -1).all()
        assert len(used) == (12 if size <= k < groups * size else 0)
    assert tables["codes.p1"].min() >= 1


def test_a_code_costs_less_than_a_bit(
    fitted: tuple[Checkpoint, EntropyReport], tiny: ModelConfig
) -> None:
    """On pictures that the tables have not seen; a level costs less than its index would."""
    report = fitted[1]
    assert 0.2 < report.bits_per_code <= 1.0
    assert 0 < report.bits_per_level < np.log2(tiny.levels + 1)
    assert report.levels_bpp == pytest.approx(report.bits_per_level / 64, abs=1e-4)


def test_the_report_is_what_the_coder_writes(
    fitted: tuple[Checkpoint, EntropyReport],
    trained: Checkpoint,
    model: ContextModel,
    photos: Any,
) -> None:
    """The held-out pictures through rANS: the bytes are the report's bits, and lossless."""
    release, report = fitted
    samples = list(entropy._samples(release.network(), photos.valid_paths, 1, 512))
    assert [s.levels.shape for s in samples] == [(16, 20), (16, 20)]
    written = [0, 0]
    positions = sum(s.levels.size for s in samples)
    for sample in samples:
        codes = np.packbits(sample.bits[:, 1:-1, 1:-1], axis=0)
        height, width = sample.levels.shape
        for part, intervals in enumerate(
            (model.encode_levels(sample.levels), model.encode_codes(codes, sample.levels))
        ):
            data = rans.encode(intervals.starts, intervals.freqs, intervals.pass_sizes, 1)
            decoder = rans.Decoder(data, 1)
            if part:
                assert np.array_equal(model.decode_codes(decoder, sample.levels), codes)
            else:
                assert np.array_equal(model.decode_levels(decoder, height, width), sample.levels)
            decoder.finish()
            written[part] += 8 * len(data) - 40
    pixels = positions * 64
    assert written[0] / pixels == pytest.approx(report.levels_bpp, abs=0.002)
    assert written[1] / pixels == pytest.approx(report.codes_bpp, abs=0.002)


def test_samples_are_the_networks_codes(fitted: Any, photos: Any, tiny: ModelConfig) -> None:
    """Masked bits are 0, kept ones are E > 0 of the frozen network."""
    network = fitted[0].network()
    (sample,) = entropy._samples(network, photos.valid_paths[:1], 5, 64)
    bits, levels = sample.bits[:, 1:-1, 1:-1], sample.levels
    assert bits.shape == (16, 8, 8)
    assert levels.max() > 0
    picture = entropy.open_centre(photos.valid_paths[0], 64)
    with torch.no_grad():
        e, _ = network.encode(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    for k in range(tiny.n):
        kept = levels * tiny.n > k * tiny.levels
        assert np.array_equal(bits[k], (e[0, k].numpy() > 0) & kept)
    border = sample.bits.copy()
    border[:, 1:-1, 1:-1] = 0
    assert not border.any()


def test_a_known_dependence_is_found_and_paid(tiny: ModelConfig) -> None:
    """Channel 5 repeats channel 0 of the position to its upper right; the rest is noise."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(4):
        bits = rng.integers(0, 2, (tiny.n, 24, 24), dtype=np.uint8)
        bits[5, 1:, :-1] = bits[0, :-1, 1:]
        levels = np.full((24, 24), tiny.levels, np.uint8)
        samples.append(entropy._Sample(np.pad(bits, ((0, 0), (1, 1), (1, 1))), levels))
    neighbours, p1 = entropy._fit_codes(samples, tiny)
    assert neighbours[5, 0].tolist() == [0, -1, 1]
    tables = {
        "levels.frequencies": entropy._fit_levels(samples, tiny.levels),
        "codes.neighbours": neighbours,
        "codes.p1": p1,
    }
    assert (p1[5, 1::2] > 0.8 * 65536).all()
    report = entropy._measure(ContextModel(tables, tiny.n, tiny.levels), iter(samples))
    # 15 of 16 channels are noise, at least; on pictures that were counted, a bit less.
    assert report.bits_per_code < 0.955
    assert report.bits_per_level < 0.1


def test_channels_that_are_never_kept_get_even_odds(tiny: ModelConfig) -> None:
    samples = [entropy._Sample(np.zeros((tiny.n, 6, 6), np.uint8), np.zeros((4, 4), np.uint8))]
    neighbours, p1 = entropy._fit_codes(samples, tiny)
    assert (neighbours[..., 0] == -1).all()
    assert set(p1.reshape(-1).tolist()) == {32768}


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_frequencies_are_whole_positive_and_complete(levels: int) -> None:
    weights = np.random.default_rng(0).gamma(0.1, size=(50, levels + 1)) + 1e-300
    weights[0] = 1e-300
    weights[0, levels] = 1.0
    rows = entropy._frequencies(weights)
    assert rows.dtype == np.uint16
    assert rows.min() >= 1
    assert set(rows.sum(axis=1, dtype=np.int64)) == {65536}
    share = weights / weights.sum(axis=1, keepdims=True)
    assert abs(rows / 65536 - share).max() < 2 * (levels + 1) / 65536


def test_the_rounded_weights_are_the_release(
    fitted: tuple[Checkpoint, EntropyReport], trained: Checkpoint
) -> None:
    release, report = fitted
    wanted = trained.rounded_to_half().tensors
    assert all(torch.equal(release.tensors[k], wanted[k]) for k in wanted)
    assert release.training["entropy"]["bits_per_code"] == report.bits_per_code
    assert release.training["steps"] == 60
    assert trained.entropy == {}
    assert "entropy" not in trained.training


def test_fitting_is_a_function_of_the_seed(trained: Checkpoint, photos: Any) -> None:
    fits = [
        fit_entropy_model(trained, photos.train_paths[:1], photos.valid_paths[:1], seed=seed)[0]
        for seed in (0, 0, 1)
    ]
    for name in fits[0].entropy:
        assert torch.equal(fits[0].entropy[name], fits[1].entropy[name])
    assert not torch.equal(fits[0].entropy["codes.p1"], fits[2].entropy["codes.p1"])


def test_a_bad_picture_is_named(tmp_path: Path, trained: Checkpoint, photos: Any) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(TrainingError, match=r"bad\.png.*leave it out of the glob"):
        fit_entropy_model(trained, [tmp_path / "bad.png"], photos.valid_paths)
