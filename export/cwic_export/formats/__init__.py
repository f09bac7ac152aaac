"""What a model can be exported as, by the name that ``cwic export --formats`` takes.

Each format writes one or more files into the bundle's folder (:class:`Format`); the order
of :data:`FORMATS` is that in which they are written, because engines are built from the
ONNX files of the same bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

from cwic.errors import ExportError
from cwic_export.formats.base import Format, Job, Options
from cwic_export.formats.engines import EngineFormat
from cwic_export.formats.int8 import Int8Format
from cwic_export.formats.onnx_files import OnnxFormat
from cwic_export.formats.torch_files import TorchFormat
from cwic_export.formats.torch_tensorrt_files import TorchTensorrtFormat
from cwic_export.formats.triton_repository import TritonFormat

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Format", "Job", "Options", "chosen"]

FORMATS: dict[str, Format] = {
    "onnx": OnnxFormat("fp32"),
    "torchscript": TorchFormat("torchscript", "cwic_export.torchscript", "torchscript.pt"),
    "exported-program": TorchFormat("exported-program", "cwic_export.exported_program", "pt2"),
    "onnx-fp16": OnnxFormat("fp16"),
    "onnx-int8": Int8Format("onnx-int8", "onnx", "ONNXRUNTIME", "int8.onnx"),
    "onnx-int8-tensorrt": Int8Format(
        "onnx-int8-tensorrt", "onnx-tensorrt", "TENSORRT", "int8-tensorrt.onnx"
    ),
    "torch-tensorrt": TorchTensorrtFormat(),
    "triton": TritonFormat(),
    "tensorrt-rtx": EngineFormat("tensorrt-rtx"),
    "tensorrt": EngineFormat("tensorrt"),
}
DEFAULT_FORMATS = ("onnx", "torchscript", "exported-program")


def chosen(names: Sequence[str]) -> list[Format]:
    """The formats of these names, each once, in the order of :data:`FORMATS`.

    Raises:
        ExportError: an unknown name, or none at all.
    """
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        what = f"unknown format {unknown[0]!r}" if unknown else "no format given"
        raise ExportError(f"{what}; choose from {', '.join(FORMATS)}")
    return [form for name, form in FORMATS.items() if name in names]
