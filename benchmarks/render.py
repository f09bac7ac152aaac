"""Render results into documents: ``python -m benchmarks.render``.

Replaces what stands between ``<!-- results -->`` and ``<!-- end results -->`` in README.md
and in the model card by the table made from ``benchmarks/results/kodak.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import render_entropy
from benchmarks.bd import METRICS, delta_rate
from benchmarks.rd import point_at

__all__ = ["replaced", "table"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kodak.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "model-card-nano.md")
_BEGIN, _END = "<!-- results -->", "<!-- end results -->"
_RATES = (0.25, 0.5, 0.75, 1.0)


def table(result: dict[str, Any]) -> str:
    """Markdown table of PSNR and MS-SSIM at a few rates, one line per codec."""
    lines = [
        "| codec | " + " | ".join(f"{rate} bpp" for rate in _RATES) + " |",
        "|---" * (len(_RATES) + 1) + "|",
    ]
    for name, points in result["curves"].items():
        cells = []
        for rate in _RATES:
            at = point_at(points, rate)
            cells.append(f"{at['psnr_db']:.2f} dB / {at['ms_ssim']:.4f}" if at else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    first, *others = result["curves"]
    deltas = []
    for name in others:
        pair = (result["curves"][name], result["curves"][first])
        found = [delta_rate(*pair, metric) for metric in METRICS]
        shown = " / ".join("–" if d is None else f"{d:+.0f} %" for d in found)
        deltas.append(f"{name} {shown}")
    lines += [
        "",
        f"BD-rate of {first} (PSNR / MS-SSIM), below 0 is fewer bytes: {', '.join(deltas)}.",
    ]
    versions = result["versions"]
    lines += [
        "",
        f"PSNR (RGB) / MS-SSIM, means over {len(result['pictures'])} pictures, whole files "
        "counted, interpolated between the measured points of "
        "[kodak.json](BASE/benchmarks/results/kodak.json) "
        f"(Pillow {versions['pillow']}, onnxruntime {versions['onnxruntime']}).",
    ]
    return "\n".join(lines)


def replaced(text: str, content: str) -> str:
    """``text`` with what stands between the two marks replaced by ``content``."""
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{content}\n{_END}{after}"


def page(path: Path, result: dict[str, Any]) -> str:
    """The page at ``path`` with its table rendered anew; links are relative to its folder."""
    base = "." if path.parent == ROOT else ".."
    return replaced(path.read_text(), table(result).replace("BASE", base))


def main() -> None:
    """Render every page."""
    result = json.loads(RESULTS.read_text())
    for path in PAGES:
        path.write_text(page(path, result))
    render_entropy.PAGE.write_text(render_entropy.rendered())


if __name__ == "__main__":
    main()
