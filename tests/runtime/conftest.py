"""Shipped models, loaded once: the default one, of values, and one of signs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.runtime.tiny_values import Tensors, arrays, golden_model, read_golden

import cwic
from cwic.value_model import ValueModel

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


@pytest.fixture(scope="session")
def tensors() -> Tensors:
    """Of :mod:`tests.runtime.tiny_values`; tests that change them work on copies."""
    return arrays(read_golden())


@pytest.fixture(scope="session")
def value_model() -> ValueModel:
    return golden_model()
