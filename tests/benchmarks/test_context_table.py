"""The table of contexts: every kind is trained and measured on a real model's codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import context_table
from PIL import Image

from cwic.errors import TrainingError
from cwic_training.checkpoint import Checkpoint, save_checkpoint
from cwic_training.config import ModelConfig
from cwic_training.model import CodecNetwork

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _one_thread(one_thread: None) -> None:
    """Small networks only."""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    with Image.open(ROOT / "assets" / "kodim23.png") as picture:
        picture.crop((100, 100, 372, 372)).save(tmp_path / "a.png")
    return [tmp_path / "a.png"]


def test_context_predicts_what_none_does_not(
    pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a  none", "i  c and own group, nine passes, 12 neighbours"]
    chosen = {name: context_table.CONTEXTS[name] for name in names}
    monkeypatch.setattr(context_table, "CONTEXTS", chosen)
    said: list[str] = []
    result = context_table.measure(
        ROOT / "models" / "nano-signs.safetensors", pictures, pictures, 40, said.append
    )
    none, known = result["bits_per_code"].values()
    assert none.keys() == known.keys() == {"low", "middle", "high"}
    for rate in none:
        assert 0.9 < none[rate] < 1.02
    assert known["high"] < 0.97 * none["high"]
    assert len(said) == 2


def test_values_are_refused(pictures: list[Path], tmp_path: Path) -> None:
    config = ModelConfig(
        n=8, levels=4, width=16, hidden=16, encoder_blocks=0, decoder_blocks=0, codes="values"
    )
    path = tmp_path / "values.safetensors"
    checkpoint = Checkpoint(config, CodecNetwork(config).state_dict(), {"stage": "importance"})
    save_checkpoint(path, checkpoint)
    with pytest.raises(TrainingError, match="no signs; use for example nano-signs$"):
        context_table.measure(path, pictures, pictures, 1, print)
