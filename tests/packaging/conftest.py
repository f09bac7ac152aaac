"""For the tests of the accelerator scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def details(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A glob of two details of photographs, 96 x 80 pixels."""
    folder = tmp_path_factory.mktemp("details")
    for name, left, top in (("kodim03", 300, 100), ("kodim23", 100, 150)):
        with Image.open(ROOT / "assets" / f"{name}.png") as picture:
            detail = picture.convert("RGB").crop((left, top, left + 96, top + 80))
        detail.save(folder / f"{name}.png")
    return str(folder / "*.png")
