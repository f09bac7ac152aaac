"""Render results into documents: ``python -m benchmarks.render``.

Replaces what stands between ``<!-- NAME -->`` and ``<!-- end NAME -->`` in the pages below by
the table made from a file in ``benchmarks/results``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    batch,
    budgets,
    gallery_page,
    large,
    precision,
    progressive,
    render_entropy,
    trials_table,
    validation,
    variants,
)
from benchmarks.bd import METRICS, delta_psnr_db, delta_rate, deltas, in_words
from benchmarks.rd import point_at

__all__ = ["PAGES", "RESULTS", "page", "replaced", "table"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_RATES = (0.25, 0.5, 0.75, 1.0)
_TIMED_BPP = 0.5


def table(result: dict[str, Any]) -> str:
    """Markdown: quality at a few rates and times, one line per codec; Bjøntegaard deltas."""
    lines = [
        "| codec | " + " | ".join(f"{rate} bpp" for rate in _RATES) + " | encode, decode |",
        "|---" * (len(_RATES) + 2) + "|",
    ]
    for name, points in result["curves"].items():
        cells = []
        for rate in _RATES:
            at = point_at(points, rate)
            cells.append(f"{at['psnr_db']:.2f} dB / {at['ms_ssim']:.4f}" if at else "–")
        near = min(points, key=lambda p: abs(p["bpp"] - _TIMED_BPP))
        cells.append(f"{near['encode_ms']:.0f}, {near['decode_ms']:.0f} ms")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *_against(result["curves"], list(result["models"]))]
    versions = result["versions"]
    costs = [
        f"{name} computes {facts['kmac_per_px']['encode']:.0f} kMAC a pixel to encode and "
        f"{facts['kmac_per_px']['decode']:.0f} to decode"
        for name, facts in result["models"].items()
    ]
    lines += [
        "",
        f"PSNR (RGB) / MS-SSIM (torchmetrics, RGB), means over {len(result['pictures'])} pictures, "
        "whole files counted, interpolated between the measured points of "
        "[kodak.json](BASE/benchmarks/results/kodak.json); BD-rate below 0: fewer bytes at equal "
        f"quality. Times: a picture of 768x512 near {_TIMED_BPP} bpp, {result['machine']['cores']} "
        f"cores of a CPU without a GPU. {', '.join(costs)}, "
        f"besides the entropy model (Pillow {versions['pillow']}, onnxruntime "
        f"{versions['onnxruntime']}).",
    ]
    return "\n".join(lines)


def _against(curves: dict[str, Any], learned: list[str]) -> list[str]:
    """Bjøntegaard deltas of every learned codec against every classical one."""
    heads = [f"{name}: BD-rate, PSNR | BD-rate, MS-SSIM | BD-PSNR" for name in learned]
    lines = [f"| against | {' | '.join(heads)} |", "|---" * (1 + 3 * len(learned)) + "|"]
    for other in (name for name in curves if name not in learned):
        cells = []
        for name in learned:
            pair = (curves[other], curves[name])
            cells += [_shown(delta_rate(*pair, metric), "+.1f", "%") for metric in METRICS]
            cells.append(_shown(delta_psnr_db(*pair), "+.2f", "dB"))
        lines.append(f"| {other} | {' | '.join(cells)} |")
    return lines


def _shown(value: float | None, form: str, unit: str) -> str:
    return "–" if value is None else f"{value:{form}} {unit}"


def _mixture(result: dict[str, Any]) -> str:
    before = json.loads((RESULTS / "kodak-mse.json").read_text())
    steps = result["models"]["cwic nano-signs"]["steps"]
    changed = deltas(before, result, "cwic nano-signs")
    return (
        f"The last {steps:,} steps of `nano-signs`, which were the first with MS-SSIM, changed "
        f"whole Kodak files by {changed} at equal quality (`python -m benchmarks.bd "
        "benchmarks/results/kodak-mse.json benchmarks/results/kodak-signs.json`)."
    )


def _with_effort(result: dict[str, Any], file: str) -> str:
    """Makes a paragraph: one model with and without an effort, as ``file`` has it."""
    curves = result["curves"]
    plain, effort = result["models"]
    rates = []
    for rate in (0.25, 0.5, 1.0):
        before, after = (point_at(curves[name], rate) for name in (plain, effort))
        if before and after:
            rates.append(
                f"{before['psnr_db']:.2f} dB and {before['ms_ssim']:.4f} become "
                f"{after['psnr_db']:.2f} dB and {after['ms_ssim']:.4f} at {rate} bpp"
            )
    others = [
        f"{other} {in_words(curves[other], curves[effort])}"
        for other in (plain, "JPEG", "WebP", "AVIF")
    ]
    return (
        f"With {effort.rpartition(', ')[2]}, {', '.join(rates)}; BD-rate against "
        f"{'; '.join(others)} (means over {len(result['pictures'])} Kodak pictures, "
        f"[{file}](BASE/benchmarks/results/{file}))."
    )


_GALLERY = "../../docs/gallery/gallery.json"

SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "results": ("kodak.json", table),
    "mixture": ("kodak-signs.json", _mixture),
    "validation": ("validation.json", validation.table),
    "precision": ("precision.json", precision.table),
    "budgets": ("budgets.json", budgets.table),
    "large": ("large.json", large.table),
    "batch": ("batch.json", batch.table),
    "progressive": ("progressive.json", progressive.table),
    "progressive signs": (
        "progressive-signs.json",
        partial(progressive.table, file="progressive-signs.json"),
    ),
    "one rate": ("one-rate.json", variants.table),
    "one rate values": ("one-rate-values.json", variants.table),
    "importance": ("importance.json", variants.table),
    "more steps": ("more-steps.json", variants.table),
    "tuned": ("ms-ssim.json", variants.table),
    "values": ("values.json", variants.table),
    "ten hours": ("ten-hours.json", variants.table),
    "for ms-ssim": ("for-ms-ssim.json", variants.table),
    "base": ("base.json", variants.table),
    "trials": ("trials.json", trials_table.table),
    "effort": ("effort.json", partial(_with_effort, file="effort.json")),
    "comparisons": (_GALLERY, gallery_page.comparisons),
    "regions": (_GALLERY, gallery_page.regions),
    "maps": (_GALLERY, gallery_page.maps),
    "rates": (_GALLERY, gallery_page.rates),
}
"""What stands between marks of a name: a file of results, and what makes text of it.

A section whose file is not there (not measured yet) is left as it is."""

PAGES = {
    ROOT / "README.md": ("results", "validation"),
    ROOT / "docs" / "model-card-nano.md": ("results",),
    ROOT / "docs" / "export.md": ("precision",),
    ROOT / "docs" / "training.md": ("values", "ten hours", "for ms-ssim", "one rate values"),
    ROOT / "docs" / "training-signs.md": (
        "importance",
        "one rate",
        "mixture",
        "more steps",
        "tuned",
        "trials",
        "base",
    ),
    ROOT / "docs" / "gallery.md": ("comparisons", "regions", "maps", "rates"),
    ROOT / "docs" / "rates.md": ("effort", "budgets", "progressive", "progressive signs"),
    ROOT / "docs" / "batch.md": ("batch", "large"),
}
"""The sections of each page."""


def replaced(text: str, name: str, content: str) -> str:
    """``text`` with what stands between the marks of ``name`` replaced by ``content``."""
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def page(path: Path) -> str:
    """The page at ``path`` with its sections rendered anew; links are relative to its folder."""
    base = "." if path.parent == ROOT else ".."
    text = path.read_text()
    for name in PAGES[path]:
        file, make = SECTIONS[name]
        if not (RESULTS / file).exists():
            continue
        result = json.loads((RESULTS / file).read_text())
        text = replaced(text, name, make(result).replace("BASE", base))
    return text


def main() -> None:
    """Render every page."""
    for path in PAGES:
        path.write_text(page(path))
    render_entropy.PAGE.write_text(render_entropy.rendered())


if __name__ == "__main__":
    main()
