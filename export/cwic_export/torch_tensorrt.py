"""Torch-TensorRT: the decomposed graphs compiled for PyTorch with CUDA.

Like any engine, a result runs with the releases and on the kind of GPU that it was made
with. What TensorRT does not take stays PyTorch, so uint8 pixels and code bytes cross
neither graph's border as anything else.

Not yet run: it needs an NVIDIA GPU, and Torch-TensorRT cannot be imported without a driver.
The tests run this module over a stand-in with the same calls.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cwic.engines.profile import Shapes
from cwic.errors import ExportError, first_line
from cwic_export.graphs import Graph
from cwic_export.quiet import quiet
from cwic_export.signature import dynamic_shapes, example_inputs

__all__ = ["compile_graph", "load"]

_DEVICE = "cuda"
_FORMATS = {"pt2": "exported_program", "ts": "torchscript"}


def load() -> Any:
    """The package ``torch_tensorrt``.

    Raises:
        ExportError: it is not installed, does not load, or there is no GPU.
    """
    leave = "or leave torch-tensorrt out of --formats"
    try:
        import torch_tensorrt
    except ImportError as exc:
        raise ExportError(
            f"torch-tensorrt is not installed or lacks a library ({exc}); "
            f"pip install 'cwic[torch-tensorrt]' on a machine with an NVIDIA GPU, {leave}"
        ) from exc
    except Exception as exc:  # without a driver it fails in ways of its own
        raise ExportError(
            f"torch-tensorrt does not load ({first_line(exc)}); install the NVIDIA driver, {leave}"
        ) from exc
    if not torch.cuda.is_available():
        raise ExportError(
            "torch-tensorrt compiles on the GPU that runs the result, and PyTorch finds none; "
            f"export on a machine with one and a CUDA build of PyTorch, {leave}"
        )
    return torch_tensorrt


def compile_graph(
    graph: Graph, shapes: Mapping[str, Shapes], device: str = _DEVICE
) -> dict[str, bytes]:
    """Compile ``graph``, which must be decomposed.

    Args:
        graph: encoder or decoder.
        shapes: smallest, best and largest shape of every input by name.
        device: where to compile; Torch-TensorRT knows only CUDA.

    Returns:
        Bytes of the files by suffix: ``pt2`` always; ``ts`` unless this release cannot
        write TorchScript.

    Raises:
        ExportError: the package is missing, or compiling fails.
    """
    trt = load()
    ports, _ = graph.ports()
    examples = tuple(tensor.to(device) for tensor in example_inputs(ports))
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                graph.to(device), examples, dynamic_shapes=dynamic_shapes(ports), strict=False
            )
            compiled = trt.dynamo.compile(
                program,
                arg_inputs=[_input(trt, port.name, shapes[port.name]) for port in ports],
            )
            files = {"pt2": _saved(trt, compiled, "pt2", examples, dynamic_shapes(ports))}
    except Exception as exc:  # PyTorch, Torch-TensorRT and TensorRT have trees of their own
        raise ExportError(
            f"torch-tensorrt {trt.__version__} cannot compile the graph ({first_line(exc)}); "
            "install the release that belongs to this torch, or leave torch-tensorrt out"
        ) from exc
    try:
        with quiet(), torch.no_grad():
            files["ts"] = _saved(trt, compiled, "ts", examples, None)
    except Exception:  # TorchScript is on its way out: releases differ in whether they can
        return files
    return files


def _input(trt: Any, name: str, shapes: Shapes) -> Any:
    smallest, best, largest = shapes
    return trt.Input(
        min_shape=smallest, opt_shape=best, max_shape=largest, dtype=torch.uint8, name=name
    )


def _saved(
    trt: Any, compiled: Any, suffix: str, examples: tuple[torch.Tensor, ...], free: Any
) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"graph.{suffix}"
        trt.save(
            compiled,
            str(path),
            output_format=_FORMATS[suffix],
            arg_inputs=list(examples),
            dynamic_shapes=free,
        )
        return path.read_bytes()
