"""From a checkpoint to a bundle: every form of the graphs, the tables and the manifest.

A bundle appears whole: it is built in a folder beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors.numpy import save

from cwic.bundle import MANIFEST, Bundle, FileEntry
from cwic.context import ContextModel
from cwic.errors import BundleError, ExportError
from cwic_export.graphs import DecoderGraph, EncoderGraph, Graph
from cwic_export.identity import entropy_arrays, model_id
from cwic_export.macs import decoder_cost, encoder_cost
from cwic_training.checkpoint import Checkpoint, load_checkpoint
from cwic_training.model import STRIDE

__all__ = ["CONTEXT_FILE", "FORMATS", "export_bundle"]

CONTEXT_FILE = "context.safetensors"


@dataclass(frozen=True)
class _Format:
    module: str
    suffix: str
    decomposed: bool

    def exporter(self) -> Callable[[Graph], bytes]:
        """``to_bytes`` of the format's module, imported only when it is asked for."""
        try:
            module = importlib.import_module(self.module)
        except ImportError as exc:
            raise ExportError(
                f"{self.suffix} files need a package that is not installed ({exc}); "
                "pip install 'cwic[export]'"
            ) from exc
        return cast("Callable[[Graph], bytes]", module.to_bytes)


FORMATS = {
    "onnx": _Format("cwic_export.onnx", "onnx", decomposed=False),
    "torchscript": _Format("cwic_export.torchscript", "torchscript.pt", decomposed=True),
    "exported-program": _Format("cwic_export.exported_program", "pt2", decomposed=True),
}
"""What a graph can be exported as, by the name that a manifest calls ``target``."""


def export_bundle(
    checkpoint_path: str | Path,
    out: str | Path,
    formats: Sequence[str] = ("onnx", "torchscript", "exported-program"),
    name: str | None = None,
) -> Bundle:
    """Write the model in ``checkpoint_path`` as the bundle folder ``out``.

    Args:
        checkpoint_path: a ``.safetensors`` of a run, after stage `entropy`.
        out: folder to write; a bundle that is there already is replaced.
        formats: names out of :data:`FORMATS`; the entropy tables are always written.
        name: human name of the model, by default that of the folder.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ExportError: an unknown format, no fitting entropy tables, ``out`` is something other than a
            bundle or an empty folder, or an exporter fails.
    """
    out = Path(out).absolute()
    _check_formats(formats)
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
        files, facts = _write_files(checkpoint, folder, formats)
        Bundle(
            path=folder,
            name=name or out.name,
            model_id=model_id(checkpoint),
            n=checkpoint.config.n,
            levels=checkpoint.config.levels,
            stride=STRIDE,
            files=files,
            facts=facts,
        ).save()
    return Bundle.load(out)


def _check_formats(formats: Sequence[str]) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        what = f"unknown format {unknown[0]!r}" if unknown else "no format given"
        raise ExportError(f"{what}; choose from {', '.join(FORMATS)}")


def _check_place(out: Path) -> None:
    if not out.exists() or (out / MANIFEST).is_file():
        return
    if not out.is_dir() or any(out.iterdir()):
        raise ExportError(
            f"{out} exists and is not a bundle; choose another output, or remove it first"
        )


def _write_files(
    checkpoint: Checkpoint, folder: Path, formats: Sequence[str]
) -> tuple[dict[str, FileEntry], dict[str, Any]]:
    network = checkpoint.network()
    files = {}
    for target in dict.fromkeys(formats):
        form = FORMATS[target]
        to_bytes = form.exporter()
        graphs: dict[str, Graph] = {
            "encoder": EncoderGraph(network, decomposed=form.decomposed),
            "decoder": DecoderGraph(network, decomposed=form.decomposed),
        }
        for role, graph in graphs.items():
            path = folder / f"{role}.{form.suffix}"
            path.write_bytes(to_bytes(graph))
            files[path.name] = FileEntry.of(path, role=role, target=target, precision="fp32")
    path = folder / CONTEXT_FILE
    path.write_bytes(save(entropy_arrays(checkpoint)))
    files[path.name] = FileEntry.of(path, role="context", target="cwic", precision="int")
    costs = {
        "encode": encoder_cost(EncoderGraph(network)),
        "decode": decoder_cost(DecoderGraph(network)),
    }
    facts = {
        **checkpoint.training,
        "model": checkpoint.config.to_dict(),
        "parameters": {step: cost.parameters for step, cost in costs.items()},
        "kmac_per_px": {step: round(cost.kmac_per_px, 3) for step, cost in costs.items()},
    }
    return files, facts


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
