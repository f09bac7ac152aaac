"""``onnx`` and ``onnx-fp16``: a file per graph, for onnxruntime, TensorRT and others.

``onnx`` has a third one, ``gradient.onnx``, for an encoder that looks for better codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cwic_export.formats.base import INSTALL, ROLES, Format, Job, Options, needed
from cwic_export.graphs import GradientGraph

__all__ = ["OnnxFormat"]

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


@dataclass(frozen=True)
class OnnxFormat(Format):
    """``encoder.onnx``, or ``encoder.fp16.onnx`` with networks that compute in float16.

    TensorRT 11 takes the precision from the file, so fp16 is written into it: casts around
    the networks, with pixels, code bits and the mask in float32. Inputs and outputs are
    those of fp32.
    """

    precision: str

    def prepare(self, options: Options) -> None:
        needed("cwic_export.onnx", "ONNX export", INSTALL)

    def write(self, job: Job) -> None:
        from cwic_export.onnx import serialise, to_bytes

        suffix = "onnx" if self.precision == "fp32" else f"{self.precision}.onnx"
        for role in ROLES:
            data = serialise(job.onnx_model(role, _DTYPES[self.precision]))
            job.write(f"{role}.{suffix}", data, role=role, target="onnx", precision=self.precision)
        if self.precision == "fp32":
            data = to_bytes(GradientGraph(job.network))
            job.write("gradient.onnx", data, role="gradient", target="onnx", precision="fp32")
