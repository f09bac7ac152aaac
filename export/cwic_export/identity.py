"""``model_id``: eight bytes that name what decoder and encoder must share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cwic.bundle import MODEL_ID_BYTES
from cwic_training.checkpoint import Checkpoint

__all__ = ["entropy_arrays", "model_id"]

_VERSION = "cwic-model/1"


def model_id(checkpoint: Checkpoint) -> bytes:
    """Identity of the decoder weights, n, L and the entropy tables of ``checkpoint``.

    The encoder plays no part: any encoder may write streams for a decoder. The steps of values are
    among the tables.
    """
    digest = hashlib.sha256(f"{_VERSION}\n".encode())
    for name, weight in sorted(_decoder(checkpoint.tensors)):
        _add(digest, name, weight.float().numpy().astype("<f4"))
    digest.update(f"n {checkpoint.config.n} levels {checkpoint.config.levels}\n".encode())
    for name, table in sorted(entropy_arrays(checkpoint).items()):
        _add(digest, name, table)
    return digest.digest()[:MODEL_ID_BYTES]


def entropy_arrays(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """The entropy tables as contiguous arrays, little endian on any machine."""
    arrays = {name: table.detach().cpu().numpy() for name, table in checkpoint.entropy.items()}
    return {k: np.ascontiguousarray(v, v.dtype.newbyteorder("<")) for k, v in arrays.items()}


def _decoder(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if name.startswith(("synthesis.", "quantiser.")):
            yield name, tensor.detach().cpu()


def _add(digest: Any, name: str, array: NDArray[Any]) -> None:
    shape = "x".join(map(str, array.shape))
    digest.update(f"{name} {array.dtype.name} {shape}\n".encode())
    digest.update(array.tobytes())
