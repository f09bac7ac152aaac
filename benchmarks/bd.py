"""Bjøntegaard deltas between measured curves: ``python -m benchmarks.bd A.json B.json``.

Prints by how many percent the rate of each curve in B differs from the curve of the same name in
A at equal quality; with one file, that of the first curve against each other one. PCHIP
interpolation of log rate over quality, over the range that both curves cover (package
``bjontegaard``). Negative: fewer bytes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from bjontegaard import bd_psnr, bd_rate

__all__ = ["METRICS", "delta_psnr_db", "delta_rate", "deltas", "in_words"]

METRICS = {"psnr_db": "PSNR", "ms_ssim": "MS-SSIM"}


def delta_rate(
    anchor: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], metric: str
) -> float | None:
    """BD-rate of ``test`` against ``anchor`` in percent; None where they hardly overlap.

    Args:
        anchor, test: points with ``bpp`` and ``metric``.
        metric: a key of :data:`METRICS`.
    """
    curves = [*_rising(anchor, metric), *_rising(test, metric)]
    return _delta(bd_rate, curves, _overlap(curves[1], curves[3]))


def delta_psnr_db(anchor: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> float | None:
    """BD-PSNR: how much better ``test`` is at equal rate, in dB; None where they hardly overlap."""
    curves = [*_rising(anchor, "psnr_db"), *_rising(test, "psnr_db")]
    return _delta(bd_psnr, curves, _overlap(curves[0], curves[2]))


def _rising(points: Sequence[dict[str, Any]], metric: str) -> tuple[list[float], list[float]]:
    """Rates and qualities, without points that are worse than one of a lower rate."""
    ordered = sorted(points, key=lambda p: float(p["bpp"]))
    rising = [p for i, p in enumerate(ordered) if not i or p[metric] > ordered[i - 1][metric]]
    return [p["bpp"] for p in rising], [p[metric] for p in rising]


def _overlap(a: list[float], b: list[float]) -> bool:
    return min(a[-1], b[-1]) > max(a[0], b[0])


def _delta(function: Callable[..., Any], curves: list[list[float]], overlap: bool) -> float | None:
    if not overlap:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a short overlap, which the caller is told of
        return float(function(*curves, method="pchip", require_matching_points=False))


def deltas(before: Mapping[str, Any], after: Mapping[str, Any], codec: str = "cwic nano") -> str:
    """How one codec's bytes at equal quality changed between two results, in words."""
    return in_words(before["curves"][codec], after["curves"][codec])


def in_words(anchor: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> str:
    """BD-rates of ``test`` by each metric where the curves overlap."""
    found = {label: delta_rate(anchor, test, key) for key, label in METRICS.items()}
    return " and ".join(f"{d:+.1f} % ({label})" for label, d in found.items() if d is not None)


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Compare one file's curves, or those of two files."""
    curves = [json.loads(path.read_text())["curves"] for path in files]
    if len(curves) == 1:
        (only,) = curves
        first, *others = only
        pairs = [(f"{first} against {name}", only[name], only[first]) for name in others]
    else:
        pairs = [
            (name, curves[0][name], curves[1][name]) for name in curves[1] if name in curves[0]
        ]
    for name, anchor, test in pairs:
        deltas = ((label, delta_rate(anchor, test, key)) for key, label in METRICS.items())
        shown = ", ".join(f"{k} {d:+.1f} %" if d is not None else f"{k} –" for k, d in deltas)
        click.echo(f"{name}: {shown}")


if __name__ == "__main__":
    main()
