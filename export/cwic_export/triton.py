"""Model configurations for NVIDIA's Triton Inference Server.

A configuration is a ``ModelConfig`` of Triton's ``model_config.proto`` in protobuf's text
format. Requests of equal picture size that arrive together run as one batch; the first
axis, N, is that of the batch and Triton leaves it out of ``dims``.
"""

from __future__ import annotations

from cwic_export.signature import Port, Ports

__all__ = ["LARGEST_BATCH", "configuration", "model_name"]

LARGEST_BATCH = 8
_LONGEST_WAIT_US = 2000


def model_name(role: str) -> str:
    """How clients ask for the ``encoder`` or ``decoder``; also the name of its folder."""
    return f"cwic_{role}"


def configuration(role: str, ports: tuple[Ports, Ports]) -> str:
    """``config.pbtxt`` of the ``encoder`` or ``decoder``, ``ports`` its inputs and outputs."""
    inputs, outputs = ports
    return "\n".join(
        [
            f'name: "{model_name(role)}"',
            'backend: "onnxruntime"',
            'platform: "onnxruntime_onnx"',
            f"max_batch_size: {LARGEST_BATCH}",
            *(_port("input", port) for port in inputs),
            *(_port("output", port) for port in outputs),
            f"dynamic_batching {{ max_queue_delay_microseconds: {_LONGEST_WAIT_US} }}",
            # One instance on each GPU, or one on the CPU where there is none.
            "instance_group [ { count: 1 kind: KIND_AUTO } ]",
            "",
        ]
    )


def _port(field: str, port: Port) -> str:
    dims = ", ".join(str(dim) if isinstance(dim, int) else "-1" for dim in port.dims[1:])
    return f'{field} [ {{ name: "{port.name}" data_type: TYPE_UINT8 dims: [ {dims} ] }} ]'
