"""Streams of symbols alone, without levels and chunks, for codes of either kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic import rans
from cwic.symbol_model import SymbolModel

__all__ = ["decoded"]


def decoded(
    model: SymbolModel[Any, Any], data: bytes, lanes: int, levels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Codes as a decoder network takes them, of data that ends with the last one."""
    decoder, known = rans.Decoder(data, lanes), model.open(*levels.shape)
    for step in model.steps():
        for _ in model.decode_step(known, step, decoder, levels):
            pass
    decoder.finish()
    return known.codes()
