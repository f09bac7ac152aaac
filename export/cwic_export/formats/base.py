"""What a format is, and what it works with."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch

from cwic.bundle import CONTEXT_FILE, Bundle, FileEntry
from cwic.entropy_model import ContextModel
from cwic.errors import ExportError
from cwic_export.graphs import DecoderGraph, EncoderGraph, Graph
from cwic_training.model import CodecNetwork

if TYPE_CHECKING:
    import onnx

__all__ = ["INSTALL", "ROLES", "Format", "Job", "Options", "Role", "needed"]

Role = Literal["encoder", "decoder"]

ROLES: tuple[Role, ...] = ("encoder", "decoder")
INSTALL = "pip install 'cwic[export]'"


@dataclass(frozen=True)
class Options:
    """What an export was asked for.

    Attributes:
        formats: names of all the formats.
        calibration: pictures for int8.
        int8_loss_db: PSNR that int8 may lose in each of the two graphs.
        sm: compute capability that engines are built for, such as ``86``; None: the GPU here.
    """

    formats: tuple[str, ...]
    calibration: Sequence[Path] = ()
    int8_loss_db: float = 0.1
    sm: str | None = None


@dataclass
class Job:
    """One export: the model, and the bundle as far as it is written.

    Attributes:
        bundle: grows with each format; its manifest is not on disk yet.
        network: the model.
        options: of the export.
    """

    bundle: Bundle
    network: CodecNetwork
    options: Options
    _onnx: dict[tuple[str, torch.dtype], onnx.ModelProto] = field(default_factory=dict)

    def graph(
        self, role: Role, *, decomposed: bool = False, dtype: torch.dtype = torch.float32
    ) -> Graph:
        """``encoder`` or ``decoder`` as a PyTorch module."""
        kind = EncoderGraph if role == "encoder" else DecoderGraph
        return kind(self.network, decomposed=decomposed, dtype=dtype)

    def onnx_model(self, role: Role, dtype: torch.dtype = torch.float32) -> onnx.ModelProto:
        """A graph as ONNX, exported once for all formats; not to be changed."""
        from cwic_export.onnx import to_model

        key = (role, dtype)
        if key not in self._onnx:
            self._onnx[key] = to_model(self.graph(role, dtype=dtype))
        return self._onnx[key]

    def entropy_model(self) -> ContextModel:
        """The frozen one."""
        data = self.bundle.read(CONTEXT_FILE)
        return ContextModel.from_bytes(data, self.bundle.n, self.bundle.levels)

    def write(self, name: str, data: bytes, *, role: str, target: str, precision: str) -> None:
        """Write a file of the bundle; ``name`` may have folders before it, with ``/``."""
        path = self.bundle.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        entry = FileEntry.of(path, role=role, target=target, precision=precision)
        self.bundle = replace(self.bundle, files={**self.bundle.files, name: entry})

    def state(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the manifest."""
        self.bundle = replace(self.bundle, facts={**self.bundle.facts, **facts})


class Format(ABC):
    """One way to write a model."""

    def prepare(self, options: Options) -> None:  # noqa: B027 - most need nothing
        """Make sure, before anything is written, that all it needs is there.

        Raises:
            CwicError: a package, a device or an option is missing.
        """

    @abstractmethod
    def write(self, job: Job) -> None:
        """Write the files.

        Raises:
            CwicError: the model cannot be exported this way.
        """


def needed(module: str, what: str, remedy: str) -> ModuleType:
    """A module that ``what`` needs.

    Raises:
        ExportError: it, or something that it needs, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ExportError(
            f"{what} needs a package that is not installed ({exc}); {remedy}"
        ) from exc
