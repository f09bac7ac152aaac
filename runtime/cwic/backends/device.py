"""The GPU as its driver describes it, through ctypes: no package is needed to look.

This asks ``libcuda.so.1``, which the driver brings on a PC, on a Jetson and in a container
alike. NVML would say more on a PC and is missing on most Jetsons.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from cwic.errors import BackendError

__all__ = ["Device", "find_device"]

_REMEDY = (
    "install the NVIDIA driver (in a container: --gpus all, on a Jetson --runtime nvidia), "
    "or use --backend cpu"
)
# CUdevice_attribute
_INTEGRATED, _MAJOR, _MINOR = 18, 75, 76


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        name: for example ``Orin``.
        sm: its compute capability without the dot, for example ``87``.
        memory_mib: its memory in MiB; an integrated GPU's is the host's.
        integrated: the GPU shares the host's memory.
        cuda_version: the newest CUDA that the driver can run, for example ``12.6``.
    """

    name: str
    sm: str
    memory_mib: int
    integrated: bool
    cuda_version: str


def find_device() -> Device:
    """CUDA's device 0, the first that ``CUDA_VISIBLE_DEVICES`` leaves visible.

    Raises:
        BackendError: no driver is installed, or it has no device for this process.
    """
    try:
        cuda: Any = ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        raise BackendError(f"there is no NVIDIA driver here ({exc}); {_REMEDY}") from exc

    def call(name: str, *arguments: Any) -> None:
        status = getattr(cuda, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(status, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode(errors="replace")
            raise BackendError(f"the NVIDIA driver has no usable GPU ({name}: {reason}); {_REMEDY}")

    def number(name: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        call(name, ctypes.byref(value), *arguments)
        return value.value

    call("cuInit", 0)
    if number("cuDeviceGetCount") == 0:
        raise BackendError(
            "the NVIDIA driver shows no GPU; unset CUDA_VISIBLE_DEVICES, or use --backend cpu"
        )
    device = number("cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    call("cuDeviceGetName", name, len(name), device)
    memory = ctypes.c_size_t()
    call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    major, minor, integrated = (
        number("cuDeviceGetAttribute", attribute, device)
        for attribute in (_MAJOR, _MINOR, _INTEGRATED)
    )
    cuda_version = number("cuDriverGetVersion")  # 1000 * major + 10 * minor
    return Device(
        name=name.value.decode(errors="replace"),
        sm=f"{major}{minor}",
        memory_mib=memory.value >> 20,
        integrated=bool(integrated),
        cuda_version=f"{cuda_version // 1000}.{cuda_version % 1000 // 10}",
    )
