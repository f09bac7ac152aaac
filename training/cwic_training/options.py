"""Options of ``cwic train main`` and ``importance``, by name, as the library takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import DEFAULT_PRESETS, PRESETS
from cwic_training.recipe import Recipe
from cwic_training.resume import resumed_config

__all__ = ["fit_arguments", "recipe_from"]


def recipe_from(stage: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a stage; options that are no fields of it are left out.

    Options that are None have the default that suits the codes of the model.

    Raises:
        TrainingError: as :class:`~cwic_training.recipe.Recipe`.
        CheckpointError: the model is that of a checkpoint that cannot be read.
    """
    names = Recipe.__dataclass_fields__
    fields = {k: v for k, v in options.items() if k in names}
    return Recipe.suited_to(_codes(stage, options), stage, **fields)


def _codes(stage: str, options: Mapping[str, Any]) -> str:
    """Which codes the model has that is to be trained."""
    if options["model"] is not None:
        return PRESETS[options["model"]].codes
    if options["initial"] is not None:
        return load_checkpoint(options["initial"]).config.codes
    if options["resume"] is not None:
        return resumed_config(options["resume"]).codes
    return PRESETS[DEFAULT_PRESETS[stage]].codes


def fit_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`cwic_training.fit.fit` but the recipe, which has the other options."""
    model, memory_gb = options["model"], options["memory_gb"]
    alike = (
        *("train_glob", "valid_glob", "folder", "initial", "resume"),
        *("workers", "save_minutes", "accelerator", "progress"),
    )
    return {
        "config": None if model is None else PRESETS[model],
        "memory_bytes": None if memory_gb is None else int(memory_gb * 1e9),
        **{name: options[name] for name in alike},
    }
