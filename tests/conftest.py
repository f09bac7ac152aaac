"""Fixtures shared by all tests: a photograph in the repository, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks are slower on several threads, much slower on a busy machine."""
    import torch  # which tests of the runtime do without

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
