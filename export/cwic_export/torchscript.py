"""TorchScript: the graphs for programs that load models with libtorch.

PyTorch has deprecated TorchScript (2.11) and still loads it; the successor lies beside it
(:mod:`cwic_export.exported_program`). The graphs are decomposed and frozen, so the file
needs neither ``cwic`` nor Python, and names no device.
"""

from __future__ import annotations

import io
import zipfile

import torch

from cwic_export.graphs import Graph
from cwic_export.quiet import quiet
from cwic_export.signature import example_inputs

__all__ = ["to_bytes"]


def to_bytes(graph: Graph) -> bytes:
    """``graph``, which must be decomposed, as a TorchScript archive."""
    inputs, _ = graph.ports()
    buffer = io.BytesIO()
    # Deprecated, and exported because old programs need it: no warning helps the caller.
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(graph, example_inputs(inputs), check_trace=False)  # type: ignore[no-untyped-call]
        # Freezing turns the tracer's "make this tensor on that device" into constants, which
        # follow map_location; without it the file would run on the CPU only.
        frozen = torch.jit.freeze(traced, optimize_numerics=False)
        torch.jit.save(frozen, buffer)
    return _without_sources(buffer.getvalue())


def _without_sources(archive: bytes) -> bytes:
    """Drop the debug records: they hold paths of the exporting machine."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for record in old.infolist():
            if not record.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(record.filename), old.read(record))
    return out.getvalue()
