"""The figures of docs/entropy-coding.md, from committed results: part of ``benchmarks.render``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bd import deltas
from cwic.bundle import Bundle

__all__ = ["PAGE", "rendered"]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "entropy-coding.md"
_RESULTS = ROOT / "benchmarks" / "results"


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_RESULTS / name).read_text())
    return found


def _contexts() -> str:
    result = _load("context_table.json")
    rates = list(result["scales"])
    lines = ["| what is seen | " + " | ".join(rates) + " |", "|---" * (len(rates) + 1) + "|"]
    for name, costs in result["bits_per_code"].items():
        lines.append(f"| {name} | " + " | ".join(f"{costs[rate]:.3f}" for rate in rates) + " |")
    return "\n".join(lines)


def _entropy() -> str:
    facts = Bundle.load().facts["entropy"]
    return (
        f"`nano` on held-out photographs: {facts['bits_per_code']:.4f} bits per code, levels "
        f"{facts['bits_per_level']:.2f} bits each."
    )


def _gains() -> str:
    shown = deltas(_load("kodak-tables.json"), _load("kodak-signs.json"), "cwic nano-signs")
    return (
        f"Against the first release, whose codes were predicted by tables of 12 chosen bits and "
        f"whose training counted codes, whole Kodak files change by {shown} at equal quality "
        "(`python -m benchmarks.bd benchmarks/results/kodak-tables.json "
        "benchmarks/results/kodak-signs.json`): entropy model, decision feedback, MS-SSIM in the "
        "loss and 27,000 steps of training together."
    )


def _coding() -> str:
    result = _load("coding.json")
    stages = ("network", "context", "levels", "rans", "container")
    lines = [
        "| picture | threads | direction | " + " | ".join(stages) + " | coding share |",
        "|---" * (len(stages) + 4) + "|",
    ]
    for part in result["profile"]:
        for direction in ("encode", "decode"):
            t = part[direction]
            times = " | ".join(f"{t[f'{stage}_ms']:.1f} ms" for stage in stages)
            share = f"{t['coding_percent']:.0f} %"
            lines.append(
                f"| {part['size_px']} | {part['threads']} | {direction} | {times} | {share} |"
            )
    lines.append("")
    for part in result["overhead"]:
        shares = ", ".join(
            f"{what} {part[f'{what}_percent']:.2f} %" for what in ("header", "checksums", "rans")
        )
        lines.append(
            f"At {part['bpp']:.2f} bpp whole files take {part['all_percent']:.2f} % more than the "
            f"ideal length of their symbols ({shares})."
        )
    speeds = {(r["implementation"], r["lanes"]): r for r in result["rans"]}
    parts = []
    for name, key in (("C", ("c", 8)), ("NumPy", ("numpy", 64))):
        s = speeds[key]
        parts.append(
            f"{name} with {key[1]} lanes encodes {s['encode_msymbols_per_s']:.1f} and decodes "
            f"{s['decode_msymbols_per_s']:.1f}"
        )
    machine = result["machine"]
    lines += [
        f"rANS on one core, million symbols a second: {'; '.join(parts)}.",
        f"(`python -m benchmarks.coding`, {machine['cpu']}, {machine['cores']} cores)",
    ]
    return "\n".join(lines)


_SECTIONS: dict[str, Callable[[], str]] = {
    "contexts": _contexts,
    "entropy": _entropy,
    "gains": _gains,
    "coding": _coding,
}


def rendered() -> str:
    """The page with every section between its marks rendered anew."""
    text = PAGE.read_text()
    for name, section in _SECTIONS.items():
        before, rest = text.split(f"<!-- {name} -->")
        _, after = rest.split(f"<!-- end {name} -->")
        text = f"{before}<!-- {name} -->\n{section()}\n<!-- end {name} -->{after}"
    return text
