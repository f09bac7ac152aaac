"""Pictures as the entropy stage sees them: codes of the network, crops of them, and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cwic.errors import TrainingError
from cwic_training import coded_pictures
from cwic_training.checkpoint import Checkpoint
from cwic_training.config import ModelConfig
from cwic_training.entropy import fit_entropy_model
from cwic_training.symbol_fit import SignFit

from .entropy_fits import FAST, RATES


def test_pictures_are_the_networks_codes(
    trained: Checkpoint, photos: Any, tiny: ModelConfig
) -> None:
    """Bits are E > 0 of the rounded network, importance its P in 255 steps."""
    network = trained.rounded_to_half().network()
    (picture,) = coded_pictures.coded_pictures(
        network, SignFit(tiny, 4), photos.valid_paths[:1], 64
    )
    pixels = coded_pictures.open_centre(photos.valid_paths[0], 64)
    with torch.no_grad():
        e, p = network.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    assert np.array_equal(np.unpackbits(picture.codes, axis=0), (e[0] > 0).numpy())
    assert np.array_equal(picture.importance, (p[0, 0] * 255).round().numpy())
    assert picture.codes.shape == (2, 8, 8)


def test_crops_are_parts_of_the_pictures(tiny: ModelConfig) -> None:
    """Bits as they are; each crop at its own rate."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (tiny.n, 24, 24), dtype=np.uint8)
    codes = np.packbits(bits, axis=0)
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
            if np.array_equal(bits[:, top : top + 8, left : left + 8], one)
        ]
        ((top, left),) = places
        part = importance[top : top + 8, left : left + 8]
        # At some rate: levels do not fall where importance rises.
        order = part.reshape(-1).argsort(kind="stable")
        assert (np.diff(level.reshape(-1)[order]) >= 0).all()
        assert level.max() <= tiny.levels
    assert len({level.tobytes() for level in levels.numpy()}) == 5


@pytest.mark.parametrize("count", [1, 2, 50])
def test_rates_are_spread_over_their_range(count: int) -> None:
    scales = coded_pictures._spread_scales(RATES, count, 5)
    assert len(scales) == count
    assert scales.min() >= RATES[0]
    assert scales.max() <= RATES[1]
    if count == 50:
        assert np.diff(np.sort(np.log(scales))).max() < 0.2


def test_a_bad_picture_is_named(tmp_path: Path, trained: Checkpoint, photos: Any) -> None:
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(TrainingError, match=r"bad\.png.*leave it out of the glob"):
        fit_entropy_model(trained, [tmp_path / "bad.png"], photos.valid_paths, **FAST)
