"""Qualities: even steps of MS-SSIM on held-out pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.conftest import VALUES
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from cwic.rate import QualityScale
from cwic_training.checkpoint import load_checkpoint
from cwic_training.model import CodecNetwork
from cwic_training.quality import KNOTS, LOWEST_MS_SSIM, quality_scales
from cwic_training.quality import _ms_ssim as ms_ssim

ROOT = Path(__file__).resolve().parents[2]


def test_steps_are_even_on_a_picture(photo_path: Path) -> None:
    network = load_checkpoint(ROOT / "models" / "nano.safetensors").network()
    scales = quality_scales(network, [photo_path], 1.5)
    assert scales is not None
    assert len(scales) == KNOTS
    assert scales[-1] == 1.5
    picture = torch.from_numpy(np.array(__import__("PIL.Image").Image.open(photo_path)))
    top, left = (side - 512 for side in picture.shape[:2])
    x = picture[top // 2 :, left // 2 :][:512, :512].permute(2, 0, 1)[None].float() / 255
    found = ms_ssim(network, x, [QualityScale(scales).scale(q) for q in (1, 34, 67, 100)])
    assert found[0] == pytest.approx(LOWEST_MS_SSIM, abs=0.03)
    steps = np.diff(-10 * np.log10(1 - np.array(found)))
    assert (steps > 0).all()
    assert steps.max() < 1.6 * steps.min()


def test_qualities_of_values(photo_path: Path) -> None:
    """A new network is a DCT, so finer steps are better; a picture is that of its numbers."""
    torch.manual_seed(0)
    network = CodecNetwork(VALUES).eval()
    scales = quality_scales(network, [photo_path], 2.0)
    assert scales is not None
    assert scales == sorted(set(scales))
    assert scales[-1] == 2.0
    x = torch.rand(1, 3, 176, 184)
    with torch.no_grad():
        y, p = network.encode(x)
        levels = network.levels(p, torch.tensor([0.8]))
        quantiser = network.quantiser
        assert quantiser is not None
        numbers = quantiser.quantised(y, levels)
        picture = network.decode(quantiser.restored(numbers, levels)).clamp(0, 1)
    wanted = multiscale_structural_similarity_index_measure(picture, x, data_range=1.0)
    assert ms_ssim(network, x, [0.8]) == [pytest.approx(float(wanted))]


def test_small_pictures_give_no_scales(photos: object, network: object) -> None:
    assert quality_scales(network.eval(), photos.valid_paths, 1.5) is None  # type: ignore[attr-defined]
