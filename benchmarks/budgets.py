"""Whether byte budgets hold, how much of them is used, and what the search costs.

``python -m benchmarks.budgets --images 'kodak/*.png' -o RESULT.json``

Search cost: time of encoding at the budget over that of encoding at the quality which gives
the same file, both in turns, so that whatever else the machine does meets both.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks import command
from cwic.codec import Codec
from cwic.image import open_rgb

__all__ = ["BUDGETS_BPP", "measured", "table"]

BUDGETS_BPP = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6)


def measured(
    codec: Codec, paths: list[Path], budgets_bpp: tuple[float, ...] = BUDGETS_BPP
) -> dict[str, Any]:
    """Sizes and times of every picture at every budget."""
    tries = 0
    write = codec.coder.write

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        return write(*arguments, **options)

    codec.coder.write = counted  # type: ignore[method-assign]
    rows = []
    for path in paths:
        picture = open_rgb(path)
        pixels = picture.shape[0] * picture.shape[1]
        full = len(codec.encode(picture, quality=100))
        for bpp in budgets_bpp:
            budget = int(bpp * pixels / 8)
            tries = 0
            start = time.perf_counter()
            found = codec.encode_detailed(picture, max_bytes=budget)
            searched = time.perf_counter()
            files = tries
            quality = codec.qualities.quality(found.scale)
            codec.encode(picture, quality=quality)
            plain = time.perf_counter() - searched
            rows.append(
                {
                    "picture": path.name,
                    "budget_bytes": budget,
                    "size_bytes": len(found.data),
                    "largest_bytes": full,
                    "files_made": files,
                    "time_over_plain": round((searched - start) / plain, 3),
                }
            )
    return {"rows": rows, "summary": _summary(rows)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    usable = [r for r in rows if r["budget_bytes"] <= r["largest_bytes"]]
    return {
        "cases": len(rows),
        "exceeded": sum(r["size_bytes"] > r["budget_bytes"] for r in rows),
        "usable": len(usable),
        "used_below_99_percent": sum(r["size_bytes"] < 0.99 * r["budget_bytes"] for r in usable),
        "files_made_mean": round(sum(r["files_made"] for r in usable) / max(1, len(usable)), 2),
        "time_over_plain_median": median(r["time_over_plain"] for r in usable),
    }


def table(result: dict[str, Any]) -> str:
    """What docs/rates.md shows of a result: one sentence for each question."""
    s = result["summary"]
    lowest, highest = min(BUDGETS_BPP), max(BUDGETS_BPP)
    return (
        f"Of {s['cases']} budgets ({lowest} to {highest} bpp, {len(result['pictures'])} pictures) "
        f"{s['exceeded']} were exceeded. Of the {s['usable']} that the picture can use up, "
        f"{s['used_below_99_percent']} were used by less than 99 %. On average "
        f"{s['files_made_mean']} files were made; encoding took {s['time_over_plain_median']:.2f} "
        "times as long as at the quality that gives the same file (median, "
        "[budgets.json](BASE/benchmarks/results/budgets.json))."
    )


@click.command()
@command.images
@command.output
def main(images: list[Path], output: Path) -> None:
    """Measure, write JSON, print the summary."""
    result = command.measure_shipped(images, output, measured)
    click.echo(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
