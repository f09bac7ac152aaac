"""Run a recipe: data, trainer, interruption, resume."""

from __future__ import annotations

import logging
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from cwic.errors import CheckpointError, TrainingError
from cwic_training.checkpoint import CheckpointWriter, check_resumable, load_checkpoint
from cwic_training.data import CropSampler, RandomCrops, ValidationPictures, find_pictures
from cwic_training.model import ModelConfig
from cwic_training.recipe import Recipe
from cwic_training.task import CodecTask

__all__ = ["FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """How a run ended: the step reached, whether it was stopped early, what it wrote."""

    steps: int
    stopped: bool
    folder: Path


def fit(
    config: ModelConfig,
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
) -> FitResult:
    """Train ``config`` by ``recipe`` and write checkpoints and logs into ``folder``.

    Args:
        config: shape of the network; ignored in favour of the checkpoint's by ``initial``.
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

    Raises:
        TrainingError: unusable pictures or options.
        CheckpointError: ``initial`` or ``resume`` cannot be used.
    """
    crops = RandomCrops(
        find_pictures(train_glob, "--train-glob"), recipe.crop, recipe.seed, memory_bytes
    )
    valid = ValidationPictures(find_pictures(valid_glob, "--valid-glob"))
    pl.seed_everything(recipe.seed, verbose=False)
    task = _task(config, recipe, initial)
    if resume is not None:
        check_resumable(resume)
    stop = _StopOnSignal()
    try:
        trainer = _trainer(recipe, folder, accelerator, progress, [stop], save_minutes)
    except (RuntimeError, ValueError) as exc:
        raise TrainingError(f"{exc}; choose another --accelerator or --precision") from exc
    train_loader = _CropLoader(crops, task, workers)
    with warnings.catch_warnings():
        # Few workers and one-picture validation batches are choices here, not oversights.
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*Checkpoint directory.*")
        warnings.filterwarnings("ignore", ".*isinstance.*LeafSpec.*")
        try:
            trainer.fit(
                task,
                datamodule=_Data(train_loader, DataLoader(valid, batch_size=1)),
                ckpt_path=resume,
                weights_only=True,
            )
        except (RuntimeError, KeyError) as exc:
            if resume is None:
                raise
            raise CheckpointError(
                f"{resume} does not fit this model ({exc}); resume with the options it began with"
            ) from exc
    return FitResult(trainer.global_step, stop.requested, folder)


def _task(config: ModelConfig, recipe: Recipe, initial: Path | None) -> CodecTask:
    if initial is None:
        return CodecTask(config, recipe)
    checkpoint = load_checkpoint(initial)
    task = CodecTask(checkpoint.config, recipe)
    task.network.load_state_dict(checkpoint.network().state_dict())
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
    return pl.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        accelerator=accelerator,
        devices=1,
        precision=recipe.precision,  # type: ignore[arg-type]
        val_check_interval=min(recipe.validate_every, recipe.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(str(folder), name="", version="tensorboard"),
        log_every_n_steps=50,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        callbacks=callbacks,
    )


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
        )


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

    Ending between two steps keeps the saved state exact: no half-applied update.
    """

    def __init__(self) -> None:
        self.requested = False
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.requested:
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous.clear()
