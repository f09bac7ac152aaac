"""Bjøntegaard deltas between measured curves: ``python -m benchmarks.bd A.json B.json``.

Prints by how many percent the rate of each curve in B differs from the curve of the same name in
A at equal quality; with one file, that of the first curve against each other one. PCHIP
interpolation of log rate over quality, over the range that both curves cover (package
``bjontegaard``). Negative: fewer bytes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from bjontegaard import bd_rate

__all__ = ["METRICS", "delta_rate"]

METRICS = {"psnr_db": "PSNR", "ms_ssim": "MS-SSIM"}


def delta_rate(
    anchor: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], metric: str
) -> float | None:
    """BD-rate of ``test`` against ``anchor`` in percent; None where they hardly overlap.

    Args:
        anchor, test: points with ``bpp`` and ``metric``.
        metric: a key of :data:`METRICS`.
    """
    curves = []
    for points in (anchor, test):
        ordered = sorted(points, key=lambda p: float(p["bpp"]))
        rising = [p for i, p in enumerate(ordered) if not i or p[metric] > ordered[i - 1][metric]]
        curves += [[p["bpp"] for p in rising], [p[metric] for p in rising]]
    low = max(curves[1][0], curves[3][0])
    high = min(curves[1][-1], curves[3][-1])
    if high <= low:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a short overlap, which the caller is told of
        return float(bd_rate(*curves, method="pchip", require_matching_points=False))


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
