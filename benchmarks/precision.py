"""What the precision of encoder and decoder costs in quality and gives in speed.

``python -m benchmarks.precision --model BUNDLE --images 'kodak/*.png' -o RESULT.json``

Every pair (precision of the encoder, precision of the decoder) with fp32 at one end or the
same at both is a curve of whole files, as in :mod:`benchmarks.rd`, and is compared with fp32
at both ends. Speed is that of the two networks alone in onnxruntime, on one thread, in turns,
so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import cwic
from benchmarks import command, environment
from benchmarks.bd import delta_rate
from benchmarks.metrics import bits_per_pixel, psnr_db
from cwic.backends import Runner
from cwic.backends.onnxrt import OnnxRuntimeRunner
from cwic.bundle import Bundle
from cwic.image import open_rgb, pad_to_multiple

__all__ = ["curves", "flip_shares", "open_codecs", "rate_increases", "speeds", "table"]

Picture = NDArray[np.uint8]
Codecs = dict[str, cwic.Codec]
_QUALITIES = (20, 40, 60, 80, 100)
_REFERENCE = "fp32"
_SIMULATED = "int8-tensorrt"


def open_codecs(bundle: Bundle, threads: int = 0) -> Codecs:
    """One codec for each precision that the bundle has as ONNX, fp32 first.

    ``int8-tensorrt`` is the int8 that TensorRT is to run, computed by onnxruntime with floats:
    its quality can be seen here, its speed cannot.
    """
    found = {e.precision for e in bundle.files.values() if e.target == "onnx"}
    order = [p for p in ("fp32", "fp16", "int8") if p in found]
    runners: dict[str, Runner] = {
        p: OnnxRuntimeRunner(bundle, precision=p, threads=threads) for p in order
    }
    for_tensorrt = {
        name: replace(entry, target="onnx")
        for name, entry in bundle.files.items()
        if entry.target == "onnx-tensorrt"
    }
    if for_tensorrt:
        other = replace(bundle, files=for_tensorrt)
        runners[_SIMULATED] = OnnxRuntimeRunner(other, precision="int8", threads=threads)
    return {p: cwic.Codec(bundle, runner) for p, runner in runners.items()}


def curves(codecs: Codecs, pictures: Sequence[Picture]) -> dict[str, list[dict[str, float]]]:
    """Mean rate and PSNR at each quality, by ``encoder precision > decoder precision``."""
    pairs = [
        (encoder, decoder)
        for encoder in codecs
        for decoder in codecs
        if _REFERENCE in (encoder, decoder) or encoder == decoder
    ]
    points: dict[str, list[dict[str, float]]] = {f"{e} > {d}": [] for e, d in pairs}
    for quality in _QUALITIES:
        files = {p: [c.encode(x, quality=quality) for x in pictures] for p, c in codecs.items()}
        for encoder, decoder in pairs:
            restored = [np.asarray(codecs[decoder].decode(data)) for data in files[encoder]]
            bpp = map(bits_per_pixel, files[encoder], pictures)
            psnr = [psnr_db(x, y) for x, y in zip(pictures, restored, strict=True)]
            points[f"{encoder} > {decoder}"].append(
                {
                    "quality": quality,
                    "bpp": round(fmean(bpp), 5),
                    "psnr_db": round(fmean(psnr), 4),
                }
            )
    return points


def rate_increases(points: dict[str, list[dict[str, float]]]) -> dict[str, float | None]:
    """BD-rate (PSNR) of each pair against fp32 at both ends, in percent; positive: more bytes."""
    reference = points[f"{_REFERENCE} > {_REFERENCE}"]
    found = {pair: delta_rate(reference, curve, "psnr_db") for pair, curve in points.items()}
    return {pair: None if rate is None else round(rate, 2) for pair, rate in found.items()}


def flip_shares(codecs: Codecs, pictures: Sequence[Picture]) -> dict[str, float]:
    """Share of all codes, kept or not, that differ from those of fp32; values in finest steps."""
    counts = dict.fromkeys(codecs, 0)
    total = 0
    model = codecs[_REFERENCE].context.codes
    for picture in pictures:
        padded = pad_to_multiple(picture, codecs[_REFERENCE].bundle.stride)[None]
        codes = {p: model.finest(c.runner.encode(padded)[0][0]) for p, c in codecs.items()}
        total += codes[_REFERENCE].size
        for precision, own in codes.items():
            counts[precision] += int(np.count_nonzero(own != codes[_REFERENCE]))
    return {precision: round(count / total, 6) for precision, count in counts.items()}


def speeds(codecs: Codecs, picture: Picture, runs: int) -> dict[str, dict[str, float]]:
    """Shortest time of each network in ms, and how much faster than fp32 it is."""
    codecs = {p: c for p, c in codecs.items() if p != _SIMULATED}
    some = next(iter(codecs.values()))
    padded = pad_to_multiple(picture, some.bundle.stride)[None]
    codes, importance = some.runner.encode(padded)
    levels = np.minimum(importance, some.bundle.levels)
    codes = some.context.codes.sent(codes[0], levels[0])[None]
    times: dict[str, dict[str, list[float]]] = {p: {"encode": [], "decode": []} for p in codecs}
    for _ in range(runs):
        for precision, codec in codecs.items():
            start = time.perf_counter()
            codec.runner.encode(padded)
            middle = time.perf_counter()
            codec.runner.decode(codes, levels)
            times[precision]["encode"].append(middle - start)
            times[precision]["decode"].append(time.perf_counter() - middle)
    return {
        precision: {
            **{f"{step}_ms": round(1e3 * min(all_), 2) for step, all_ in own.items()},
            **{
                f"{step}_speedup": round(min(times[_REFERENCE][step]) / min(all_), 3)
                for step, all_ in own.items()
            },
        }
        for precision, own in times.items()
    }


def table(result: dict[str, Any]) -> str:
    """What docs/export.md shows of a result: Markdown, one line per precision."""
    lines = [
        "| precision | encoder, decoder MB | codes flipped | BD-rate: encoder, decoder, both "
        "| speed: encoder, decoder |",
        "|---|---|---|---|---|",
    ]
    for precision, share in result["flip_shares"].items():
        suffix = "onnx" if precision == _REFERENCE else f"{precision}.onnx"
        sizes = (result["bytes"][f"{role}.{suffix}"] / 1e6 for role in ("encoder", "decoder"))
        pairs = (f"{precision} > {_REFERENCE}", f"{_REFERENCE} > {precision}")
        rates = (result["bd_rate"][pair] for pair in (*pairs, f"{precision} > {precision}"))
        speed = result["speeds"].get(precision)
        cells = (
            precision,
            ", ".join(f"{size:.2f}" for size in sizes),
            f"{100 * share:.2f} %",
            ", ".join("–" if rate is None else f"{rate:+.1f} %" for rate in rates),
            f"{speed['encode_speedup']:.2f}, {speed['decode_speedup']:.2f}" if speed else "–",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Bundle folder.")
@command.images
@click.option("--runs", default=20, show_default=True, help="Timed runs of each network.")
@command.output
def main(model: Path, images: list[Path], runs: int, output: Path) -> None:
    """Measure, write JSON, print the table."""
    pictures = [open_rgb(path) for path in images]
    bundle = Bundle.load(model)
    codecs = open_codecs(bundle)
    points = curves(codecs, pictures)
    result: dict[str, Any] = {
        **environment.describe(),
        "model_id": bundle.model_id.hex(),
        "pictures": [path.name for path in images],
        "int8": bundle.facts.get("onnx-int8"),
        "bytes": {name: e.bytes for name, e in bundle.files.items() if e.role != "log"},
        "flip_shares": flip_shares(codecs, pictures),
        "bd_rate": rate_increases(points),
        "speeds": speeds(open_codecs(bundle, threads=1), pictures[0], runs),
        "curves": points,
    }
    command.write(output, result)
    click.echo(table(result))


if __name__ == "__main__":
    main()
