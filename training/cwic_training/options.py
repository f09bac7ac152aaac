"""Options of ``cwic train main`` and ``importance``, by name, as the library takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cwic_training.model import PRESETS
from cwic_training.recipe import Recipe

__all__ = ["fit_arguments", "recipe_from"]


def recipe_from(stage: str, options: Mapping[str, Any]) -> Recipe:
    """The recipe of a stage; options that are no fields of it are left out.

    Raises:
        TrainingError: as :class:`~cwic_training.recipe.Recipe`.
    """
    names = Recipe.__dataclass_fields__
    return Recipe(stage=stage, **{k: v for k, v in options.items() if k in names})


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
