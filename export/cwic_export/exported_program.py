"""ExportedProgram (``.pt2``): the graphs for PyTorch itself and what compiles from it.

The graphs are decomposed, so ``torch.export.load`` needs no ``cwic``. Sides of a picture
are multiples of 8 from 16 to 65,536 pixels for the encoder: torch.export treats a single
row of codes as a case of its own.
"""

from __future__ import annotations

import io

import torch

from cwic_export.graphs import Graph
from cwic_export.quiet import quiet
from cwic_export.signature import dynamic_shapes, example_inputs

__all__ = ["to_bytes"]

_PRIVATE_META = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")
"""What a node tells about the exporting machine's sources."""


def to_bytes(graph: Graph) -> bytes:
    """``graph``, which must be decomposed, as a ``.pt2`` archive."""
    inputs, _ = graph.ports()
    buffer = io.BytesIO()
    with quiet():
        program = torch.export.export(
            graph,
            example_inputs(inputs),
            dynamic_shapes=dynamic_shapes(inputs),
            strict=False,
        )
        for node in program.graph.nodes:
            for key in _PRIVATE_META:
                node.meta.pop(key, None)
        torch.export.save(program, buffer)
    return buffer.getvalue()
