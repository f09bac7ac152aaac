"""The table of :mod:`benchmarks.trials`, made from its result."""

from __future__ import annotations

from typing import Any

__all__ = ["table"]

_SHOWN = ("0.25", "0.6", "1.5")


def table(result: dict[str, Any]) -> str:
    """Markdown: loss, its distance to that of the first trial, and three points of each."""
    scales = [f"s = {s}" for s in _SHOWN]
    lines = [f"| | loss | | {' | '.join(scales)} |", "|---" * (3 + len(scales)) + "|"]
    first = next(iter(result["validation"].values()))["loss"]
    for name, found in result["validation"].items():
        change = 100 * (found["loss"] / first - 1)
        shown = f"{change:+.1f} %" if change else ""
        cells = [f"{found[f'psnr_{s}']:.2f} dB, {found[f'bpp_{s}']:.3f} bpp" for s in _SHOWN]
        lines.append(f"| {name} | {found['loss']:.1f} | {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)
