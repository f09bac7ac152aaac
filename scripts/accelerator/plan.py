"""How many training steps fit into a time, from what a short probe measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch

from cwic.errors import TrainingError

__all__ = ["PROBE_STEPS", "Clock", "Plan"]

_WARM_UP_STEPS = 10
PROBE_STEPS = 20
"""At least so many steps are measured."""
_RESERVE = 0.05
"""Share of the time that is kept back: steps, validations and disks are not equally fast."""


class Clock(pl.Callback):
    """Measures a run, and ends it after a probe or at a time.

    Args:
        probe_s: end after so many seconds of measured steps, and :data:`PROBE_STEPS` of them.
        ends: end after the step in which the clock shows this.
        now: the clock, in seconds.
    """

    def __init__(
        self,
        *,
        probe_s: float | None = None,
        ends: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe_s, self._ends, self._now = probe_s, ends, now
        self.first_step = 0
        self.started = now()
        self.ready_s = 0.0
        """From making this to the first step."""
        self.steps = 0
        """Those that were measured, after some to warm up."""
        self.steps_s = 0.0
        self.validations_s: list[float] = []
        self.late = False
        """Whether the run was ended by ``ends``."""
        self._done = 0
        self._mark = self._validating = self._paused_s = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_step = trainer.global_step
        self.ready_s = self._now() - self.started

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._done += 1
        if self._done == _WARM_UP_STEPS:
            self._mark = self._finished(trainer)
            self._paused_s = 0.0
        elif self._done > _WARM_UP_STEPS and self._probe_s is not None:
            self.steps = self._done - _WARM_UP_STEPS
            spent_s = self._now() - self._mark - self._paused_s
            if self.steps >= PROBE_STEPS and spent_s >= self._probe_s:
                self.steps_s = self._finished(trainer) - self._mark - self._paused_s
                trainer.should_stop = True
        if self._ends is not None and self._now() >= self._ends and not trainer.should_stop:
            self.late = trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validating = self._finished(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validations_s.append(self._finished(trainer) - self._validating)
        self._paused_s += self.validations_s[-1]

    def _finished(self, trainer: pl.Trainer) -> float:
        """The time when the device has done what it was given."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        return self._now()


@dataclass(frozen=True)
class Plan:
    """A run that fills its time.

    Attributes:
        first_step: where the whole run began: 0, or that of the state it went on from.
        probe_steps: steps that the probe took.
        steps: the number of the last step.
        step_s, validation_s: as the probe measured them.
        cooldown: fraction of ``steps``, as a recipe has it.
    """

    first_step: int
    probe_steps: int
    steps: int
    step_s: float
    validation_s: float
    cooldown: float

    @classmethod
    def of(
        cls, probe: Clock, done: int, left_s: float, validate_every: int, cooldown: float
    ) -> Plan:
        """The longest run that ends in time.

        Args:
            probe: of a run that has ended.
            done: number of the last step of it.
            left_s: seconds from now.
            validate_every: steps between validations.
            cooldown: fraction of the steps of both runs together, not of those before them.

        Raises:
            TrainingError: nothing is left to train in.
        """
        step_s = probe.steps_s / probe.steps
        validation_s = max(probe.validations_s)
        # The second run gets ready as the probe did, and its last step is validated as well.
        usable_s = left_s * (1 - _RESERVE) - probe.ready_s - validation_s
        more = int(usable_s / (step_s + validation_s / validate_every))
        if more < 1:
            raise TrainingError(
                f"a step takes {step_s:.3f} s, a validation {validation_s:.1f} s and getting ready "
                f"{probe.ready_s:.1f} s: the time is over before training begins; give more "
                "--minutes or fewer --valid-glob pictures"
            )
        steps = done + more
        own = steps - probe.first_step
        return cls(
            probe.first_step,
            done - probe.first_step,
            steps,
            step_s,
            validation_s,
            min(cooldown * own, more) / steps,
        )
