"""Analysis by synthesis: codes and levels from which the decoder network makes more of a picture.

The encoder network decides each code once, and each level without seeing what comes of it. A
search decodes what was decided and looks for changes that are worth their bits: it needs the
decoder's gradient, and no training, and gives an ordinary stream, about as large. In each round
changes are judged by the gradient, those that promise most are made, and what did not keep its
promise is taken back: :mod:`cwic.sign_search`, and :mod:`cwic.value_search` where codes are values.
A bit is worth the error that it would save if it were spent on all the codes.

The error is the squared error, weighted a little for smooth surroundings: it lifts PSNR and, less,
MS-SSIM.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.backends import Runner
from cwic.blas import one_thread
from cwic.context import CodeModel
from cwic.errors import UsageError
from cwic.searched import Searched
from cwic.sign_search import improved_signs
from cwic.symbol_model import SymbolModel
from cwic.value_model import ValueModel
from cwic.value_search import improved_values

__all__ = ["improved"]


@one_thread()
def improved(
    runner: Runner,
    model: SymbolModel[Any, Any],
    codes: NDArray[np.uint8],
    levels: NDArray[np.uint8],
    image: NDArray[np.uint8],
    *,
    rounds: int,
    movable: NDArray[np.bool_] | None = None,
    keep_levels: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Codes and levels that decode to a picture nearer to ``image`` for their bits.

    Args:
        runner: of the model; a round runs its decoder graph once and its gradient graph once.
        model: of the codes.
        codes: as they are sent, uint8 [channels, h, w], where to start.
        levels: uint8 [h, w], the same.
        image: uint8 [8h, 8w, 3].
        rounds: of the search.
        movable: bool [h, w], positions that may be changed; None: all.
        keep_levels: change codes only, as is always done of values.

    Returns:
        uint8 [channels, h, w] and [h, w]. The same arguments give the same.

    Raises:
        BackendError, BundleError: see :meth:`cwic.backends.Runner.gradient`.
    """
    searched = Searched(runner, image)
    if movable is None:
        movable = np.ones(levels.shape, bool)
    if isinstance(model, ValueModel):
        return improved_values(searched, model, codes, levels, rounds, movable), levels
    if isinstance(model, CodeModel):
        return improved_signs(searched, model, codes, levels, rounds, movable, keep_levels)
    raise UsageError("codes of this kind cannot be searched for; leave out the effort")
