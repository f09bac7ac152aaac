"""From a checkpoint to a bundle: every form of the graphs, the tables and the manifest.

A bundle appears whole: it is built in a folder beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from cwic.bundle import CONTEXT_FILE, MANIFEST, Bundle
from cwic.entropy_model import ContextModel
from cwic.errors import BundleError, ExportError
from cwic.rate import QualityScale
from cwic_export.formats import DEFAULT_FORMATS, Format, Job, Options, chosen
from cwic_export.graphs import DecoderGraph, EncoderGraph
from cwic_export.identity import entropy_arrays, model_id
from cwic_export.macs import decoder_cost, encoder_cost
from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.config import STRIDE

__all__ = ["export_bundle"]


def export_bundle(
    checkpoint_path: str | Path,
    out: str | Path,
    formats: Sequence[str] = DEFAULT_FORMATS,
    name: str | None = None,
    *,
    calibration: Sequence[Path] = (),
    int8_loss_db: float = Options.int8_loss_db,
    sm: str | None = None,
) -> Bundle:
    """Write the model in ``checkpoint_path`` as the bundle folder ``out``.

    Args:
        checkpoint_path: a ``.safetensors`` of a run, after stage `entropy`.
        out: folder to write; a bundle that is there already is replaced.
        formats: names out of :data:`cwic_export.formats.FORMATS`; the entropy tables are always
            written.
        name: human name of the model, by default that of the folder.
        calibration, int8_loss_db, sm: see :class:`cwic_export.formats.Options`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ExportError: an unknown format, what a format needs is missing, no fitting entropy tables,
            ``out`` is something other than a bundle or an empty folder, or an exporter fails.
        BackendError, UsageError: engines cannot be built here, or not as asked for.
        TrainingError: a calibration picture cannot be read.
    """
    out = Path(out).absolute()
    selected = chosen(formats)
    options = Options(tuple(formats), tuple(calibration), int8_loss_db, sm)
    for form in selected:
        form.prepare(options)
    _check_place(out)
    checkpoint = load_checkpoint(checkpoint_path)
    if not checkpoint.entropy:
        raise ExportError(
            f"{checkpoint_path} has no entropy tables; "
            f"run `cwic train entropy {checkpoint_path}` first"
        )
    try:
        ContextModel(entropy_arrays(checkpoint), checkpoint.config.n, checkpoint.config.levels)
    except BundleError as exc:
        raise ExportError(
            f"the entropy tables of {checkpoint_path} do not fit its network; "
            f"run `cwic train entropy {checkpoint_path}` again"
        ) from exc
    with _folder_replacing(out) as folder:
        empty = Bundle(
            path=folder,
            name=name or out.name,
            model_id=model_id(checkpoint),
            n=checkpoint.config.n,
            levels=checkpoint.config.levels,
            stride=STRIDE,
            files={},
            quality_scales=_quality_scales(checkpoint),
            facts={},
            codes=checkpoint.config.codes,
        )
        _write(checkpoint, Job(empty, checkpoint.network(), options), selected).save()
    return Bundle.load(out)


def _check_place(out: Path) -> None:
    if not out.exists() or (out / MANIFEST).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ExportError(
            f"{out} exists and is not a bundle; choose another output, or remove it first"
        )


def _write(checkpoint: Checkpoint, job: Job, formats: Sequence[Format]) -> Bundle:
    job.write(
        CONTEXT_FILE,
        save(entropy_arrays(checkpoint)),
        role="context",
        target="cwic",
        precision="int",
    )
    job.state(_facts(checkpoint, job))
    for form in formats:
        form.write(job)
    return job.bundle


def _quality_scales(checkpoint: Checkpoint) -> tuple[float, ...]:
    """Measured when the entropy model was trained, if there were pictures to do it on."""
    found = checkpoint.training.get("quality_scales")
    try:
        return (QualityScale() if found is None else QualityScale(found)).scales
    except (TypeError, ValueError) as exc:
        raise ExportError(
            f"the checkpoint's quality scales are unusable ({exc}); run `cwic train entropy` again"
        ) from exc


def _facts(checkpoint: Checkpoint, job: Job) -> dict[str, Any]:
    costs = {
        "encode": encoder_cost(EncoderGraph(job.network)),
        "decode": decoder_cost(DecoderGraph(job.network)),
    }
    training = {k: v for k, v in checkpoint.training.items() if k != "quality_scales"}
    return {
        **training,
        "model": checkpoint.config.to_dict(),
        "parameters": {step: cost.parameters for step, cost in costs.items()},
        "kmac_per_px": {step: round(cost.kmac_per_px, 3) for step, cost in costs.items()},
    }


@contextlib.contextmanager
def _folder_replacing(out: Path) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block succeeds."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as exc:
        raise ExportError(
            f"cannot write in {out.parent} ({exc.strerror}); choose another output"
        ) from exc
    fresh, old = workplace / "new", workplace / "old"
    try:
        fresh.mkdir()
        yield fresh
        _check_place(out)
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except BaseException:
            if old.exists():
                old.rename(out)
            raise
    except OSError as exc:
        raise ExportError(
            f"cannot write {out} ({exc.strerror or exc}); choose another output"
        ) from exc
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
