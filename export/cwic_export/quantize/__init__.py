"""int8 graphs, in which the layers that bear it compute with 8-bit integers.

::

    pictures ─▶ calibration ─▶ ranges of every tensor
    fp32 ONNX ─▶ qdq (ranges, layers) ─▶ int8 ONNX ─▶ scoring ─▶ loss in dB
                          ▲                                        │
                          └── search: which layers stay fp32 ──────┘

The files are QDQ models: float graphs with QuantizeLinear and DequantizeLinear nodes
around what is to be computed in int8. onnxruntime and TensorRT both fuse them.
"""
