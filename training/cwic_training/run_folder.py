"""The callback that fills the folder of a run.

It holds ``last.safetensors`` and ``best.safetensors`` (:mod:`cwic_training.checkpoint`) and
``last.ckpt``, the trainer's whole state to resume from (:mod:`cwic_training.resume`). Each is
written under a temporary name and renamed.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cwic.errors import TrainingError
from cwic.files import replacing
from cwic_training.checkpoint import save_checkpoint

__all__ = ["CheckpointWriter"]


class CheckpointWriter(pl.Callback):
    """Writes the best weights after a validation, and the last state by the clock and at the end.

    An exception writes nothing: in the middle of a step the state is no longer one that an
    uninterrupted run passes through, so the last good one stays.

    Args:
        folder: run folder.
        minutes: time between two writes of the last state.
    """

    def __init__(self, folder: Path, minutes: float = 5.0) -> None:
        self.folder, self.interval_s = folder, minutes * 60
        self.best = float("inf")
        self.written_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if time.monotonic() - self.written_at >= self.interval_s:
            self.write_last(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        score = float(trainer.callback_metrics["val/loss"])
        if not math.isfinite(score):
            raise TrainingError(
                f"training diverged before step {trainer.global_step} (loss {score}); "
                "start again with smaller --muon-lr and --adam-lr"
            )
        if score < self.best:
            self.best = score
            save_checkpoint(self.folder / "best.safetensors", pl_module.checkpoint())

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.write_last(trainer, pl_module)

    def write_last(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write ``last.ckpt`` and ``last.safetensors`` now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / "last.ckpt") as temporary:
            trainer.save_checkpoint(temporary)
        save_checkpoint(self.folder / "last.safetensors", pl_module.checkpoint())
        self.written_at = time.monotonic()
