"""Run a recipe: data, trainer, interruption, resume."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from cwic.errors import CheckpointError, TrainingError
from cwic_training.checkpoint import load_checkpoint
from cwic_training.config import DEFAULT_PRESETS, PRESETS, ModelConfig
from cwic_training.data import CropSampler, RandomCrops, ValidationPictures, find_pictures
from cwic_training.grow import grown
from cwic_training.recipe import Recipe
from cwic_training.resume import check_resumable
from cwic_training.run_folder import CheckpointWriter
from cwic_training.task import CodecTask

__all__ = ["FitResult", "fit"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class FitResult:
    """How a run ended: the step reached, whether it was stopped early, what it wrote."""

    steps: int
    stopped: bool
    folder: Path


def fit(
    config: ModelConfig | None,
    recipe: Recipe,
    *,
    train_glob: str,
    valid_glob: str,
    folder: Path,
    initial: Path | None = None,
    resume: Path | None = None,
    workers: int = 0,
    memory_bytes: int | None = None,
    save_minutes: float = 5.0,
    accelerator: str = "auto",
    progress: bool = True,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train ``config`` by ``recipe`` and write checkpoints and logs into ``folder``.

    SIGINT or SIGTERM ends the run after the current step and saves its state; that is a
    normal return with ``stopped`` set. A second SIGINT raises at once and saves nothing.

    Args:
        config: shape of the network; None takes that of ``initial`` or ``resume``, else that
            of :data:`~cwic_training.config.DEFAULT_PRESETS` for the stage.
            With ``initial`` it may be a larger one, see :mod:`cwic_training.grow`.
        recipe: hyperparameters.
        train_glob, valid_glob: photographs, see :func:`cwic_training.data.find_pictures`.
        folder: run folder; ``last.*`` and ``best.*`` in it are replaced.
        initial: checkpoint (.safetensors) whose weights to start from.
        resume: trainer state (last.ckpt) to continue exactly.
        workers: loader processes; 0 cuts crops in this process.
        memory_bytes: budget for decoded pictures; None means half of the free memory.
        save_minutes: time between two writes of the last state.
        accelerator: Lightning's name: auto, cpu, cuda.
        progress: whether to draw a progress bar.
        callbacks: further ones for the trainer.

    Raises:
        TrainingError: unusable pictures or options, or training diverged.
        CheckpointError: ``initial`` or ``resume`` cannot be used.
    """
    if initial is not None and resume is not None:
        raise TrainingError("a resumed run has its weights; leave out --init or --resume")
    if workers < 0:
        raise TrainingError(f"{workers} loader processes are not possible; use 0 or more")
    train_paths = find_pictures(train_glob, "--train-glob")
    valid_paths = find_pictures(valid_glob, "--valid-glob")
    pl.seed_everything(recipe.seed, verbose=False)
    task = _task(config, recipe, initial, resume)
    stop = _StopOnSignal(folder)
    trainer = _trainer(recipe, folder, accelerator, progress, [stop, *callbacks], save_minutes)
    crops = RandomCrops(train_paths, recipe.crop, recipe.seed, memory_bytes)
    valid = ValidationPictures(valid_paths)
    data = _Data(_CropLoader(crops, task, workers), DataLoader(valid, batch_size=1))
    with warnings.catch_warnings():
        # Few workers and one-picture validation batches are choices here, not oversights.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*isinstance.*LeafSpec.*")
        # The loader starts where the state stops, see CropSampler.
        warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
        try:
            trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
        except (KeyError, RuntimeError, TypeError, ValueError) as exc:
            if resume is None or stop.training:
                raise
            raise CheckpointError(
                f"{resume} is damaged or of another release ({exc}); use another copy"
            ) from exc
    steps = trainer.global_step
    return FitResult(steps, stop.requested and steps < recipe.steps, folder)


def _task(
    config: ModelConfig | None, recipe: Recipe, initial: Path | None, resume: Path | None
) -> CodecTask:
    if initial is not None:
        start = load_checkpoint(initial)
        config = config or start.config
        task = CodecTask(config, recipe)
        task.network.load_state_dict(grown(start, config).state_dict())
    elif resume is not None:
        task = CodecTask(check_resumable(resume, recipe), recipe)
    else:
        return CodecTask(config or PRESETS[DEFAULT_PRESETS[recipe.stage]], recipe)
    if config not in (None, task.network.config):
        raise CheckpointError(f"{initial or resume} holds another model; leave out --model")
    return task


def _trainer(
    recipe: Recipe,
    folder: Path,
    accelerator: str,
    progress: bool,
    callbacks: list[pl.Callback],
    save_minutes: float,
) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callbacks = [*callbacks, CheckpointWriter(folder, save_minutes)]
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return pl.Trainer(
            max_steps=recipe.steps,
            max_epochs=-1,
            accelerator=accelerator,
            devices=1,
            precision=recipe.precision,  # type: ignore[arg-type]
            val_check_interval=recipe.validate_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
            log_every_n_steps=min(50, recipe.steps),
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            callbacks=callbacks,
        )
    except OSError as exc:
        raise TrainingError(f"cannot write in {folder} ({exc}); choose another --out") from exc
    except (ImportError, MisconfigurationException, RuntimeError, ValueError) as exc:
        raise TrainingError(f"{exc}; choose another --accelerator or --precision") from exc


class _CropLoader:
    """Makes the training loader once the step to start from is known."""

    def __init__(self, crops: RandomCrops, task: CodecTask, workers: int) -> None:
        self.crops, self.task, self.workers = crops, task, workers

    def __call__(self) -> DataLoader[Any]:
        recipe = self.task.recipe
        sampler = CropSampler(self.task.steps_done * recipe.batch, recipe.steps * recipe.batch)
        return DataLoader(
            self.crops,
            batch_size=recipe.batch,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.task.device.type == "cuda",
            worker_init_fn=_leave_signals_to_trainer,
        )


def _leave_signals_to_trainer(worker: int) -> None:
    """A terminal's Ctrl-C reaches loader processes too; they must outlive the last step."""
    del worker
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Data(pl.LightningDataModule):
    def __init__(self, train: _CropLoader, valid: DataLoader[Any]) -> None:
        super().__init__()
        self._train, self._valid = train, valid

    def train_dataloader(self) -> DataLoader[Any]:
        return self._train()

    def val_dataloader(self) -> DataLoader[Any]:
        return self._valid


class _StopOnSignal(pl.Callback):
    """SIGINT or SIGTERM ends training after the current step; a second SIGINT at once.

    Ending between two steps keeps the saved state exact: no half-applied update. It ends
    without the validation that Lightning would do first: who sends SIGTERM waits for
    seconds only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requested = False
        self.training = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = True
        # Instead of Lightning's own handlers, which would raise; it restores the first ones.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise TrainingError(
                f"interrupted within a step; go on from the last saved one, {self.folder}/last.ckpt"
            )
        self.requested = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop_if_requested(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._stop_if_requested(trainer)

    def _stop_if_requested(self, trainer: pl.Trainer) -> None:
        if self.requested:
            trainer.limit_val_batches = 0
            trainer.should_stop = True
