"""Qualities: even steps of MS-SSIM on held-out pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.conftest import VALUES
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from cwic.rate import QualityScale
from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork
from cwic_training.ops import importance_mask
from cwic_training.quality import KNOTS, LOWEST_MS_SSIM, quality_scales
from cwic_training.quality import _ms_ssim as ms_ssim

ROOT = Path(__file__).resolve().parents[2]


def test_steps_are_even_on_a_picture(photo_path: Path) -> None:
    network = load_checkpoint(ROOT / "models" / "nano.safetensors").network()
    scales = quality_scales(network, [photo_path], 2.0)
    assert scales is not None
    assert len(scales) == KNOTS
    assert scales[-1] == 2.0
    picture = torch.from_numpy(np.array(Image.open(photo_path)))
    top, left = (side - 512 for side in picture.shape[:2])
    x = picture[top // 2 :, left // 2 :][:512, :512].permute(2, 0, 1)[None].float() / 255
    found = ms_ssim(network, x, [QualityScale(scales).scale(q) for q in (1, 34, 67, 100)])
    assert found[0] == pytest.approx(LOWEST_MS_SSIM, abs=0.03)
    steps = np.diff(-10 * np.log10(1 - np.array(found)))
    assert (steps > 0).all()
    assert steps.max() < 1.6 * steps.min()


@pytest.mark.parametrize("codes", ["signs", "values"])
def test_a_picture_is_that_of_its_codes(tiny: ModelConfig, codes: str) -> None:
    torch.manual_seed(0)
    network = CodecNetwork(VALUES if codes == "values" else tiny).eval()
    x, scale = torch.rand(1, 3, 176, 184), torch.tensor([0.8])
    with torch.no_grad():
        e, p = network.encode(x)
        if network.quantiser is None:
            kept = importance_mask(p, scale, tiny.levels, tiny.n)
            z = (2 * (e > 0).float() - 1) * kept
        else:
            levels = network.levels(p, scale)
            z = network.quantiser.restored(network.quantiser.quantised(e, levels), levels)
        picture = network.decode(z).clamp(0, 1)
    wanted = multiscale_structural_similarity_index_measure(picture, x, data_range=1.0)
    assert 0 < wanted < 1
    assert ms_ssim(network, x, [0.8]) == [pytest.approx(float(wanted))]


def test_small_pictures_give_no_scales(photos: object, network: object) -> None:
    assert quality_scales(network.eval(), photos.valid_paths, 1.5) is None  # type: ignore[attr-defined]
