"""What of a map a salvaged stream shows, for codes of either kind."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cwic.entropy_model import ContextModel

__all__ = ["check_shown", "is_shown"]

Bytes = NDArray[np.uint8]


def check_shown(model: ContextModel, whole: tuple[Bytes, Bytes], part: tuple[Bytes, Bytes]) -> None:
    """Of every position the first groups as they are, no other, and a level that fits them.

    Args:
        model: the entropy model.
        whole: codes and levels of the whole stream; codes that it does not keep are none.
        part: what a decoder network was given.
    """
    (all_codes, all_levels), (codes, levels) = whole, part
    coding = model.codes
    if coding.layered:  # a level says how many codes there are
        assert np.array_equal(codes, all_codes & np.packbits(coding.kept(levels), axis=0))
        assert (levels <= all_levels).all()
        return
    right, none = codes == all_codes, codes == coding.none
    ends = np.cumsum([0, *coding.sizes])
    assert np.any([right[:end].all(0) & none[end:].all(0) for end in ends], axis=0).all()
    lost = levels != all_levels
    assert not levels[lost].any()
    assert none[:, lost].all()
    first = slice(ends[1])
    without = none[first].all(0) & (all_codes[first] != coding.none).any(0)
    assert not levels[without].any()


def is_shown(model: ContextModel, codes: Bytes) -> NDArray[np.bool_]:
    """Where there is a code that does not look like none: of signs those that are 1, [n, h, w]."""
    if model.codes.layered:
        return np.unpackbits(codes, axis=0) > 0
    shown: NDArray[np.bool_] = codes != model.codes.none
    return shown
