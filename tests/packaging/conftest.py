"""For the tests of the accelerator scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small graphs lose more to threads than they win."""
    import torch  # few of the tests here need it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def details(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob of two details of photographs, 96 x 80 pixels."""
    folder = tmp_path_factory.mktemp("details")
    for name, left, top in (("kodim03", 300, 100), ("kodim23", 100, 150)):
        with Image.open(ROOT / "assets" / f"{name}.png") as picture:
            detail = picture.convert("RGB").crop((left, top, left + 96, top + 80))
        detail.save(folder / f"{name}.png")
    return str(folder / "*.png")
