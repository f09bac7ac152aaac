"""What an artefact may differ by from the eager graphs: one table, by precision."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf, isinf

__all__ = ["TOLERANCES", "Tolerance", "looser"]


@dataclass(frozen=True)
class Tolerance:
    """Limits; each holds for every picture and rate by itself. ``inf``: none.

    Attributes:
        code_margin: a code may flip where |E| is below this; where codes are values, |E| is how
            far a value is from becoming another number.
        flip_share: of the code bits that depend on no flip, the share that may flip, over all
            pictures.
        importance: steps of 1/255.
        level_share: share of the positions whose level may differ.
        pixel_largest: 8-bit steps of any sample, both decoders on the same codes.
        pixel_mean: the same, mean over a picture.
        psnr_loss_db: on the whole path, encoder and decoder.
        ms_ssim_loss: likewise.
        bpp_rise: likewise, relative to the reference's file.
    """

    code_margin: float
    flip_share: float
    importance: float
    level_share: float
    pixel_largest: float
    pixel_mean: float
    psnr_loss_db: float
    ms_ssim_loss: float
    bpp_rise: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values; None where there is no limit."""
        return {name: None if isinf(v) else v for name, v in asdict(self).items()}


# Measured on parts of photographs (256 to 320 pixels a side) with the shipped weights, worst
# picture and rate of s = 0.25, 0.5, 1; a limit is two to five times what was measured, so that
# other pictures and machines pass and a wrong layer does not.
TOLERANCES = {
    # Frameworks add in different orders: E moves by about 1e-6 of its size, so only codes at
    # |E| < 1e-4 may flip, and a pixel may round the other way. Measured, ONNX and TorchScript:
    # no flip, no other level, a pixel by 1 in some, 2e-5 in the mean.
    "fp32": Tolerance(
        code_margin=1e-4,
        flip_share=1e-4,
        importance=1,
        level_share=1e-3,
        pixel_largest=1,
        pixel_mean=0.01,
        psnr_loss_db=0.01,
        ms_ssim_loss=1e-4,
        bpp_rise=0.001,
    ),
    # Measured with every layer in halves (PyTorch on the CPU, five pictures): 0.09 % flips with
    # |E| up to 0.02, importance by 18 in single places, 0.9 % of the levels by 1, pixels by 1,
    # 0.014 in the mean, 0.02 dB, 0.0002, +0.1 % bytes. onnxruntime on the CPU, which widens
    # halves: 0.02 % flips, 0.006 dB. With decision feedback one flip brings others, which matters
    # in a small picture: 0.09 dB and +0.8 % bytes in one of 256x192 pixels.
    "fp16": Tolerance(
        code_margin=inf,
        flip_share=0.004,
        importance=64,
        level_share=0.03,
        pixel_largest=3,
        pixel_mean=0.05,
        psnr_loss_db=0.2,
        ms_ssim_loss=0.002,
        bpp_rise=0.02,
    ),
    # Measured on an onnx-int8 export with its default limit of 0.1 dB a graph on the calibration
    # pictures (three others here): 4.4 % flips, 17 % of the levels (importance is steep, so
    # single places move far and only the share is limited), pixels by 10, 0.96 in the mean,
    # 0.46 dB, 0.007, +1.3 % bytes. Of codes that are values (three pictures), 6 to 10 % are
    # another number in the smallest steps, which few pictures are sent in, and what the encoder's
    # noise adds to them takes up to 4.7 % more bytes at s = 1.
    "int8": Tolerance(
        code_margin=inf,
        flip_share=0.2,
        importance=inf,
        level_share=0.35,
        pixel_largest=32,
        pixel_mean=2.0,
        psnr_loss_db=0.8,
        ms_ssim_loss=0.015,
        bpp_rise=0.1,
    ),
}
"""By the ``precision`` of a manifest, the most exact first."""


def looser(a: Tolerance, b: Tolerance) -> Tolerance:
    """What two artefacts may differ by from each other: the larger of both limits."""
    theirs = asdict(b)
    return Tolerance(**{name: max(value, theirs[name]) for name, value in asdict(a).items()})
