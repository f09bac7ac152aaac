"""``torchscript`` and ``exported-program``: the graphs for PyTorch itself."""

from __future__ import annotations

from dataclasses import dataclass

from cwic_export.formats.base import INSTALL, ROLES, Format, Job, needed

__all__ = ["TorchFormat"]


@dataclass(frozen=True)
class TorchFormat(Format):
    """Decomposed graphs, written by ``to_bytes(graph)`` of a module.

    Attributes:
        target: name of the format, in the manifest as well.
        module: the module, imported when it is used.
        suffix: of the files.
    """

    target: str
    module: str
    suffix: str

    def write(self, job: Job) -> None:
        exporter = needed(self.module, self.target, INSTALL)
        for role in ROLES:
            data: bytes = exporter.to_bytes(job.graph(role, decomposed=True))
            job.write(
                f"{role}.{self.suffix}", data, role=role, target=self.target, precision="fp32"
            )
