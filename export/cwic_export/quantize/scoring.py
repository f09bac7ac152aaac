"""What quantising costs, measured on pictures.

A score compares a candidate for one of the two graphs with fp32 on the whole path, from
picture to picture, at some qualities. An encoder chooses other codes and another importance
map, so both the PSNR and the bits that the entropy model takes change; bits count as much as
they are worth on the curve of fp32::

    loss = slope * d ln(bits) - d PSNR            slope = dPSNR / d ln(bits) of fp32, about 4 dB

A decoder gets the codes and levels of the fp32 encoder, and its bits do not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cwic.entropy_model import ContextModel
from cwic.rate import QualityScale, levels_from_importance
from cwic_export.quantize.calibration import Feeds
from cwic_export.quantize.session import Session
from cwic_training.data import open_centre

__all__ = ["QUALITIES", "Role", "Score", "Scorer", "open_pictures"]

Bytes: TypeAlias = NDArray[np.uint8]
Role: TypeAlias = Literal["encoder", "decoder"]

QUALITIES = (20, 50, 80)
"""Of a low, a middle and a high rate; what they are is the model's to say."""
_LARGEST_SIDE_PX = 512


def open_pictures(paths: Sequence[Path]) -> list[Bytes]:
    """Pictures to calibrate with and to score on, uint8 [1, H, W, 3]; of large ones the centre.

    Raises:
        TrainingError: a picture cannot be read, or is smaller than 8 pixels.
    """
    return [open_centre(path, _LARGEST_SIDE_PX)[None] for path in paths]


@dataclass(frozen=True)
class _View:
    """One picture at one scale, as it would be sent.

    Attributes:
        sent, levels: uint8 [channels, h, w] and [h, w].
        bits: ideal ones, of both.
    """

    sent: Bytes
    levels: Bytes
    bits: float

    @property
    def feeds(self) -> Feeds:
        """What a decoder takes."""
        return {"codes": self.sent[None], "levels": self.levels[None]}


_Views: TypeAlias = Sequence[Sequence[_View]]
"""By quality and picture."""


@dataclass(frozen=True)
class Score:
    """Difference of a candidate from fp32, means over the pictures.

    Attributes:
        delta_psnr_db: change of the PSNR at each of :data:`QUALITIES`.
        delta_bits: change of the bits at each, as a share: 0.01 is one percent more.
        losses_db: PSNR lost at equal bits, at each; negative where something was gained.
        flip_share: share of the codes that differ in the finest steps; 0 for a decoder.
    """

    delta_psnr_db: tuple[float, ...]
    delta_bits: tuple[float, ...]
    losses_db: tuple[float, ...]
    flip_share: float

    @property
    def loss_db(self) -> float:
        """PSNR lost at equal bits, at the quality where most is lost."""
        return max(self.losses_db)

    @property
    def mean_loss_db(self) -> float:
        """Mean over the qualities; that of several layers is about the sum of theirs."""
        return float(np.mean(self.losses_db))


class Scorer:
    """The fp32 graphs and what they make of the pictures.

    Args:
        encoder, decoder: the fp32 graphs.
        entropy: the entropy model.
        qualities: of the model.
        pictures: from :func:`open_pictures`.
    """

    def __init__(
        self,
        encoder: Session,
        decoder: Session,
        entropy: ContextModel,
        qualities: QualityScale,
        pictures: Sequence[Bytes],
    ) -> None:
        self._decoder, self._entropy = decoder, entropy
        self._scales = [qualities.scale(quality) for quality in QUALITIES]
        self._pictures = list(pictures)
        self._encoded = [self._encode(encoder, picture) for picture in self._pictures]
        self._views = [
            [self._view(codes, importance, scale) for codes, importance in self._encoded]
            for scale in self._scales
        ]
        restored = [[self._decode(decoder, view) for view in views] for views in self._views]
        self._psnr_db = self._psnrs_db(restored)
        self._log_bits = _log_bits(self._views)
        self._slope_db = _slope(self._psnr_db, self._log_bits)

    def feeds(self, role: Role) -> Iterator[Feeds]:
        """Inputs of the encoder or decoder, to calibrate with."""
        if role == "encoder":
            yield from ({"image": picture} for picture in self._pictures)
            return
        for views in zip(*self._views, strict=True):
            yield from (view.feeds for view in views)

    def score(self, role: Role, candidate: Session) -> Score:
        """Compare a candidate for ``role`` with fp32."""
        return (
            self._score_encoder(candidate) if role == "encoder" else self._score_decoder(candidate)
        )

    def _score_encoder(self, candidate: Session) -> Score:
        encoded = [self._encode(candidate, picture) for picture in self._pictures]
        finest = self._entropy.codes.finest
        flips = [
            (finest(codes[0]) != finest(before[0])).mean()
            for (codes, _), (before, _) in zip(encoded, self._encoded, strict=True)
        ]
        views = [
            [self._view(codes, importance, scale) for codes, importance in encoded]
            for scale in self._scales
        ]
        return self._compare(self._decoder, views, float(np.mean(flips)))

    def _score_decoder(self, candidate: Session) -> Score:
        return self._compare(candidate, self._views, 0.0)

    def _compare(self, decoder: Session, views: _Views, flip_share: float) -> Score:
        restored = [[self._decode(decoder, view) for view in some] for some in views]
        psnr = self._psnrs_db(restored) - self._psnr_db
        log_bits = _log_bits(views) - self._log_bits
        shares, losses = np.expm1(log_bits), self._slope_db * log_bits - psnr
        return Score(tuple(psnr), tuple(shares), tuple(losses), flip_share)

    def _psnrs_db(self, restored: Sequence[Sequence[Bytes]]) -> NDArray[np.float64]:
        """Mean PSNR at each quality."""
        return np.array(
            [
                np.mean([_psnr_db(*pair) for pair in zip(some, self._pictures, strict=True)])
                for some in restored
            ]
        )

    def _view(self, codes: Bytes, importance: Bytes, scale: float) -> _View:
        levels = levels_from_importance(importance[0], scale, self._entropy.codes.levels)
        sent = self._entropy.codes.sent(codes[0], levels)
        coded = self._entropy.encode(sent, levels)
        return _View(sent, levels, coded.levels.bits + coded.codes.bits)

    @staticmethod
    def _encode(encoder: Session, picture: Bytes) -> tuple[Bytes, Bytes]:
        codes, importance = encoder.run({"image": picture})
        return codes, importance

    @staticmethod
    def _decode(decoder: Session, view: _View) -> Bytes:
        (image,) = decoder.run(view.feeds)
        return image


def _log_bits(views: _Views) -> NDArray[np.float64]:
    """Mean logarithm of the bits at each quality."""
    return np.array([np.mean([np.log(max(view.bits, 1.0)) for view in some]) for some in views])


def _slope(psnr_db: NDArray[np.float64], log_bits: NDArray[np.float64]) -> NDArray[np.float64]:
    """PSNR that a factor e of bits brings at each; of an untrained network it may be none."""
    rise = np.diff(psnr_db) / np.maximum(np.diff(log_bits), 1e-9)
    rise = np.where(np.diff(log_bits) > 0, np.maximum(rise, 0), 0)
    return np.concatenate([rise[:1], (rise[1:] + rise[:-1]) / 2, rise[-1:]])


def _psnr_db(a: Bytes, b: Bytes) -> float:
    error = np.square(a.astype(np.float32) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-10)))
