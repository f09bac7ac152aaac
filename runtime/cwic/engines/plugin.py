"""An optional TensorRT plugin: binarize and pack in one kernel instead of five layers.

``cwic::binarize_pack`` is a Python plugin with an ahead-of-time kernel (``tensorrt.plugin``,
TensorRT 10.9 and later): the compiled kernel lies in the engine, so running one needs
neither Python nor this module. Engines do without it by default; TensorRT for RTX has no
Python plugins, and every TensorRT runs the operators' function bodies.

**Never run.** TensorRT itself could not be installed where this was written. What was
checked: the kernel compiles, and compiled for the host it equals NumPy's ``packbits``;
TensorRT 11's own Python code accepts the plugin's functions and computes its shapes from
them; and the replacement in the network builds with TensorRT for RTX, with layers in the
plugin's place.
"""

# No `from __future__ import annotations`: TensorRT reads the annotations of plugin functions
# and takes classes only, not their names.

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from cwic.engines.library import Library
from cwic.errors import BackendError, UsageError

__all__ = ["KERNEL", "PLUGIN", "SOURCE", "compile_kernel", "fuse_packing", "inserter"]

PLUGIN = "cwic::binarize_pack"
KERNEL = "cwic_binarize_pack"
SOURCE = Path(__file__).with_name("binarize_pack.cu")

_THREADS = 256


def compile_kernel(sm: str) -> str:
    """The kernel as PTX for compute capability ``sm`` and later, by ``nvcc``.

    Raises:
        BackendError: there is no ``nvcc``, or it fails.
    """
    places = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, places)])
    nvcc = shutil.which("nvcc", path=path)
    if nvcc is None:
        raise BackendError(
            "the plugin needs nvcc to compile its kernel, and there is none; install the CUDA "
            "toolkit and set CUDA_HOME, or build without --plugin"
        )
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        done = subprocess.run(  # noqa: S603 - the compiler of the user's own toolkit
            [nvcc, "--ptx", f"--gpu-architecture=compute_{sm}", "-o", str(ptx), str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return ptx.read_text()
    reason = done.stderr.strip().splitlines() or ["it says nothing"]
    raise BackendError(
        f"nvcc cannot compile {SOURCE.name} for SM {sm} ({reason[0]}); install a CUDA toolkit "
        "that knows this SM, or build without --plugin"
    )


def inserter(library: Library, sm: str) -> Callable[[Any, Any], Any]:
    """What :func:`fuse_packing` takes as ``insert``: it adds the plugin to a network.

    Raises:
        UsageError: this library has no such plugins.
        BackendError: the kernel cannot be compiled.
    """
    if not library.has_plugins:
        raise UsageError(
            f"{library.title} has no ahead-of-time Python plugins, TensorRT 10.9 and later have; "
            "leave --plugin out"
        )
    ptx = compile_kernel(sm)

    def insert(network: Any, e: Any) -> Any:
        try:
            plugin = _register(library, ptx)
            return network.add_plugin(plugin(e), aot=True).get_output(0)
        except Exception as exc:  # tensorrt.plugin raises plain ValueErrors and the like
            raise BackendError(
                f"{library.title} does not take the plugin ({exc}); build without --plugin"
            ) from exc

    return insert


def fuse_packing(network: Any, insert: Callable[[Any, Any], Any]) -> None:
    """Let one layer make the encoder's ``codes`` from E, the input of ``cwic::binarize``.

    Args:
        network: an encoder's, as the parser made it; it is changed.
        insert: takes the network and E float32 [N, n, H/8, W/8], adds layers, and gives the
            bytes as float32 [N, n/8, H/8, W/8].

    Raises:
        BackendError: the network has no ``cwic::binarize``, or no ``codes``.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    binarize = [x for x in layers if _is(x, "ELEMENTWISE") and "binarize" in x.metadata]
    last = [x for x in layers if _is(x, "CAST") and x.get_output(0).name == "codes"]
    if not binarize or len(last) != 1:
        raise BackendError(
            "there is no cwic::binarize before the codes of this encoder; "
            "export the model again, or build without --plugin"
        )
    # The last one sees all of E; others before it decide groups of codes, which E depends on.
    # What made the codes so far is left without use, and the builder drops it.
    last[0].set_input(0, insert(network, binarize[-1].get_input(0)))


def _is(layer: Any, kind: str) -> bool:
    return str(layer.type).endswith(f".{kind}")


@cache
def _register(library: Library, ptx: str) -> Any:
    """The plugin, registered once a process."""
    import tensorrt.plugin as trtp

    float32 = library.module.DataType.FLOAT

    def describe(e: trtp.TensorDesc) -> trtp.TensorDesc:
        n, c, h, w = e.shape_expr
        return trtp.from_shape_expr((n, c // 8, h, w), dtype=float32)

    def implement(
        e: trtp.TensorDesc, outputs: tuple[trtp.TensorDesc], tactic: int
    ) -> tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        n, c, h, w = e.shape_expr
        positions, size = h * w, n * (c // 8) * h * w
        launch = trtp.KernelLaunchParams()
        launch.grid_x = trtp.cdiv(size, _THREADS)
        launch.block_x = _THREADS
        scalars = trtp.SymIntExprs(2)
        scalars[0], scalars[1] = trtp.SymInt32(positions), trtp.SymInt32(size)
        return KERNEL, ptx, launch, scalars

    trtp.register(PLUGIN)(describe)
    trtp.aot_impl(PLUGIN)(implement)
    return trtp.op.cwic.binarize_pack
