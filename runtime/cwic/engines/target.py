"""What an engine is built for: a library and a GPU, this machine's or another one's."""

from __future__ import annotations

from dataclasses import dataclass

from cwic.backends.device import Device, find_device
from cwic.engines.library import Library
from cwic.errors import BackendError, UsageError

__all__ = ["Target", "find_target"]


@dataclass(frozen=True)
class Target:
    """What an engine is built for.

    Attributes:
        library: builds it and will run it.
        sm: compute capability, for example ``86``.
        gpu: name of the GPU in this machine, or None when building ahead of time.
    """

    library: Library
    sm: str
    gpu: str | None


def find_target(library: Library, sm: str | None = None) -> Target:
    """What to build for: the GPU here, or ahead of time for ``sm``.

    Raises:
        BackendError: TensorRT without a GPU.
        UsageError: TensorRT asked for an SM that is not here, TensorRT for RTX for one that
            it does not know, or no SM given without a GPU.
    """
    gpu = _gpu()
    if library.ahead_of_time:
        wanted = sm or (gpu.sm if gpu else None)
        if wanted is None:
            raise UsageError(
                "no GPU here; name the SM that the engine is for, one of --sm "
                f"{', '.join(library.sms())}"
            )
        if wanted not in library.sms():
            raise UsageError(
                f"{library.title} does not build for SM {wanted}; use one of --sm "
                f"{', '.join(library.sms())}, or --kind tensorrt on the device"
            )
        return Target(library, wanted, gpu.name if gpu and gpu.sm == wanted else None)
    if gpu is None:
        raise BackendError(
            f"{library.title} builds engines on the GPU that runs them, and none is here; "
            "run this on the device, or build ahead of time with --kind tensorrt-rtx"
        )
    if sm is not None and sm != gpu.sm:
        raise UsageError(
            f"{library.title} builds for the GPU of this machine ({gpu.name}, SM {gpu.sm}), not "
            f"for SM {sm}; run this on the device, or use --kind tensorrt-rtx"
        )
    return Target(library, gpu.sm, gpu.name)


def _gpu() -> Device | None:
    try:
        return find_device()
    except BackendError:
        return None
