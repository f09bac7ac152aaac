"""How the entropy model of codes is trained and frozen: of signs, and of values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cwic.context import LOGITS
from cwic.errors import TrainingError
from cwic.quantiser import LARGEST, ZERO, Quantiser
from cwic.value_network import FEATURE, MEANS, REACH, SCALES, scale_of
from cwic_training.config import ModelConfig
from cwic_training.context_net import ContextNet
from cwic_training.fixed_point import fixed_point_bytes
from cwic_training.model import CodecNetwork
from cwic_training.value_context import ValueContext

__all__ = ["SignFit", "SymbolFit", "ValueFit"]

_RAREST = 32
_CHEAPEST_POSITION = 2.0
"""Bits that are added to those of a position of a crop before crops are weighed."""


class SymbolFit(ABC):
    """Codes of one kind, from an encoder network to integers.

    Attributes:
        net: the network that predicts them.
        progressive: whether it also learns the order of a progressive stream.
    """

    progressive: bool

    @property
    @abstractmethod
    def net(self) -> ContextNet | ValueContext: ...

    @abstractmethod
    def encoded(self, raw: Tensor, e: Tensor) -> NDArray[np.uint8]:
        """The bytes of an encoder graph, uint8 [channels, h, w], of one picture's tensors."""

    @abstractmethod
    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What is coded of those at levels uint8 [h, w]."""

    @abstractmethod
    def cost(self, sent: Tensor, levels: Tensor, *, progressive: bool = False) -> Tensor:
        """Bits per kept code, float [N, n, h, w].

        Args:
            sent: uint8 [N, channels, h, w].
            levels: int64 [N, h, w].
            progressive: in the order of a progressive stream.
        """

    @abstractmethod
    def loss(self, cost: Tensor, levels: Tensor) -> Tensor:
        """What a step of training lowers."""

    @abstractmethod
    def tables(self, typical_bits: Callable[[], NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
        """The arrays of the frozen model but for the levels', by name.

        Args:
            typical_bits: finds what a position of each level takes, [L + 1], rising from 0.
        """

    def start_from(self, tables: Mapping[str, Tensor]) -> None:
        """Let the network be the one that :meth:`tables` were made of.

        Raises:
            CheckpointError: they are of another model.
        """
        self.net.start_from(tables)


class SignFit(SymbolFit):
    """Codes that are signs (:mod:`cwic.context`)."""

    progressive = True

    def __init__(self, config: ModelConfig, hidden: int) -> None:
        self._net = ContextNet(config, hidden)

    @property
    def net(self) -> ContextNet:
        return self._net

    def encoded(self, raw: Tensor, e: Tensor) -> NDArray[np.uint8]:
        return np.packbits((e > 0).numpy(), axis=0)

    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return codes

    def cost(self, sent: Tensor, levels: Tensor, *, progressive: bool = False) -> Tensor:
        bits = torch.from_numpy(np.unpackbits(sent.numpy(), axis=1)).float()
        cost: Tensor = self.net(bits, self.kept(levels), levels, progressive=progressive)
        return cost

    def kept(self, levels: Tensor) -> Tensor:
        """Which codes there are at levels [N, h, w]: zeros and ones [N, n, h, w]."""
        group = torch.arange(self.net.n).view(1, -1, 1, 1) // self.net.group
        return (group < levels[:, None]).float()

    def loss(self, cost: Tensor, levels: Tensor) -> Tensor:
        return cost.sum() / (self.net.group * levels.sum()).clamp(min=1)

    def tables(self, typical_bits: Callable[[], NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
        return {**self.net.integers(), "codes.p1": sigmoid_table()}


class ValueFit(SymbolFit):
    """Codes that are values (:mod:`cwic.value_model`)."""

    progressive = False

    def __init__(self, network: CodecNetwork, hidden: int) -> None:
        quantiser = network.quantiser
        if quantiser is None:
            raise TrainingError("the model's codes are no values; use its own entropy stage")
        self._net = ValueContext(quantiser.sizes, quantiser.levels, hidden)
        self._kept = quantiser.kept
        first_levels = np.array(quantiser.first_levels, np.uint8)
        self._fixed: dict[str, NDArray[Any]] = {
            "values.sizes": np.array(quantiser.sizes, np.uint16),
            "values.first_levels": first_levels,
            "values.steps": quantiser.steps.numpy().astype(np.float32),
            "values.features": feature_table(),
            "values.cumulative": logistic_table(),
        }
        self._quantiser = Quantiser(
            self._fixed["values.steps"], np.repeat(first_levels, quantiser.sizes)
        )

    @property
    def net(self) -> ValueContext:
        return self._net

    def encoded(self, raw: Tensor, e: Tensor) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = fixed_point_bytes(raw[None])[0].numpy()
        return codes

    def sent(self, codes: NDArray[np.uint8], levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._quantiser.quantised(codes, levels)

    def cost(self, sent: Tensor, levels: Tensor, *, progressive: bool = False) -> Tensor:
        cost: Tensor = self.net(sent.float() - ZERO, self._kept(levels), levels)
        return cost

    def loss(self, cost: Tensor, levels: Tensor) -> Tensor:
        """The mean cost of crops, each over about its own: high rates would be all else."""
        bits = cost.sum(1).mean((1, 2))
        return (bits / (bits.detach() + _CHEAPEST_POSITION)).mean()

    def tables(self, typical_bits: Callable[[], NDArray[np.float64]]) -> dict[str, NDArray[Any]]:
        bits = {"values.bits": typical_bits().astype(np.float32)}
        return {**self.net.integers(), **self._fixed, **bits}


def sigmoid_table() -> NDArray[np.uint16]:
    """``codes.p1``."""
    logits = (np.arange(LOGITS) - LOGITS // 2) / 32
    whole = np.rint(65536 / (1 + np.exp(-logits)))
    return np.clip(whole, _RAREST, 65536 - _RAREST).astype(np.uint16)


def feature_table() -> NDArray[np.uint8]:
    """``values.features``."""
    table: NDArray[np.uint8] = np.rint(FEATURE * np.log2(1 + np.arange(LARGEST + 1.0))).astype(
        np.uint8
    )
    return table


def logistic_table() -> NDArray[np.uint16]:
    """``values.cumulative``."""
    place, part = np.divmod(np.arange(SCALES * MEANS), MEANS)
    edges = np.arange(-REACH, REACH + 2) - 0.5
    below = (edges[None] - part[:, None] / MEANS) / scale_of(place)[:, None]
    share = np.diff(1 / (1 + np.exp(-np.clip(below, -500, 500))), axis=1)
    others = 1 - share.sum(1, keepdims=True)
    # A symbol with less than half of a 65536th is told as one of the others.
    whole = np.rint(np.append(share, others, 1) * 65536).astype(np.int64)
    whole[:, -1] = np.maximum(whole[:, -1], 1)
    whole[np.arange(len(whole)), whole.argmax(1)] += 65536 - whole.sum(1)
    table: NDArray[np.uint16] = (np.cumsum(whole, axis=1) - whole).astype(np.uint16)
    return table
