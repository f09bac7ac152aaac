"""The network of values in float32: refused where sums are not exact, else as whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.runtime.tiny_values import FIRST_LEVELS, LEVELS, SIZES, N, Tensors, copied, of

from cwic.entropy_model import ContextModel
from cwic.errors import BundleError
from cwic.quantiser import LARGEST
from cwic.value_model import ValueModel

# ---- Sums that float32 holds ----------------------------------------------------------------


INEXACT = {
    "a bias of the middle": of("1.middle_bias", 2, 1 << 24),
    "a negative one": of("0.middle_bias", 2, -(1 << 24)),
    "the lowest number": of("0.middle_bias", 0, -(1 << 31)),
    "a bias of the means": of("3.last_bias", 1, 1 << 24),
    "a bias of the places": of("3.last_bias", 3, -(1 << 24)),
    "a level": of("2.level", (4, 1), 1 << 20),
    "a level that cannot occur": of("2.level", (0, 1), 1 << 20),
    "a kind of pass": of("2.kind", (6, 0), -(1 << 20)),
}


@pytest.mark.parametrize("damage", INEXACT.values(), ids=INEXACT.keys())
def test_sums_that_float32_does_not_hold_are_refused(
    tensors: Tensors, damage: Callable[[Tensors], None]
) -> None:
    values = copied(tensors)
    damage(values)
    with pytest.raises(BundleError, match=r"can reach \d{8,}.*train the entropy model again$"):
        ContextModel(values, N, LEVELS)


@pytest.mark.parametrize("largest", [0, 1])
def test_the_bound_is_2_to_the_24(tensors: Tensors, largest: int) -> None:
    """The last sum that is exact is 2^24 - 1, with 255 on every hidden unit and the rounding."""
    values = copied(tensors)
    weights = 255 * np.abs(values["values.2.middle"].astype(int)).sum(0).max()
    values["values.2.middle_bias"][0] = (1 << 24) - 1 - 32 - weights + largest
    if largest:
        with pytest.raises(BundleError, match="can reach 16777216, more than float32"):
            ValueModel(values, N, LEVELS)
    else:
        ValueModel(values, N, LEVELS)


@pytest.mark.parametrize("above", [0, 1])
def test_sums_of_features_count_as_large_as_they_are(tensors: Tensors, above: int) -> None:
    """Three features for twelve neighbours, two for the eight positions around, in quarters."""
    values, g = copied(tensors), 2
    own, earlier, kind = (
        np.abs(values[f"values.{g}.{name}"].astype(int)) for name in ("own", "earlier", "kind")
    )
    inner, third = 12 * SIZES[g], len(earlier) // 3
    most = (own[:, :inner].sum(1) + 3 * own[:, inner:].sum(1)).max()
    most += (earlier[: 2 * third].sum(0) + 2 * earlier[2 * third :].sum(0)).max()
    most = int(values["values.features"].max()) * most + 16 * (kind.max() + 1)
    largest = ((1 << 24) - 1 - most) // 16
    values[f"values.{g}.level"][1, 0] = largest + above
    if above:
        with pytest.raises(BundleError, match="more than float32"):
            ValueModel(values, N, LEVELS)
    else:
        ValueModel(values, N, LEVELS)


def extreme_model(tensors: Tensors, sums: bool) -> Tensors:
    """Every weight at an end of its type; with ``sums`` next to the bound."""
    rng = np.random.default_rng(5)
    values = copied(tensors)
    values["values.features"][:] = np.minimum(np.arange(128), 127)
    most = {"level": 260_000, "kind": 260_000, "middle_bias": 16_500_000, "last_bias": 16_500_000}
    for g in range(len(SIZES)):
        for name in ("own", "earlier", "middle", "last", "line"):
            array = values[f"values.{g}.{name}"]
            array[...] = rng.choice(np.array([-128, 127], np.int8), array.shape)
        for name, end in most.items():
            array = values[f"values.{g}.{name}"]
            # Sums of the first layer are large: else nothing of what is added to them is seen.
            limit = end if sums else 20_000
            array[...] = rng.integers(-limit, limit, array.shape)
    return values


def literal(
    values: Tensors, g: int, kind: int, own: Any, earlier: Any, around: Any, level: int
) -> tuple[list[int], list[int]]:
    """The formulas in int64 for one position: rows and c."""
    prefix = f"values.{g}."
    t = {k.removeprefix(prefix): v.astype(np.int64) for k, v in values.items() if prefix in k}
    table = values["values.features"].astype(np.int64)

    def features(q: Any) -> Any:
        return table[np.abs(q)] * np.sign(q)

    def sums(q: Any) -> Any:
        return (table[np.abs(q)].sum(0) + 2) // 4

    size, last = SIZES[g], t["last_bias"]
    v = np.concatenate([features(earlier), table[np.abs(earlier)], sums(around)])
    z = 16 * (t["level"][level] + t["kind"][kind]) + 8 + v @ t["earlier"]
    line = np.zeros(size, np.int64)
    if kind < 6:
        u = np.concatenate([features(own.reshape(-1)), sums(own)])
        z = z + u @ t["own"][kind]
        line = (own * t["line"][kind]).sum(0)
    a1 = (z >> 4).clip(0, 255)
    a2 = ((a1 @ t["middle"] + t["middle_bias"] + 32) >> 6).clip(0, 255)
    z = (a2 @ t["last"] + last + 32) >> 6
    m = (2 * z[:size] + line + 4) >> 3
    rows = 8 * (((z[size:] + 2) >> 2) + 32).clip(0, 63) + m % 8
    return rows.tolist(), (m // 8).clip(-LARGEST, LARGEST).tolist()


@pytest.mark.parametrize("kind", range(7))
@pytest.mark.parametrize("model_of", ["noise", "extreme weights", "extreme sums"])
def test_float32_gives_what_whole_numbers_give(tensors: Tensors, kind: int, model_of: str) -> None:
    """At the bound too, where a rounded sum would be next to the right one."""
    values = tensors if model_of == "noise" else extreme_model(tensors, model_of == "extreme sums")
    model = ValueModel(values, N, LEVELS)
    rng = np.random.default_rng(kind)
    different = set()
    for g, size in enumerate(SIZES):
        first = sum(SIZES[:g])
        wide = rng.integers(0, 2, (200, 1, 1)) * 125 + 2  # rows of small values, and of any
        own = rng.integers(-wide, wide + 1, (200, 12, size)) * (kind < 6)
        own[:9] = np.sign(own[:9]) * LARGEST
        earlier = rng.integers(-wide[:, 0], wide[:, 0] + 1, (200, first))
        around = rng.integers(-wide, wide + 1, (200, 8, first))
        levels = rng.integers(FIRST_LEVELS[g], LEVELS + 1, 200).astype(np.uint8)
        parts = [model._features[part.astype(np.int8).view(np.uint8)] for part in (own, earlier)]
        sizes = np.abs(model._features[around.astype(np.int8).view(np.uint8)]).astype(int)
        far = ((sizes.sum(1) + 2) // 4).astype(np.uint8)
        group = model._groups[g]
        rows, centres = group.predicted(
            parts[0].reshape(-1, size),
            own.astype(np.int8).reshape(-1, size),
            np.arange(200 * 12).reshape(200, 12),
            group.of_earlier(parts[1], far),
            levels,
            [(kind, slice(None))],
        )
        for i in range(200):
            expected = literal(values, g, kind, own[i], earlier[i], around[i], int(levels[i]))
            assert (rows[i].tolist(), centres[i].tolist()) == expected
            different.add(str(expected))
    assert len(different) > (50 if kind < 6 else 3)  # the first pass has no neighbours


def test_features_of_every_value(tensors: Tensors, value_model: ValueModel) -> None:
    table = tensors["values.features"].astype(int)
    values = np.arange(-LARGEST, LARGEST + 1)
    found = value_model._features[values.astype(np.int8).view(np.uint8)]
    assert np.array_equal(found, np.sign(values) * table[np.abs(values)])
