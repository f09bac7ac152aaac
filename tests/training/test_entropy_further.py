"""The entropy stage with ``--init``: the network of a release is trained further."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cwic.errors import CheckpointError
from cwic_training import entropy
from cwic_training.checkpoint import Checkpoint
from cwic_training.entropy import fit_entropy_model
from cwic_training.symbol_fit import SignFit, ValueFit

from .entropy_fits import FAST, HIGH, Fitted, fit_signs, valued


@pytest.fixture(scope="module")
def fitted(trained: Checkpoint, photos: Any) -> Fitted:
    return fit_signs(trained, photos.train_paths, photos.valid_paths)


@pytest.fixture(scope="module")
def fitted_values(photos: Any) -> Fitted:
    return fit_entropy_model(valued(), photos.train_paths, photos.valid_paths, **FAST)


@pytest.fixture(params=["signs", "values"])
def trained_before(
    request: pytest.FixtureRequest,
    trained: Checkpoint,
    fitted: Fitted,
    fitted_values: Fitted,
) -> tuple[Checkpoint, Fitted]:
    """A network, and what was fitted to it."""
    return (trained, fitted) if request.param == "signs" else (valued(), fitted_values)


def test_what_was_fitted_is_what_goes_on(
    trained_before: tuple[Checkpoint, Fitted],
) -> None:
    network = trained_before[0].network()
    before = trained_before[1][0].entropy
    values = network.quantiser is not None
    fit = ValueFit(network, 16) if values else SignFit(network.config, 16)
    fit.start_from(before)
    for name, table in fit.net.integers().items():
        assert np.array_equal(table, before[name].numpy()), name


def test_a_step_of_training_further_keeps_what_was_learnt(
    trained_before: tuple[Checkpoint, Fitted],
    photos: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And from noise nothing is known after one."""
    checkpoint, (release, report) = trained_before
    if checkpoint.config.codes == "signs":
        monkeypatch.setattr(entropy, "_scales", lambda _: HIGH)
    options = {**FAST, "steps": 1}
    paths = photos.train_paths, photos.valid_paths
    further = fit_entropy_model(checkpoint, *paths, initial=release, **options)[1]
    anew = fit_entropy_model(checkpoint, *paths, **options)[1]
    assert further.codes_bpp < report.codes_bpp + 0.3 * (anew.codes_bpp - report.codes_bpp)


@pytest.mark.parametrize("kind", ["signs", "values"])
def test_what_was_fitted_to_another_model_is_refused(
    kind: str,
    trained: Checkpoint,
    fitted: Fitted,
    fitted_values: Fitted,
    photos: Any,
) -> None:
    pairs = {"signs": (trained, fitted_values[0]), "values": (valued(), fitted[0])}
    checkpoint, other = pairs[kind]
    paths = photos.train_paths[:1], photos.valid_paths[:1]
    with pytest.raises(CheckpointError, match="has no own that fits.*; name a release of the same"):
        fit_entropy_model(checkpoint, *paths, initial=other, **FAST)
    own = fitted[0] if kind == "signs" else fitted_values[0]
    wider = {**FAST, "hidden": 17}
    with pytest.raises(CheckpointError, match="that fits this model; name a release"):
        fit_entropy_model(checkpoint, *paths, initial=own, **wider)
