"""Train for a given time: a probe measures the steps, then one run fills what is left.

``python -m scripts.accelerator.train``; docs/accelerator.md says how the time is divided.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch
from benchmarks.environment import describe
from scripts.accelerator.plan import Clock, Plan

from cwic.errors import CwicError, TrainingError
from cwic.files import write_bytes
from cwic_training.cli import train as _train
from cwic_training.fit import FitResult, fit
from cwic_training.options import fit_arguments, recipe_from
from cwic_training.recipe import Recipe

__all__ = ["RESULT", "main", "train_for"]

RESULT = "accelerator.json"
_PROBE_SHARE = 0.05
_LONGEST_PROBE_S = 30.0
_ENDLESS = 1_000_000_000
"""Steps of a recipe that the clock ends."""
_now = time.monotonic

_HOW = """The package need not be installed:
PYTHONPATH=runtime:training:export python -m scripts.accelerator.train --minutes 15
--init models/nano.safetensors -o RUN --train-glob 'photos/*.jpg' --valid-glob 'held-out/*.png'
--workers 8. The other options are those of `cwic train importance`."""


def train_for(minutes: float, options: dict[str, Any], commit: str | None = None) -> dict[str, Any]:
    """Train stage `importance` so that the whole call takes ``minutes`` and the rates reach zero.

    Args:
        minutes: everything, decoding the pictures included.
        options: those of `cwic train importance`, by name, without ``steps``.
        commit: to record where there is no git.

    Returns:
        What is written to ``accelerator.json`` in the run folder.

    Raises:
        CwicError: as :func:`cwic_training.fit.fit`; or the time is too short.
    """
    started = _now()
    if not minutes > 0:
        raise TrainingError(f"--minutes {minutes:g} is no time to train; use for example 15")
    total_s = 60 * minutes
    folder: Path = options["folder"]
    # Constant rates: the run that goes on from here decides where they begin to fall.
    recipe = recipe_from("importance", {**options, "steps": _ENDLESS, "cooldown": 0.0})
    probe = Clock(probe_s=min(_LONGEST_PROBE_S, _PROBE_SHARE * total_s), now=_now)
    result = _fit(recipe, options, probe)
    plan = clock = None
    if not result.stopped:
        left_s = total_s - (_now() - started)
        plan = Plan.of(probe, result.steps, left_s, recipe.validate_every, options["cooldown"])
        # An overrun ends with the validation that Lightning does before it stops.
        clock = Clock(ends=started + total_s - plan.validation_s, now=_now)
        result = _fit(
            dataclasses.replace(recipe, steps=plan.steps, cooldown=plan.cooldown),
            {**options, "initial": None, "resume": folder / "last.ckpt"},
            clock,
        )
    finished = plan is not None and result.steps == plan.steps
    about = describe()
    about["commit"] = about["commit"] or commit
    facts = {
        "format": "cwic-accelerator-train/1",
        **about,
        "device": _device(options["accelerator"]),
        "minutes": minutes,
        "seconds": round(_now() - started, 1),
        "steps": result.steps,
        "finished": finished,
        "interrupted": result.stopped,
        "late": clock is not None and clock.late and not finished,
        "plan": None if plan is None else asdict(plan),
    }
    write_bytes(folder / RESULT, (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _fit(recipe: Recipe, options: dict[str, Any], clock: Clock) -> FitResult:
    return fit(recipe=recipe, callbacks=[clock], **fit_arguments(options))


def _device(accelerator: str) -> str:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "cpu"


def _parameters() -> list[click.Parameter]:
    """Those of `cwic train importance`, on a GPU unless told otherwise, with a time for steps."""
    own: list[click.Parameter] = [
        click.Option(["--minutes"], type=float, required=True, help="For all of it."),
        click.Option(["--commit"], help="To record where there is no git."),
    ]
    for parameter in _train.commands["importance"].params:
        if parameter.name == "steps":
            continue
        parameter = copy.copy(parameter)
        if parameter.name == "accelerator":
            parameter.default = "cuda"
        own.append(parameter)
    return own


def _run(minutes: float, commit: str | None, **options: Any) -> int:
    facts = train_for(minutes, options, commit)
    click.echo(
        f"{facts['steps']} steps in {facts['seconds']:.0f} s on {facts['device']}; "
        f"{'finished' if facts['finished'] else 'ended early'}; "
        f"weights and {RESULT} in {options['folder']}"
    )
    return 0 if facts["finished"] else 1


def main(argv: Sequence[str] | None = None) -> int:
    """0: the run reached its end. 1: it did not, or an input is bad."""
    command = click.Command(
        "python -m scripts.accelerator.train",
        callback=_run,
        params=_parameters(),
        help=__doc__,
        epilog=_HOW,
    )
    try:
        status: int = command.main(argv, standalone_mode=False) or 0
    except CwicError as exc:
        print(f"accelerator: {exc}", file=sys.stderr)
        return 1
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    return status


if __name__ == "__main__":
    sys.exit(main())
