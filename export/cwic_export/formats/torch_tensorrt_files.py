"""``torch-tensorrt``: the graphs compiled by Torch-TensorRT, for PyTorch with CUDA."""

from __future__ import annotations

from cwic.engines.profile import Profile
from cwic_export import torch_tensorrt
from cwic_export.formats.base import ROLES, Format, Job, Options

__all__ = ["TorchTensorrtFormat"]

_BATCH = 8


class TorchTensorrtFormat(Format):
    """``encoder.torch-tensorrt.pt2`` (ExportedProgram) and, where the installed release can
    write it, ``encoder.torch-tensorrt.ts`` (TorchScript); the decoder likewise.
    """

    def prepare(self, options: Options) -> None:
        torch_tensorrt.load()

    def write(self, job: Job) -> None:
        profile = Profile.parse(batch=_BATCH, stride=job.bundle.stride)
        for role in ROLES:
            graph = job.graph(role, decomposed=True)
            shapes = profile.shapes(role, job.bundle.decoder_channels, job.bundle.stride)
            for suffix, data in torch_tensorrt.compile_graph(graph, shapes).items():
                name = f"{role}.torch-tensorrt.{suffix}"
                job.write(name, data, role=role, target="torch-tensorrt", precision="fp32")
