"""TensorRT engines of a bundle: build them, record them, choose one. No torch, no onnx.

::

    build    ONNX of the bundle ─ parser ─▶ network ─ audit, builder ─▶ plan file + record
    choose   bundle + library, SM ─▶ the plan file that fits, or why none does

An engine (the libraries call its bytes a plan) runs on one SM and with one release of one
library; the record says which. The records lie in the manifest's ``facts`` under
``engines``, so a release that knows nothing of engines still reads the manifest.
"""
