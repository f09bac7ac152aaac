"""Shipped models, loaded once: the default one, of values, and one of signs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import cwic

SIGNS = "nano-signs"


@pytest.fixture(scope="session")
def codec() -> cwic.Codec:
    return cwic.load()


@pytest.fixture(scope="session")
def signs_codec() -> cwic.Codec:
    return cwic.load(SIGNS)


@pytest.fixture(scope="session", params=["values", "signs"])
def either(
    request: pytest.FixtureRequest, codec: cwic.Codec, signs_codec: cwic.Codec
) -> cwic.Codec:
    """Each kind of codes in turn."""
    return {"values": codec, "signs": signs_codec}[request.param]


@pytest.fixture(scope="session")
def small(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A detail of the photograph whose sides are no multiples of 8."""
    return np.ascontiguousarray(photo[180:283, 300:437])


@pytest.fixture(scope="session")
def stream(codec: cwic.Codec, small: NDArray[np.uint8]) -> bytes:
    return codec.encode(small, quality=50)
