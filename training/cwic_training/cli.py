"""``cwic train``: parse options, call :mod:`cwic_training.fit` or ``entropy``, print the result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cwic_training.average import averaged
from cwic_training.checkpoint import load_checkpoint, save_checkpoint
from cwic_training.config import DEFAULT_PRESETS, PRESETS
from cwic_training.data import find_pictures
from cwic_training.entropy import fit_entropy_model
from cwic_training.options import fit_arguments, recipe_from
from cwic_training.recipe import RATE_MODELS, VALUES_DEFAULTS, Recipe

__all__ = ["train"]

_DEFAULT = Recipe()
_F = TypeVar("_F", bound=Callable[..., Any])
_path = click.Path(path_type=Path)
_train_glob = click.option("--train-glob", "--train_glob", required=True, help="Photographs.")
_valid_glob = click.option("--valid-glob", "--valid_glob", required=True, help="Held-out pictures.")
_seed = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=_DEFAULT.seed, show_default=True
)


def _by_codes(option: str, stage: str = "importance", **attributes: Any) -> Callable[[_F], _F]:
    """An option whose default depends on what kind of codes the model has."""
    name = option.removeprefix("--").replace("-", "_")
    of_signs = getattr(_DEFAULT, name)
    shown = str(of_signs)
    if stage == "importance":
        shown = f"{VALUES_DEFAULTS[name]}; for models of signs {of_signs}"
    attributes = {"type": type(of_signs), **attributes}
    return click.option(option, show_default=shown, **attributes)


def _options(stage: str) -> Callable[[_F], _F]:
    """Options that `main` and `importance` share, with the defaults of that stage."""
    options: list[Callable[[_F], _F]] = [
        _train_glob,
        _valid_glob,
        click.option("-o", "--out", "folder", type=_path, required=True, help="Run folder."),
        click.option(
            "--model",
            "--preset",
            "model",
            type=click.Choice(sorted(PRESETS)),
            help=f"Default: that of --init or --resume, else {DEFAULT_PRESETS[stage]}.",
        ),
        click.option("--init", "initial", type=_path, help="Start from these weights."),
        click.option("--resume", type=_path, help="Continue a run: its last.ckpt."),
        click.option("--steps", default=_DEFAULT.steps, show_default=True),
        click.option("--cooldown", default=_DEFAULT.cooldown, show_default=True),
        _by_codes("--batch", stage, help="Crops per step."),
        _by_codes("--crop", stage, help="Side in pixels."),
        _by_codes("--muon-lr", stage),
        _by_codes("--adam-lr", stage),
        _seed,
        click.option(
            "--precision",
            type=click.Choice(["bf16-mixed", "32-true"]),
            default=_DEFAULT.precision,
            show_default=True,
        ),
        click.option("--validate-every", default=_DEFAULT.validate_every, show_default=True),
        click.option("--save-minutes", default=5.0, show_default=True),
        click.option("--workers", default=0, show_default=True, help="Loader processes."),
        click.option("--memory-gb", type=float, help="Budget for decoded pictures."),
        click.option("--accelerator", default="auto", show_default=True),
        click.option("--progress/--no-progress", default=True),
    ]

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def train() -> None:
    """Train a model: `main` (may be left out), `importance`, then `entropy`."""


@train.command("main")
@_options("main")
def main_stage(**options: Any) -> None:
    """Encoder and decoder with every code kept."""
    _run("main", options)


@train.command("importance")
@_options("importance")
@_by_codes("--rate-weight")
@_by_codes(
    "--rate-model",
    type=click.Choice(RATE_MODELS),
    help="What codes cost in the loss; values: for models of values, and the only one for them.",
)
@_by_codes(
    "--ms-ssim",
    help="Share of the pictures judged by MS-SSIM, 0 to 1; needs --crop 168 or more.",
)
@click.option("--rate-bpp", type=float, help="Fixed rate by the paper's hinge; default variable.")
@_by_codes("--scale-min")
@_by_codes("--scale-max")
def importance_stage(**options: Any) -> None:
    """Encoder, decoder and importance map together, for all rates or for one."""
    _run("importance", options)


@train.command("average")
@click.argument("checkpoints", type=_path, nargs=-1, required=True, metavar="CKPT CKPT...")
@click.option("-o", "--out", type=_path, required=True, help="Checkpoint, .safetensors.")
def average_of_runs(checkpoints: tuple[Path, ...], out: Path) -> None:
    """The mean of the weights of two or more runs that started from one model."""
    save_checkpoint(out, averaged([load_checkpoint(path) for path in checkpoints]))
    click.echo(f"mean of {len(checkpoints)} checkpoints in {out}")


@train.command("entropy")
@click.argument("checkpoint", type=_path, metavar="CKPT")
@_train_glob
@_valid_glob
@click.option("-o", "--out", type=_path, required=True, help="Release weights, .safetensors.")
@click.option(
    "--init",
    "initial",
    type=_path,
    help="Train the context network of this release further, such as models/nano.safetensors.",
)
@click.option("--steps", default=3000, show_default=True, help="Of the context network.")
@click.option("--batch", default=8, show_default=True, help="Crops of 256x256 pixels per step.")
@_seed
def entropy_stage(
    checkpoint: Path,
    train_glob: str,
    valid_glob: str,
    out: Path,
    initial: Path | None,
    steps: int,
    batch: int,
    seed: int,
) -> None:
    """Train the entropy model of the frozen network of CKPT (a run's .safetensors)."""
    trained = load_checkpoint(checkpoint)
    before = None if initial is None else load_checkpoint(initial)
    pictures = find_pictures(train_glob, "--train-glob")
    held_out = find_pictures(valid_glob, "--valid-glob")
    with click.progressbar(length=steps, label="context network", file=sys.stderr) as bar:
        release, report = fit_entropy_model(
            trained,
            pictures,
            held_out,
            initial=before,
            steps=steps,
            batch=batch,
            seed=seed,
            progress=bar.update,
        )
    save_checkpoint(out, release)
    click.echo(
        f"codes: {report.bits_per_code:.4f} bits per code ({report.bits_per_code_network:.4f} by "
        f"the network that was frozen), {report.codes_bpp:.4f} bpp"
    )
    click.echo(f"levels: {report.bits_per_level:.4f} bits per level, {report.levels_bpp:.4f} bpp")
    click.echo(f"a progressive stream takes {report.progressive_ratio:.4f} times as much")
    click.echo(f"weights and tables in {out}")


def _run(stage: str, options: dict[str, Any]) -> None:
    from cwic_training.fit import fit  # Lightning takes seconds to load

    result = fit(recipe=recipe_from(stage, options), **fit_arguments(options))
    if result.stopped:
        click.echo(
            f"stopped after step {result.steps}; go on with --resume {result.folder}/last.ckpt"
        )
    else:
        click.echo(f"{result.steps} steps done; weights in {result.folder}/best.safetensors")
