"""What docs/gallery.md says of docs/gallery/gallery.json: part of ``benchmarks.render``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["comparisons", "maps", "rates", "regions"]


def comparisons(result: dict[str, Any]) -> str:
    """Markdown: how often cwic leads, the chosen sheets, and the figures of all pictures."""
    rows = {row["picture"]: row["codecs"] for row in result["compared"]}
    others = [name for name in next(iter(rows.values())) if name != "cwic"]
    counts = ", ".join(_count(rows.values(), name, result["fair_share"]) for name in others)
    lines = [
        f"At {result['bpp']} bpp cwic has the higher MS-SSIM on {counts} "
        f"(`{result['command']}`: {len(rows)} pictures, model {result['model_id']}, "
        f"Pillow {result['versions']['pillow']}, [gallery.json](gallery/gallery.json)).",
    ]
    for name, shown in result["shown"].items():
        codecs = rows[shown["picture"]]
        lead = codecs["cwic"]["ms_ssim"] - codecs["WebP"]["ms_ssim"]
        place, _, number = name.partition("-")
        alt = "; ".join(f"{n} {c['size_bytes']} bytes, {c['psnr_db']:.2f} dB, "
                        f"MS-SSIM {c['ms_ssim']:.4f}" for n, c in codecs.items())  # fmt: skip
        lines += [
            "",
            f"**{shown['picture']}**, {place} difference to WebP in MS-SSIM, number {number}: "
            f"{lead:+.4f}",
            "",
            f"![The same crop of {shown['picture']}, original and restored: {alt}]"
            f"(gallery/{name}.jpg)",
        ]
    names = ["cwic", *others]
    lines += ["", "| picture | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for picture, codecs in rows.items():
        cells = [f"{c['size_bytes']}: {c['psnr_db']:.2f} dB / {c['ms_ssim']:.4f}"
                 for c in (codecs[n] for n in names)]  # fmt: skip
        lines.append(f"| {picture} | {' | '.join(cells)} |")
    lines += ["", "Bytes of the file: PSNR (RGB) / MS-SSIM (RGB)."]
    return "\n".join(lines)


def regions(result: dict[str, Any]) -> str:
    """Markdown: both sheets of regions and a table."""
    lines = ["| picture | region | budget | without: inside, outside | with: inside, outside |",
             "|---|---|---|---|---|"]  # fmt: skip
    sheets = []
    for found in result["regions"]:
        cells = [f"{found[name]['inside_psnr_db']:.2f}, {found[name]['outside_psnr_db']:.2f} dB"
                 for name in ("without", "with")]  # fmt: skip
        lines.append(
            f"| {found['picture']} | {found['kind']} | {found['budget_bytes']} bytes "
            f"| {' | '.join(cells)} |"
        )
        sheets += [
            "",
            f"![{found['picture']}: region given by {found['kind']}, importance levels and crops "
            f"inside and outside; PSNR inside and outside {cells[0]} without the region, "
            f"{cells[1]} with it](gallery/region-{found['kind']}.jpg)",
        ]
    boxes, mask = result["regions"]
    words = " ".join(f"--roi {','.join(map(str, box))}" for box in boxes["boxes"])
    lines += [
        "",
        "```",
        f"cwic encode {boxes['picture']} --max-bytes {boxes['budget_bytes']} {words}",
        f"cwic encode {mask['picture']} --max-bytes {mask['budget_bytes']} --roi mask.png",
        "```",
    ]
    return "\n".join(lines + sheets)


def maps(result: dict[str, Any]) -> str:
    """Markdown: the sheet of maps of bits and of importance."""
    found = "; ".join(f"{m['picture']} {m['lowest']} to {m['highest']}, mean {m['mean']}"
                      for m in result["maps"])  # fmt: skip
    shown = "Pictures above the bits that each place took, and above importance levels"
    return f"![{shown}: {found}](gallery/maps.jpg)"


def rates(result: dict[str, Any]) -> str:
    """Markdown: the sheet of rates and its table."""
    found = result["rates"]
    lines = ["| asked | bytes | bpp | PSNR | MS-SSIM |", "|---|---|---|---|---|"]
    lines += [
        f"| {p['asked_bpp']} bpp | {p['size_bytes']} | {p['bpp']:.3f} | {p['psnr_db']:.2f} dB "
        f"| {p['ms_ssim']:.4f} |"
        for p in found["points"]
    ]
    asked = ", ".join(str(p["asked_bpp"]) for p in found["points"])
    sheet = f"![The same crop of {found['picture']}: original, and cwic at {asked} bpp]"
    return "\n".join([f"{sheet}(gallery/rates.jpg)", "", *lines])


def _count(rows: Iterable[dict[str, Any]], name: str, fair_share: float) -> str:
    """On how many pictures cwic leads, of those where the other's file is of its size."""
    pairs = [(codecs["cwic"], codecs[name]) for codecs in rows]
    fair = [(a, b) for a, b in pairs if fair_share <= b["size_bytes"] / a["size_bytes"] <= 1]
    ahead = sum(a["ms_ssim"] > b["ms_ssim"] for a, b in fair)
    return f"{ahead} of {len(fair)} against {name}"
