"""The arrays of a model of values: what is missing, of another form, or cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save
from tests.runtime.symbols import decoded
from tests.runtime.tiny_values import DTYPES, LEVELS, N, Tensors, copied, of, some_content

from cwic.entropy_model import ContextModel
from cwic.errors import BundleError
from cwic.value_model import ValueModel

# ---- Damaged models -------------------------------------------------------------------------


FORMS: dict[str, Callable[[NDArray[Any]], Any]] = {
    "one less": lambda a: a[..., :-1],
    "one row more": lambda a: np.concatenate([a, np.zeros((1, *a.shape[1:]), a.dtype)]),
    "of another rank": lambda a: a[None],
    "a number": lambda a: a.reshape(-1)[:1].sum(dtype=a.dtype).reshape(()),
    "of doubles": lambda a: a.astype(np.float64),
    "of wider numbers": lambda a: a.astype(np.int64),
}


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "values.sizes"])
def test_a_missing_array_is_named(tensors: Tensors, name: str) -> None:
    values = {k: v for k, v in tensors.items() if k != name}
    with pytest.raises(BundleError, match=f"lacks {name}; export the model again$"):
        ContextModel(values, N, LEVELS)


def test_without_its_sizes_it_is_no_model_of_values(tensors: Tensors) -> None:
    values = {k: v for k, v in tensors.items() if k != "values.sizes"}
    with pytest.raises(BundleError, match="; export the model again$"):
        ContextModel(values, N, LEVELS)
    with pytest.raises(BundleError, match=r"lacks values\.sizes; export the model again$"):
        ValueModel(values, N, LEVELS)


@pytest.mark.parametrize("name", DTYPES)
def test_arrays_of_another_form_are_refused(tensors: Tensors, name: str) -> None:
    for form in FORMS.values():
        values = tensors | {name: form(tensors[name])}
        with pytest.raises(BundleError, match="; export the model again$") as error:
            ContextModel(values, N, LEVELS)
        assert "\n" not in str(error.value)


DAMAGE: dict[str, tuple[str, Callable[[Tensors], None]]] = {
    "sizes that are too few": ("sizes", of("sizes", 1, 2)),
    "sizes that are too many": ("sizes", of("sizes", 1, 4)),
    "a group of none": ("sizes", of("sizes", slice(None), [0, 4, 2, 2])),
    "first levels that fall": ("first_levels", of("first_levels", slice(None), [1, 3, 2, 4])),
    "a first level 0": ("first_levels", of("first_levels", 0, 0)),
    "a first level above L": ("first_levels", of("first_levels", 3, 5)),
    "a step 0": ("steps", of("steps", 2, 0)),
    "a negative step": ("steps", of("steps", 2, -1)),
    "a step that is no number": ("steps", of("steps", 4, np.nan)),
    "an infinite step": ("steps", of("steps", 1, np.inf)),
    "a step that float32 cannot invert": ("steps", of("steps", 4, 1e-42)),
    "a step below fixed point": ("steps", of("steps", 4, 0.9 / 1024)),
    "a step beyond every value": ("steps", of("steps", 1, 65)),
    "a step of level 0": ("steps", of("steps", 0, 1)),
    "bits that fall": ("bits", of("bits", 2, 41)),
    "bits that are no number": ("bits", of("bits", 2, np.nan)),
    "infinite bits": ("bits", of("bits", 4, np.inf)),
    "bits of level 0": ("bits", of("bits", 0, 1)),
    "no bits": ("bits", of("bits", slice(None), 0)),
    "a feature of 0": ("features", of("features", 0, 1)),
    "features that fall": ("features", of("features", 7, 0)),
    "a feature that is no int8": ("features", of("features", slice(100, None), 128)),
    "a table that does not begin at 0": ("cumulative", of("cumulative", (5, 0), 1)),
    "a table that falls": ("cumulative", of("cumulative", (5, 40), 0)),
    "a table that leaves the others nothing": ("cumulative", of("cumulative", (511, 63), 0)),
    "a table that is all for the others": ("cumulative", of("cumulative", 100, 0)),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_arrays_are_refused(tensors: Tensors, case: str) -> None:
    values = copied(tensors)
    name, damage = DAMAGE[case]
    damage(values)
    with pytest.raises(BundleError, match=rf"values\.{name} is damaged; export the model again$"):
        ContextModel(values, N, LEVELS)


@pytest.mark.parametrize(("groups", "n"), [(0, N), (256, 256)])
def test_no_group_and_more_than_a_byte_counts_are_refused(
    tensors: Tensors, groups: int, n: int
) -> None:
    values = tensors | {
        "values.sizes": np.ones(groups, np.uint16),
        "values.first_levels": np.ones(groups, np.uint8),
    }
    with pytest.raises(BundleError, match=r"values\.sizes is damaged; export the model again$"):
        ContextModel(values, n, LEVELS)


def test_a_network_without_hidden_units_is_refused(tensors: Tensors) -> None:
    values = tensors | {"values.0.middle": np.zeros((0, 0), np.int8)}
    with pytest.raises(BundleError, match=r"middle does not fit the model; export the model"):
        ContextModel(values, N, LEVELS)


@pytest.mark.parametrize(("n", "levels"), [(16, 4), (7, 4), (8, 5), (8, 3)])
def test_a_model_of_another_shape_is_refused(tensors: Tensors, n: int, levels: int) -> None:
    tensors = {k: v for k, v in tensors.items() if k != "levels.frequencies"}
    with pytest.raises(BundleError, match="; export the model again$"):
        ValueModel(tensors, n, levels)


def test_tables_at_their_limits_are_taken(tensors: Tensors) -> None:
    """All that is possible for the others, or next to nothing; steps at both ends."""
    values = copied(tensors)
    values["values.cumulative"][:256, 1:] = 1
    values["values.cumulative"][256:] = 0
    values["values.cumulative"][256:, 32:] = 65535
    values["values.steps"][1:] = [64, 1, 0.5, 1 / 1024]
    model, (codes, levels) = ValueModel(values, N, LEVELS), some_content((9, 11))
    data = model.encode(codes, levels).to_bytes(1)
    assert np.array_equal(decoded(model, data, 1, levels), codes)


def test_reading_is_the_inverse_of_safetensors(tensors: Tensors) -> None:
    codes, levels = some_content((9, 9))
    direct, read = (
        ContextModel(tensors, N, LEVELS),
        ContextModel.from_bytes(save(tensors), N, LEVELS),
    )
    assert isinstance(read.codes, ValueModel)
    a, b = (model.encode(codes, levels) for model in (direct, read))
    assert a.codes.to_bytes(2) == b.codes.to_bytes(2)
    assert a.levels.to_bytes(2) == b.levels.to_bytes(2)
