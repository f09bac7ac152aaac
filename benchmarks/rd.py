"""Rate and distortion of a bundle and of the classical codecs on a folder of pictures.

``python -m benchmarks.rd --images 'kodak/*.png' -o benchmarks/results/kodak.json``

Every rate counts whole files: header, levels, codes. Curves are means over the pictures
at equal settings, as is usual on Kodak. Times are medians over the pictures of one encode and
one decode each, from pixels to bytes and back; the codecs take turns picture by picture, so
that whatever else the machine does meets all of them.

A model is a bundle folder or a name, and ``NAME@EFFORT`` the same with an effort: fewer
qualities then, for each takes seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import cwic
from benchmarks import anchors, command, environment
from benchmarks.metrics import bits_per_pixel, ms_ssim, psnr_db, ssim
from cwic import packaged
from cwic.errors import CwicError, UsageError
from cwic.image import open_rgb

__all__ = ["measure", "point_at"]

Pixels = NDArray[np.uint8]

_QUALITIES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
_QUALITIES_WITH_EFFORT = _QUALITIES[::2]
_EFFORT = 12


@dataclass(frozen=True)
class _Codec:
    name: str
    settings: Sequence[float]
    encode: Callable[[Pixels, float], bytes]
    decode: Callable[[bytes], Pixels]


def measure(paths: Sequence[Path], models: Sequence[str]) -> dict[str, Any]:
    """Curves of every codec over ``paths``: name -> points, see :func:`_point`."""
    learned = [_Learned.of(model) for model in models]
    codecs = [*(model.codec() for model in learned), *map(_classical, anchors.available())]
    rows: dict[tuple[str, float], list[dict[str, float]]] = {}
    for path in paths:
        picture = open_rgb(path)
        for codec in codecs:
            for setting in codec.settings:
                rows.setdefault((codec.name, setting), []).append(_one(codec, setting, picture))
    curves: dict[str, list[dict[str, Any]]] = {codec.name: [] for codec in codecs}
    for (name, setting), found in rows.items():
        curves[name].append(_point(setting, found))
    return {
        **environment.describe(),
        "model_id": learned[0].model.bundle.model_id.hex(),
        "models": {each.name: each.facts() for each in learned},
        "pictures": [p.name for p in paths],
        "curves": curves,
    }


def _one(codec: _Codec, setting: float, picture: Pixels) -> dict[str, float]:
    start = time.perf_counter()
    data = codec.encode(picture, setting)
    middle = time.perf_counter()
    restored = codec.decode(data)
    end = time.perf_counter()
    return {
        "bpp": bits_per_pixel(data, picture),
        "psnr_db": psnr_db(picture, restored),
        "ssim": ssim(picture, restored),
        "ms_ssim": ms_ssim(picture, restored),
        "encode_ms": 1e3 * (middle - start),
        "decode_ms": 1e3 * (end - middle),
    }


def _point(setting: float, found: Sequence[dict[str, float]]) -> dict[str, Any]:
    means = {key: fmean(row[key] for row in found) for key in ("bpp", "psnr_db", "ssim", "ms_ssim")}
    times = {key: median(row[key] for row in found) for key in ("encode_ms", "decode_ms")}
    return {
        "setting": setting,
        "bpp": round(means["bpp"], 5),
        "psnr_db": round(means["psnr_db"], 4),
        "ssim": round(means["ssim"], 6),
        "ms_ssim": round(means["ms_ssim"], 6),
        **{key: round(value, 2) for key, value in times.items()},
        "bpp_each": [round(row["bpp"], 5) for row in found],
        "psnr_db_each": [round(row["psnr_db"], 3) for row in found],
    }


@dataclass(frozen=True)
class _Learned:
    """A model with some effort."""

    model: cwic.Codec
    effort: int

    @classmethod
    def of(cls, model: str) -> _Learned:
        bundle, _, effort = model.partition("@")
        if effort and not effort.isdecimal():
            raise UsageError(f"no effort in {model!r}; use for example nano@{_EFFORT}")
        return cls(cwic.load(bundle), int(effort or 0))

    @property
    def name(self) -> str:
        return f"cwic {self.model.bundle.name}" + (f", effort {self.effort}" if self.effort else "")

    def facts(self) -> dict[str, Any]:
        facts = self.model.bundle.facts
        found = {name: facts.get(name) for name in ("parameters", "kmac_per_px", "steps")}
        if self.effort:
            # A gradient and a decoding in each round, and once before; a gradient is two decodings.
            cost = dict(facts["kmac_per_px"])
            cost["encode"] = round(cost["encode"] + 3 * (self.effort + 1) * cost["decode"], 3)
            found["kmac_per_px"] = cost
        return found

    def codec(self) -> _Codec:
        return _Codec(
            self.name,
            _QUALITIES_WITH_EFFORT if self.effort else _QUALITIES,
            lambda picture, quality: self.model.encode(
                picture, quality=quality, effort=self.effort
            ),
            lambda data: np.asarray(self.model.decode(data)),
        )


def _classical(anchor: anchors.Anchor) -> _Codec:
    return _Codec(anchor.name, anchor.points, anchor.encode, anchors.decode)


def point_at(points: Sequence[dict[str, Any]], bpp: float) -> dict[str, float] | None:
    """PSNR and MS-SSIM of a curve at a rate, by linear interpolation in log rate.

    None outside the curve: nothing is extrapolated.
    """
    ordered = sorted(points, key=lambda p: p["bpp"])
    rates = np.log([p["bpp"] for p in ordered])
    if not rates[0] <= np.log(bpp) <= rates[-1]:
        return None
    return {
        key: float(np.interp(np.log(bpp), rates, [p[key] for p in ordered]))
        for key in ("psnr_db", "ms_ssim")
    }


@click.command()
@command.images
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Bundle folder, name, or either @EFFORT; may be given several times. Default: those in "
    f"the package, and the first with an effort of {_EFFORT}.",
)
@command.output
def main(images: list[Path], models: tuple[str, ...], output: Path) -> None:
    """Measure, write JSON, print a table."""
    first, *others = packaged.names()
    try:
        result = measure(images, models or (first, f"{first}@{_EFFORT}", *others))
    except CwicError as exc:
        raise click.ClickException(str(exc)) from exc
    command.write(output, result)
    for name, points in result["curves"].items():
        for p in points:
            click.echo(
                f"{name:18} {p['setting']:7.2f} {p['bpp']:.3f} bpp {p['psnr_db']:.2f} dB  "
                f"SSIM {p['ssim']:.4f}  MS-SSIM {p['ms_ssim']:.4f}  "
                f"{p['encode_ms']:.0f}, {p['decode_ms']:.0f} ms"
            )


if __name__ == "__main__":
    main()
