"""Codes as bit planes: an embedded dead-zone quantiser behind the projection.

The encoder projects to m values y, and each value has digits at falling thresholds T, each half
the one before. A digit is two codes, one for y > 0 and one for y < 0, decided one after the
other as a converter by successive approximation does::

    A_j = (y - sum over earlier digits i of the same value of T_i A_i) > T_j
    B_j = (-y - sum over earlier digits of T_i B_i)                    > T_j

    u   = sum over kept digits of v_j (A_j - B_j)
    y^  = u + sign(u) o_j                             j the last digit that is kept

(v starts as T, and o as a bit less than half of it, for a value lies above its last threshold.)
So most codes are 0 and cheap to code, a value near 0 costs next to nothing, and cutting the
digits anywhere leaves a coarser quantiser: levels keep them in an order that is about that of
what a bit of each saves (:mod:`cwic_training.digits`). JPEG 2000 codes planes of wavelet
coefficients for the same reasons; codes of -1 and 1 that are as often the one as the other cannot
say "nothing here" for less than a bit.

All sums are linear in codes, so exported graphs hold them as convolutions.

What lies behind the last digit that is kept raises it where that is nearer: training lifts values
before their digits are decided, and an encoder, which has all digits before it knows which are
kept, does the same to codes (:mod:`cwic.rounding`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cwic.rounding import LIFT
from cwic_training import ops
from cwic_training.digits import deviations, schedule

__all__ = ["BitPlanes", "Restoring"]

MASK_WIDTH = 32.0
"""Width of the mask's surrogate, in codes: about a third of a plane."""


class BitPlanes(nn.Module):
    """The digits of m values as n codes, and back.

    Code ``2 j`` is A of digit j and ``2 j + 1`` is B.

    Args:
        n: codes.
        groups: how many groups they are decided in.
    """

    index: Tensor
    threshold: Tensor
    previous: Tensor

    def __init__(self, n: int, groups: int) -> None:
        super().__init__()
        self.schedule = schedule(n, groups)
        self.values = len(self.schedule.rows)
        self.log_gain = nn.Parameter(deviations()[list(self.schedule.rows)].log())
        threshold = torch.tensor(self.schedule.threshold)
        self.height = nn.Parameter(threshold.clone())
        self.offset = nn.Parameter(0.42 * threshold)
        self.sharpness = 2 / float(threshold.min())
        self.register_buffer("threshold", threshold, persistent=False)
        self.register_buffer("index", torch.tensor(self.schedule.value), persistent=False)
        self._rounds, previous = self._chains()
        self.register_buffer("previous", previous, persistent=False)

    @property
    def gain(self) -> Tensor:
        """Of y before it is quantised; y^ is divided by it. [m]"""
        return self.log_gain.exp()

    def _chains(self) -> tuple[list[Tensor], Tensor]:
        """The first digit of each value, the second of those that have one, and so on.

        And which digit comes before each, -1 before the first of a value.
        """
        own: dict[int, list[int]] = {}
        previous: list[int] = []
        rounds: list[list[int]] = []
        for digit, value in enumerate(self.schedule.value):
            chain = own.setdefault(value, [])
            if len(chain) == len(rounds):
                rounds.append([])
            rounds[len(chain)].append(digit)
            previous.append(chain[-1] if chain else -1)
            chain.append(digit)
        return [torch.tensor(digits) for digits in rounds], torch.tensor(previous)

    def forward(self, y: Tensor) -> Tensor:
        """E of all codes, float32 [N, n, h, w]: how far above its threshold, over the threshold.

        The gradient of a code reaches y directly, not through earlier digits.

        Args:
            y: values, [N, m, h, w].
        """
        y = y.float() * self.gain.view(1, -1, 1, 1)
        signed = torch.stack([y, -y], 2)
        rest = signed.detach().clone()
        e = signed.new_empty(len(y), len(self.index), 2, *y.shape[2:])
        for digits in self._rounds:
            values = self.index[digits]
            threshold = self.threshold[digits].view(1, -1, 1, 1, 1)
            left = rest[:, values]
            passed = signed[:, values]
            e[:, digits] = (passed + (left - passed).detach()) / threshold - 1
            rest[:, values] = left - threshold * (left > threshold)
        return e.flatten(1, 2)

    def restored(self, z: Tensor) -> Tensor:
        """y^ of masked codes in {-1, 0, 1}, float [N, n, h, w]: [N, m, h, w]."""
        pairs = z.view(len(z), -1, 2, *z.shape[2:])
        u = self._summed((pairs[:, :, 0] - pairs[:, :, 1]) / 2, self.height)
        above = self._summed(pairs[:, :, 0].abs(), self._more_offset())
        y = u + (u * self.sharpness).clamp(-1, 1) * above
        return y / self.gain.view(1, -1, 1, 1)

    def _summed(self, digits: Tensor, weight: Tensor) -> Tensor:
        parts = digits * weight.view(1, -1, 1, 1)
        total = parts.new_zeros(len(parts), self.values, *parts.shape[2:])
        return total.index_add(1, self.index, parts)

    def _more_offset(self) -> Tensor:
        """How much more each digit's o is than that of the digit before it."""
        before = torch.cat([self.offset, self.offset.new_zeros(1)])[self.previous]
        more: Tensor = self.offset - before
        return more

    def mask(self, p: Tensor, scale: Tensor, levels: int) -> Tensor:
        """:func:`~cwic_training.ops.importance_mask` with a surrogate :data:`MASK_WIDTH` wide.

        What the next few digits are worth says little: large and small values take turns, and
        importance would settle wherever a large one is next.
        """
        n = 2 * len(self.index)
        hard = ops.importance_mask(p.detach(), scale, levels, n)
        soft = ops.importance_mask_surrogate(p, scale, levels, n, MASK_WIDTH)
        mask: Tensor = hard + (soft - soft.detach())
        return mask

    def straight_through(self, y: Tensor, bits: Tensor, mask: Tensor) -> Tensor:
        """:meth:`restored`, differentiable in y as if every value that is kept came through.

        Args:
            y: values, [N, m, h, w].
            bits: codes of y, zeros and ones [N, n, h, w].
            mask: which are kept, of that shape.
        """
        restored = self.restored((2 * bits.detach() - 1) * mask)
        gain = self.gain.view(1, -1, 1, 1)
        first = self._rounds[0]
        reach = 2 * self.threshold[first].view(1, -1, 1, 1)
        # first[k] is the first digit of value k: values are numbered by their first digits.
        kept = mask.detach()[:, 2 * first]
        through = (y.float() * gain).clamp(-reach, reach) * kept / gain.detach()
        return restored + (through - through.detach())

    def lifted(self, y: Tensor, levels: Tensor, highest: int) -> Tensor:
        """Values moved away from 0 by part of T, so that kept digits are rounded and not cut.

        Args:
            y: values, [N, m, h, w].
            levels: int64 [N, h, w], 0..L.
            highest: L.
        """
        last, lift = self._at_levels(levels, highest)
        more = torch.where(last < torch.inf, last * lift, 0.0)
        return y + y.sign() * more / self.gain.detach().view(1, -1, 1, 1)

    def intervals(self, y: Tensor, levels: Tensor, highest: int) -> tuple[Tensor, Tensor]:
        """Values in units of the intervals that the kept digits leave them in.

        The interval around 0 is wider than the others, so values in it are shrunk and others
        moved by as much: then :func:`round` says which interval, as long as the value is in the
        range of its digits.

        Args:
            y: values, [N, m, h, w], before they are lifted.
            levels: int64 [N, h, w], 0..L.
            highest: L.

        Returns:
            Both float32 [N, m, h, w]: the values, and ones where a digit is kept.
        """
        last, lift = self._at_levels(levels, highest)
        kept = (last < torch.inf).float()
        u = y.float() * self.gain.view(1, -1, 1, 1) / last
        dead = 1 - lift
        w = u - u.minimum(dead).maximum(-dead) * (1 - 0.5 / dead)
        # With all digits 1 a value is taken for its first threshold twice, less one interval.
        largest = 2 * self.threshold[self._rounds[0]].view(1, -1, 1, 1) / last - 1
        return torch.where(kept > 0, w.minimum(largest).maximum(-largest), 0.0), kept

    def _at_levels(self, levels: Tensor, highest: int) -> tuple[Tensor, Tensor]:
        """T of the last digit that is kept, infinity if none is, and its lift, [N, m, h, w]."""
        last, lift = self._last_digits(highest)
        found = F.embedding(levels, torch.cat([last, lift], 1))
        both = found.permute(0, 3, 1, 2)
        return both[:, : self.values], both[:, self.values :]

    def _last_digits(self, highest: int) -> tuple[Tensor, Tensor]:
        """T and lift of the last digit of each value that is kept at each level, [L + 1, m]."""
        last = self.threshold.new_full((highest + 1, self.values), torch.inf)
        lift = torch.zeros_like(last)
        together = len(self.index) // highest
        for level in range(1, highest + 1):
            kept = slice(level * together)
            last[level].scatter_reduce_(0, self.index[kept], self.threshold[kept], "amin")
            # Digits follow one another, and lifts of a value come in their order.
            more = F.one_hot(self.index[kept], self.values).sum(0)
            lift[level] = self._lifts(more)
        return last, lift

    def _lifts(self, kept: Tensor) -> Tensor:
        """What is added to each value, over T, if so many of its digits are kept."""
        later = torch.bincount(self.index, minlength=self.values) - kept
        table = self.threshold.new_tensor(LIFT)
        return table[later.clamp(0, len(LIFT) - 1)]

    def folded_feedback(self) -> Tensor:
        """Kernel [n, n, 1, 1] from earlier signs to E."""
        pair = self._same_value()
        kernel = torch.zeros(len(self.index), 2, len(self.index), 2)
        for side in range(2):
            kernel[:, side, :, side] = pair
        return kernel.flatten(2, 3).flatten(0, 1)[:, :, None, None]

    def _same_value(self) -> Tensor:
        """What an earlier digit that is 1 and not 0 takes from E, halved for signs."""
        same = self.index[:, None] == self.index[None, :]
        earlier = torch.ones_like(same).tril(-1)
        return -0.5 * (same & earlier) * self.threshold[None, :] / self.threshold[:, None]

    def folded_projection(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Those of E from those of y, [m, width] and [m]; signs of -1 subtract nothing then."""
        gain = self.gain[self.index] / self.threshold
        rows, offset = weight[self.index] * gain[:, None], bias[self.index] * gain
        always = self._same_value().sum(1) - 1
        both = torch.stack([rows, -rows], 1).flatten(0, 1)
        bias = torch.stack([offset + always, always - offset], 1).flatten()
        return both[:, :, None, None], bias

    def restoring(self) -> Restoring:
        """:meth:`restored` as convolutions."""
        return Restoring(
            self._spread(self.height / 2 / self.gain[self.index], -1),
            self._spread(self._more_offset() / 2 / self.gain[self.index], 1),
            self.sharpness * self.gain.detach(),
        )

    def _spread(self, weight: Tensor, sign: int) -> Tensor:
        """Of each digit, as a matrix from both its codes to its value, [m, n]."""
        matrix = F.one_hot(self.index, self.values).T * weight
        return torch.stack([matrix, sign * matrix], 2).flatten(1).detach()


class Restoring(nn.Module):
    """y^ of masked codes z: ``sums(z) + clip(sharpness sums(z), -1, 1) offsets(abs(z))``.

    Which codes are kept, which is what ``abs(z)`` says, has no gradient here.
    """

    sharpness: Tensor

    def __init__(self, sums: Tensor, offsets: Tensor, sharpness: Tensor) -> None:
        super().__init__()
        self.sums = _matrix_conv(sums)
        self.offsets = _matrix_conv(offsets)
        self.register_buffer("sharpness", sharpness.detach().view(1, -1, 1, 1))

    def forward(self, z: Tensor) -> Tensor:
        """[N, n, h, w] to [N, m, h, w]."""
        return self.with_slope(z)[0]

    def with_slope(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """y^, and its slope over the sums as long as the same codes are kept: [N, m, h, w]."""
        u, offsets = self.sums(z), self.offsets(z.detach().abs())
        steep = u * self.sharpness
        y: Tensor = u + steep.clamp(-1, 1) * offsets
        slope: Tensor = 1 + (steep.abs() < 1).to(z.dtype) * self.sharpness * offsets
        return y, slope


def _matrix_conv(weight: Tensor) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
    conv.weight.data = weight[:, :, None, None].clone()
    return conv
