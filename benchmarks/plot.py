"""Draw rate-distortion curves: ``python -m benchmarks.plot``.

Makes ``assets/kodak.png`` from ``benchmarks/results/kodak.json``. Learned codecs are drawn as
their authors published them (``benchmarks/published.json``), dashed: measured elsewhere, with
other metrics' code, and part of no figure here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from cwic.files import replacing

__all__ = ["draw"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kodak.json"
PUBLISHED = ROOT / "benchmarks" / "published.json"
PICTURE = ROOT / "assets" / "kodak.png"
_LARGEST_BPP = 1.2
_LEFT_OUT = ("JPEG 2000 defaults", "JPEG 4:4:4")


def draw(result: dict[str, Any], published: dict[str, Any], path: Path) -> None:
    """Two panels: PSNR, and MS-SSIM in dB (-10 log10(1 - MS-SSIM)), over bits per pixel."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for panel, key, label in zip(
        panels, ("psnr_db", "ms_ssim"), ("PSNR (RGB), dB", "MS-SSIM, dB"), strict=True
    ):
        for name, points in result["curves"].items():
            if name not in _LEFT_OUT:
                x, y, measured = _curve(points, key)
                width = 2.5 if name.startswith("cwic") else 1.2
                panel.plot(x, y, ".-", label=name, linewidth=width, markevery=slice(measured))
        for name, points in published["curves"].items():
            x, y, _ = _curve(points, key)
            panel.plot(x, y, "--", marker="x" if len(x) == 1 else "", color="0.6", linewidth=1)
            panel.annotate(name, (x[-1], y[-1]), (3, -3), textcoords="offset points", fontsize=7)
        panel.set(xlim=(0, _LARGEST_BPP), xlabel="bits per pixel, whole file", ylabel=label)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8, loc="lower right")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def _curve(points: list[dict[str, Any]], key: str) -> tuple[list[float], list[float], int]:
    """Rates and values up to the largest rate, and how many of them are points, not its end."""
    ordered = sorted(points, key=lambda p: float(p["bpp"]))
    rates, values = [float(p["bpp"]) for p in ordered], [float(p[key]) for p in ordered]
    if key == "ms_ssim":
        values = [-10 * float(np.log10(1 - value)) for value in values]
    kept = sum(rate <= _LARGEST_BPP for rate in rates)
    if kept == len(rates):
        return rates, values, kept
    end = float(np.interp(_LARGEST_BPP, rates, values))
    return [*rates[:kept], _LARGEST_BPP], [*values[:kept], end], kept


def main() -> None:
    """Draw the committed results."""
    draw(json.loads(RESULTS.read_text()), json.loads(PUBLISHED.read_text()), PICTURE)


if __name__ == "__main__":
    main()
