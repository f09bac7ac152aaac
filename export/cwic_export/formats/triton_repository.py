"""``triton``: a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

from cwic_export.formats.base import INSTALL, ROLES, Format, Job, Options, needed
from cwic_export.triton import configuration, model_name

__all__ = ["TritonFormat"]

_FOLDER = "triton"


class TritonFormat(Format):
    """``triton/cwic_encoder/config.pbtxt``, ``triton/cwic_encoder/1/model.onnx``, likewise the
    decoder. The models are the fp32 ONNX files, run by Triton's onnxruntime backend::

        tritonserver --model-repository BUNDLE/triton
    """

    def prepare(self, options: Options) -> None:
        needed("cwic_export.onnx", "ONNX export", INSTALL)

    def write(self, job: Job) -> None:
        from cwic_export.onnx import serialise

        for role in ROLES:
            folder = f"{_FOLDER}/{model_name(role)}"
            text = configuration(role, job.graph(role).ports())
            data = serialise(job.onnx_model(role))
            job.write(f"{folder}/1/model.onnx", data, role=role, target="triton", precision="fp32")
            job.write(
                f"{folder}/config.pbtxt",
                text.encode(),
                role="configuration",
                target="triton",
                precision="fp32",
            )
