"""What quantising costs, measured on pictures.

A score compares a candidate for one of the two graphs with fp32 on the whole path, from
picture to picture. An encoder chooses other codes and another importance map, so its levels
are scaled until as many codes are kept as the fp32 encoder keeps: PSNR at an equal number
of codes. A decoder gets the codes and levels of the fp32 encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.rate import levels_from_importance
from cwic.symbol_model import SymbolModel
from cwic_export.quantize.calibration import Feeds
from cwic_export.quantize.session import Session
from cwic_training.data import open_centre

__all__ = ["SCALES", "Role", "Score", "Scorer", "open_pictures"]

Bytes: TypeAlias = NDArray[np.uint8]
Role: TypeAlias = Literal["encoder", "decoder"]

SCALES = (0.25, 0.5, 1.0)
"""Rate factors at which quality is compared."""
_LARGEST_SIDE_PX = 512
_BISECTIONS = 20


def open_pictures(paths: Sequence[Path]) -> list[Bytes]:
    """Pictures to calibrate with and to score on, uint8 [1, H, W, 3]; of large ones the centre.

    Raises:
        TrainingError: a picture cannot be read, or is smaller than 8 pixels.
    """
    return [open_centre(path, _LARGEST_SIDE_PX)[None] for path in paths]


@dataclass(frozen=True)
class Score:
    """Difference of a candidate from fp32, means over the pictures.

    Attributes:
        delta_psnr_db: change of the PSNR at each of :data:`SCALES`.
        disturbance: mean squared difference of the restored pictures, in 8-bit steps squared.
            It is never negative, and that of several layers is about the sum of theirs.
        flip_share: share of the code bits that differ; 0 for a decoder.
    """

    delta_psnr_db: tuple[float, ...]
    disturbance: float
    flip_share: float

    @property
    def loss_db(self) -> float:
        """PSNR lost at the scale where most is lost."""
        return -min(self.delta_psnr_db)


@dataclass(frozen=True)
class _View:
    """One picture at one scale, as the fp32 graphs have it."""

    picture: int
    scale: float
    levels: Bytes
    sent: Bytes
    restored: Bytes


class Scorer:
    """The fp32 graphs and what they make of the pictures.

    Args:
        encoder, decoder: the fp32 graphs.
        model: of the codes.
        pictures: from :func:`open_pictures`.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        model: SymbolModel[Any, Any],
        pictures: Sequence[Bytes],
    ) -> None:
        self._decoder, self._model, self._levels = decoder, model, model.levels
        self._pictures = list(pictures)
        self._encoded = [self._encode(encoder, picture) for picture in self._pictures]
        self._views = []
        for index, (codes, importance) in enumerate(self._encoded):
            for scale in SCALES:
                chosen = levels_from_importance(importance, scale, model.levels)
                sent = self._sent(codes, chosen)
                restored = self._decode(decoder, sent, chosen)
                self._views.append(_View(index, scale, chosen, sent, restored))

    def feeds(self, role: Role) -> Iterator[Feeds]:
        """Inputs of the encoder or decoder, to calibrate with."""
        if role == "encoder":
            yield from ({"image": picture} for picture in self._pictures)
            return
        for view in self._views:
            yield {"codes": view.sent, "levels": view.levels}

    def score(self, role: Role, candidate: Session) -> Score:
        """Compare a candidate for ``role`` with fp32."""
        return (
            self._score_encoder(candidate) if role == "encoder" else self._score_decoder(candidate)
        )

    def _score_encoder(self, candidate: Session) -> Score:
        encoded = [self._encode(candidate, picture) for picture in self._pictures]
        flips = [
            (self._model.finest(codes[0]) != self._model.finest(before[0])).mean()
            for (codes, _), (before, _) in zip(encoded, self._encoded, strict=True)
        ]

        def restored(view: _View) -> Bytes:
            codes, importance = encoded[view.picture]
            levels = self._as_many(importance, view.levels)
            return self._decode(self._decoder, self._sent(codes, levels), levels)

        return self._compare(restored, float(np.mean(flips)))

    def _score_decoder(self, candidate: Session) -> Score:
        return self._compare(lambda view: self._decode(candidate, view.sent, view.levels), 0.0)

    def _compare(self, restored: Callable[[_View], Bytes], flip_share: float) -> Score:
        changes: dict[float, list[float]] = {scale: [] for scale in SCALES}
        disturbances = []
        for view in self._views:
            picture, after = self._pictures[view.picture], restored(view)
            changes[view.scale].append(_psnr_db(after, picture) - _psnr_db(view.restored, picture))
            disturbances.append(_mean_square(after, view.restored))
        deltas = tuple(float(np.mean(change)) for change in changes.values())
        return Score(deltas, float(np.mean(disturbances)), flip_share)

    def _as_many(self, importance: Bytes, levels: Bytes) -> Bytes:
        """Levels out of ``importance`` that keep as many codes as ``levels``.

        Importance has 256 values, so the count jumps with the scale: the levels on both sides
        of the jump are mixed.
        """
        wanted, low, high = levels.mean(), 1e-3, 1e3
        for _ in range(_BISECTIONS):
            middle = (low * high) ** 0.5
            if levels_from_importance(importance, middle, self._levels).mean() < wanted:
                low = middle
            else:
                high = middle
        fewer, more = (levels_from_importance(importance, s, self._levels) for s in (low, high))
        jump = more.mean() - fewer.mean()
        share = (wanted - fewer.mean()) / jump if jump > 0 else 0.0
        return np.where(np.random.default_rng(0).random(levels.shape) < share, more, fewer)

    def _sent(self, codes: Bytes, levels: Bytes) -> Bytes:
        """Of one picture, both with an axis for it."""
        return self._model.sent(codes[0], levels[0])[None]

    @staticmethod
    def _encode(encoder: Session, picture: Bytes) -> tuple[Bytes, Bytes]:
        codes, importance = encoder.run({"image": picture})
        return codes, importance

    @staticmethod
    def _decode(decoder: Session, codes: Bytes, levels: Bytes) -> Bytes:
        (image,) = decoder.run({"codes": codes, "levels": levels})
        return image


def _mean_square(a: Bytes, b: Bytes) -> float:
    return float(np.square(a.astype(np.float32) - b).mean())


def _psnr_db(a: Bytes, b: Bytes) -> float:
    return float(10 * np.log10(255**2 / max(_mean_square(a, b), 1e-10)))
