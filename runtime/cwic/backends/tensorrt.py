"""The tensorrt backend: engines of the bundle through TensorRT or TensorRT for RTX.

Never run on a GPU yet; see :mod:`cwic.backends.engine` for what its tests stand on.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from cwic.backends.base import Runner
from cwic.backends.cuda import Cuda
from cwic.backends.device import find_device
from cwic.backends.engine import Engine
from cwic.bundle import Bundle
from cwic.engines.choice import choose
from cwic.engines.library import KINDS, Kind, Library, load_library
from cwic.errors import BackendError

__all__ = ["TensorRTRunner"]


class TensorRTRunner(Runner):
    """The engines that fit this GPU and the installed library.

    It runs on CUDA's device 0; ``CUDA_VISIBLE_DEVICES`` chooses which GPU that is.

    Args:
        bundle: the model.
        kind: ``tensorrt`` or ``tensorrt-rtx``; None takes those that the bundle has engines
            for, TensorRT first.
        precision: that of the engines; None takes the most exact one that fits.
        rebuild: where an engine is missing or does not fit, build both (``fp32`` if no
            precision is asked for) and add them to the bundle, instead of refusing. That
            may take minutes and needs a bundle that can be written.

    Raises:
        BackendError: there is no GPU, the bundle has no engines, or TensorRT or cuda-python
            is not installed.
    """

    backend = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        *,
        kind: Kind | None = None,
        precision: str | None = None,
        rebuild: bool = False,
    ) -> None:
        self._device = find_device()
        self._libraries = _libraries(bundle, kind, rebuild)
        self._cuda = Cuda(self._device.cuda_version)
        self._bundle, self._precision, self._rebuild = bundle, precision, rebuild
        self._engines: dict[str, Engine] = {}
        self._loading = threading.Lock()

    def _engine(self, role: str) -> Engine:
        with self._loading:
            if role not in self._engines:
                library, name = self._choose(role)
                self._engines[role] = Engine(
                    library,
                    self._cuda,
                    name,
                    self._bundle.read(name),
                    shared_memory=self._device.integrated,
                    rebuild=f"cwic engine {self._bundle.path} --kind {library.kind}",
                )
            return self._engines[role]

    def _choose(self, role: str) -> tuple[Library, str]:
        """The first library with an engine that fits, and the engine's file."""
        refusals: list[BackendError] = []
        for library in self._libraries:
            try:
                return library, self._fitting(library, role)
            except BackendError as exc:
                refusals.append(exc)
        if not self._rebuild:
            raise refusals[0]
        from cwic.engines import build, target  # much that running an engine has no use for

        library = self._libraries[0]
        here = target.find_target(library, self._device.sm)
        self._bundle, _ = build.build_engines(
            self._bundle, here, precision=self._precision or "fp32"
        )
        return library, self._fitting(library, role)

    def _fitting(self, library: Library, role: str) -> str:
        name, _ = choose(
            self._bundle,
            role,
            kind=library.kind,
            version=library.version,
            sm=self._device.sm,
            precision=self._precision,
        )
        return name

    def encode(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        outputs = self._engine("encoder").run({"image": image})
        return outputs["codes"], outputs["importance"]

    def decode(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._engine("decoder").run({"codes": codes, "levels": levels})["image"]


def _libraries(bundle: Bundle, kind: Kind | None, rebuild: bool) -> list[Library]:
    """What can run the bundle's engines. Importing one takes its time: others are left alone."""
    targets = {entry.target for entry in bundle.files.values()}
    kinds = [kind] if kind else [each for each in KINDS if each in targets]
    if not kinds:
        if rebuild:
            return [load_library()]
        raise BackendError(
            f"{bundle.path} has no TensorRT engines; build them: cwic engine {bundle.path}"
        )
    found: list[Library] = []
    refusals: list[BackendError] = []
    for each in kinds:
        try:
            found.append(load_library(each))
        except BackendError as exc:
            refusals.append(exc)
    if not found:
        raise refusals[0]
    return found
