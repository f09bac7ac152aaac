"""The golden model of values, n = 8 in four groups, L = 4, six hidden units; content for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.quantiser import LARGEST, ZERO
from cwic.value_model import ValueModel

Tensors: TypeAlias = dict[str, NDArray[Any]]
Content: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]

GOLDEN = Path(__file__).with_name("golden")
SIZES, FIRST_LEVELS = (1, 3, 2, 2), (1, 2, 2, 4)
N, LEVELS, HIDDEN = 8, 4, 6
SHARED = {
    "values.sizes": np.uint16,
    "values.first_levels": np.uint8,
    "values.steps": np.float32,
    "values.bits": np.float32,
    "values.features": np.uint8,
    "values.cumulative": np.uint16,
}
OF_A_GROUP = {
    "own": np.int8,
    "earlier": np.int8,
    "level": np.int32,
    "kind": np.int32,
    "middle": np.int8,
    "middle_bias": np.int32,
    "last": np.int8,
    "last_bias": np.int32,
    "line": np.int8,
}
DTYPES: dict[str, Any] = SHARED | {
    f"values.{g}.{name}": dtype for g in range(len(SIZES)) for name, dtype in OF_A_GROUP.items()
}


@lru_cache
def read_golden() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((GOLDEN / "values.json").read_text())
    return values


def arrays(golden: dict[str, Any]) -> Tensors:
    tensors = {name: np.array(golden["tensors"][name], dtype) for name, dtype in DTYPES.items()}
    tensors["values.0.earlier"] = tensors["values.0.earlier"].reshape(0, HIDDEN)
    tensors["levels.frequencies"] = np.array(golden["tensors"]["levels.frequencies"], np.uint16)
    return tensors


@lru_cache
def golden_model() -> ValueModel:
    return ValueModel(arrays(read_golden()), N, LEVELS)


def copied(tensors: Tensors) -> Tensors:
    return {name: array.copy() for name, array in tensors.items()}


def kept(levels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which values the levels have, [n, h, w]."""
    return np.repeat(FIRST_LEVELS, SIZES)[:, None, None] <= levels


def masked(codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(kept(levels), codes, ZERO).astype(np.uint8)


def some_content(size: tuple[int, int], seed: int = 0, spread: float = 2.0) -> Content:
    """Values around 0, some of them far away, and levels."""
    rng = np.random.default_rng(seed)
    values = np.rint(rng.standard_t(1.5, (N, *size)) * spread).clip(-LARGEST, LARGEST)
    levels = rng.integers(0, LEVELS + 1, size).astype(np.uint8)
    return masked((values + ZERO).astype(np.uint8), levels), levels


def of(name: str, place: Any, value: float) -> Callable[[Tensors], None]:
    def damage(tensors: Tensors) -> None:
        tensors[f"values.{name}"][place] = value

    return damage
