"""Fixtures shared by all tests: the photographs in the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def photo_path() -> Path:
    return ROOT / "assets" / "kodim23.png"


@pytest.fixture(scope="session")
def photo(photo_path: Path) -> NDArray[np.uint8]:
    """A real photograph, uint8 [512, 768, 3]."""
    return np.array(Image.open(photo_path).convert("RGB"))
