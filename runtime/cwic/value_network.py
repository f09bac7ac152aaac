"""Probabilities of whole numbers from what is already decoded: an integer network.

For models whose codes are values, n numbers q of -127..127 at a position (their step size is the
level's: :mod:`cwic.quantiser`). Group g of them exists from level ``values.first_levels[g]`` on.
Groups are coded one after the other, each in the nine passes of :mod:`cwic.scan`, as in
:mod:`cwic.context`. For group g at a position::

    f    values.features[abs(q)] sign(q)          of a value q: about 8 log2(1 + abs(q))
    own  f of group g at the 12 known neighbours of the pass, and for each of its values
         (sum of their abs(f) + 2) >> 2
    earlier  of groups 0..g-1: f at the position itself, abs(f) there, and
         (sum of abs(f) at the eight positions around + 2) >> 2    all 0: outside, or not kept

    a1  = clip((own[kind] u_own + earlier u_earlier + 16 (level[level] + kind[kind]) + 8) >> 4,
               0, 255)
    a2  = clip((middle a1 + middle_bias + 32) >> 6, 0, 255)
    z   = (last a2 + last_bias + 32) >> 6         a mean and a place for each value, in 1/32
    m   = (2 z_mean + sum over neighbours t of line[kind, t] q_t + 4) >> 3        in 1/8
    row = 8 clip(((z_place + 2) >> 2) + 32, 0, 63) + m mod 8
    c   = clip(m div 8, -127, 127)

Table ``row`` of ``values.cumulative`` gives the probability of symbol ``q - c + 31`` in 1/65536:
that of a logistic distribution, about, of mean (m mod 8)/8, and scale ``0.05 * 1.108^place``.
Symbol 63 stands for all others, and for those without a probability of their own: after a pass
comes one of these values, as ``q + 128``, each of 256 as likely.

**Exact on every machine**, as :mod:`cwic.context` is and for the same reasons.

Tensors of ``context.safetensors`` (H: hidden width; G groups; c: values of group g, which has the
values from k on):

=====================  =======  ====================  ==========================================
name                   dtype    shape                 meaning
=====================  =======  ====================  ==========================================
levels.frequencies     uint16   [rows, L + 1]         see :mod:`cwic.level_model`
values.sizes           uint16   [G]                   c of each group; n together
values.first_levels    uint8    [G]                   rising, 1..L
values.steps           float32  [L + 1]               see :mod:`cwic.quantiser`
values.bits            float32  [L + 1]               typical bits of a position, by level
values.features        uint8    [128]                 0 for 0
values.cumulative      uint16   [512, 64]             rising from 0; below 65536
values.{g}.own         int8     [6, 13 c, H]          by kind of pass; by neighbour, then sums
values.{g}.earlier     int8     [3 k, H]              of f, abs(f) and sums
values.{g}.level       int32    [L + 1, H]
values.{g}.kind        int32    [7, H]
values.{g}.middle      int8     [H, H]
values.{g}.middle_bias int32    [H]
values.{g}.last        int8     [H, 2 c]              means, then places
values.{g}.last_bias   int32    [2 c]
values.{g}.line        int8     [6, 12, c]
=====================  =======  ====================  ==========================================
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cwic.errors import BundleError
from cwic.exact_layers import ExactLayers, check_exact
from cwic.neighbourhood import quarter
from cwic.quantiser import LARGEST, LARGEST_STEP, SMALLEST_STEP
from cwic.scan import KINDS, NEIGHBOURS
from cwic.symbol_model import array_of

__all__ = [
    "ESCAPE",
    "FEATURE",
    "MEANS",
    "REACH",
    "SCALES",
    "SYMBOLS",
    "GroupNetwork",
    "check_tensors",
    "scale_of",
]

FEATURE = 8
"""Features are in 1/8."""
MEANS = 8
"""Means are in 1/8."""
SCALES = 64
SYMBOLS = 64
REACH = 31
"""Symbols stand for values up to so far from c."""
ESCAPE = SYMBOLS - 1
"""The symbol of all other values."""
OWN_SUM, AROUND_SUM = NEIGHBOURS // 4, 8 // 4
"""How large sums of features are at most: so many times a feature."""
_LEVEL_GRID = 16
_MOST_GROUPS = 255
_MOST_HIDDEN = 1024


def scale_of(place: Any) -> Any:
    """Scale of the logistic distribution at a place 0..63, a number or an array."""
    return 0.05 * 1.108**place


class GroupNetwork:
    """The weights of one group."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], g: int, size: int) -> None:
        def of(name: str) -> NDArray[np.float64]:
            part: NDArray[Any] = tensors[f"values.{g}.{name}"]
            return part.astype(np.float64)

        self.size = size
        own, earlier = of("own"), of("earlier")
        level = of("level")[None] + of("kind")[:, None]
        most = float(tensors["values.features"].max())
        reach = np.abs(own).sum(1) + (OWN_SUM - 1) * np.abs(own[:, NEIGHBOURS * size :]).sum(1)
        sums = np.abs(earlier[len(earlier) // 3 * 2 :]).sum(0)
        before = np.abs(earlier).sum(0) + (AROUND_SUM - 1) * sums
        check_exact(
            most * (reach.max() + before.max(initial=0))
            + _LEVEL_GRID * (np.abs(of("level")).max() + np.abs(of("kind")).max() + 1)
        )
        self.own = (own / _LEVEL_GRID).astype(np.float32)
        self.earlier = (earlier / _LEVEL_GRID).astype(np.float32).reshape(3, -1, own.shape[2])
        self.level = (level + 0.5).astype(np.float32)
        # 8 m stays below 2^20 then, whatever ``line`` holds.
        self.layers = ExactLayers(of)
        self.line = of("line").astype(np.float32)

    def of_earlier(self, here: NDArray[np.int8], around: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What earlier groups add to the sums of the first layer, [positions, H].

        Args:
            here: their f, [positions, k].
            around: the sums of abs(f) around, [positions, k].
        """
        inputs = here.astype(np.float32)
        found: NDArray[np.float32] = inputs @ self.earlier[0]
        found += np.abs(inputs, out=inputs) @ self.earlier[1]
        inputs[:] = around
        found += inputs @ self.earlier[2]
        return found

    def predicted(
        self,
        features: NDArray[np.int8],
        numbers: NDArray[np.int8],
        neighbours: NDArray[np.intp],
        z: NDArray[np.float32],
        levels: NDArray[np.uint8],
        kinds: list[tuple[int, slice]],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Row of the table, and c, of each value: both [positions, c].

        Args:
            features, numbers: f and q of the own group, [places, c].
            neighbours: places of the known neighbours, [positions, 12].
            z: of :meth:`of_earlier`, [positions, H]; it is overwritten.
            levels: of the positions.
            kinds: kind of pass, and which positions are of it.
        """
        line = np.zeros((len(z), self.size), np.float32)
        for kind, part in kinds:
            z[part] += self.level[kind].take(levels[part], axis=0)
            if kind < len(self.own):  # else the first pass, which knows no neighbours
                inputs, line[part] = _gathered(features, numbers, neighbours[part], self.line[kind])
                z[part] += inputs @ self.own[kind]
        z = self.layers(z)
        line += 2 * z[:, : self.size] + 4
        mean = line.astype(np.int32) >> 3
        place = z[:, self.size :].astype(np.int32) + 2 >> 2
        place += SCALES // 2
        np.clip(place, 0, SCALES - 1, out=place)
        place *= MEANS
        place += mean & (MEANS - 1)
        mean >>= 3
        return place, np.clip(mean, -LARGEST, LARGEST, out=mean)


def _gathered(
    features: NDArray[np.int8],
    numbers: NDArray[np.int8],
    neighbours: NDArray[np.intp],
    line: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """u_own and the sum of line q, [positions, 13 c] and [positions, c]."""
    count, size = len(neighbours), features.shape[1]
    inputs = np.empty((count, NEIGHBOURS + 1, size), np.float32)
    own = features.take(neighbours, axis=0)
    inputs[:, :NEIGHBOURS] = own
    sums = np.zeros((count, size), np.int16)
    for neighbour in np.abs(own).swapaxes(0, 1):  # twice as fast as sum()
        sums += neighbour
    inputs[:, NEIGHBOURS] = quarter(sums)
    found = np.einsum("ptc,tc->pc", numbers.take(neighbours, axis=0), line, casting="safe")
    return inputs.reshape(count, -1), found


def check_tensors(tensors: Mapping[str, NDArray[Any]], n: int, levels: int) -> None:
    """Whether there are all arrays, of the form above.

    Raises:
        BundleError: one is missing, of another form, or holds what cannot be.
    """

    def form(name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return array_of(tensors, f"values.{name}", dtype, shape)

    def refuse(name: str) -> BundleError:
        return BundleError(f"values.{name} is damaged; export the model again")

    groups = int(np.size(tensors.get("values.sizes", ())))
    sizes = form("sizes", "uint16", (groups,)).astype(np.int64)
    if not 1 <= groups <= _MOST_GROUPS or sizes.min() < 1 or sizes.sum() != n:
        raise refuse("sizes")
    first_levels = form("first_levels", "uint8", (groups,)).astype(np.int64)
    if first_levels[0] < 1 or first_levels[-1] > levels or (np.diff(first_levels) < 0).any():
        raise refuse("first_levels")
    steps = form("steps", "float32", (levels + 1,))
    if steps[0] != 0 or not ((steps[1:] >= SMALLEST_STEP) & (steps[1:] <= LARGEST_STEP)).all():
        raise refuse("steps")
    bits = form("bits", "float32", (levels + 1,))
    if not np.isfinite(bits).all() or bits[0] != 0 or (np.diff(bits) < 0).any() or not bits[-1]:
        raise refuse("bits")
    features = form("features", "uint8", (LARGEST + 1,)).astype(np.int64)
    if features[0] or features.max() > LARGEST or (np.diff(features) < 0).any():
        raise refuse("features")
    starts = form("cumulative", "uint16", (SCALES * MEANS, SYMBOLS)).astype(np.int64)
    # The last symbol ends at 65536; no symbol may have all of a table.
    if starts[:, 0].any() or (np.diff(starts) < 0).any() or not starts[:, -1].all():
        raise refuse("cumulative")
    middle = tensors.get("values.0.middle", np.zeros((1, 1), np.int8))
    hidden = middle.shape[-1] if middle.ndim == 2 else 0
    if not 1 <= hidden <= _MOST_HIDDEN:
        raise BundleError("values.0.middle does not fit the model; export the model again")
    for g, size in enumerate(sizes.tolist()):
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "middle": ("int8", (hidden, hidden)),
            "own": ("int8", (KINDS - 1, (NEIGHBOURS + 1) * size, hidden)),
            "earlier": ("int8", (3 * int(sizes[:g].sum()), hidden)),
            "level": ("int32", (levels + 1, hidden)),
            "kind": ("int32", (KINDS, hidden)),
            "middle_bias": ("int32", (hidden,)),
            "last": ("int8", (hidden, 2 * size)),
            "last_bias": ("int32", (2 * size,)),
            "line": ("int8", (KINDS - 1, NEIGHBOURS, size)),
        }
        for name, (dtype, shape) in shapes.items():
            form(f"{g}.{name}", dtype, shape)
