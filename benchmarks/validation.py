"""Keep the report of a validation: what ``cwic validate`` says of a bundle, and where.

::

    cwic export models/nano.safetensors -o bundle --calibration 'photos/*.jpg' \\
        --formats onnx,torchscript,exported-program,onnx-fp16,onnx-int8,onnx-int8-tensorrt,triton
    python -m benchmarks.validation --model bundle --images 'kodak/*4.png' -o RESULT.json
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import command, environment
from cwic.bundle import Bundle
from cwic_export.validation import validate_bundle

__all__ = ["measured", "table"]

CHECKPOINT = Path(__file__).resolve().parents[1] / "models" / "nano.safetensors"


def measured(bundle: Path, checkpoint: Path, images: list[Path]) -> dict[str, Any]:
    """The report, how long it took, and what int8 was calibrated on."""
    start = time.perf_counter()
    report = validate_bundle(bundle, checkpoint, images)
    int8 = Bundle.load(bundle).facts.get("onnx-int8", {})
    return {
        **environment.describe(),
        "validate_s": round(time.perf_counter() - start, 1),
        "calibration_pictures": int8.get("calibration_pictures"),
        "report": json.loads(report.to_json()),
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: one line per artefact, what differs at the worst picture and rate."""
    lines = [
        "| artefact | codes that flip, of themselves | pixels: largest, mean "
        "| ΔPSNR | ΔMS-SSIM | Δbytes | |",
        "|---|---|---|---|---|---|---|",
    ]
    report = result["report"]
    for found in report["artefacts"]:
        rates = found["by_scale"]
        cells = (
            f"{found['target']} {found['precision']}",
            f"{_share(found['flips'], found)}, {_share(found['causes'], found)}",
            f"{max(r['pixel_largest'] for r in rates)}, {max(r['pixel_mean'] for r in rates):.1g}",
            f"{min(r['delta_psnr_db_mean'] for r in rates):+.3f} dB",
            f"{min(r['delta_ms_ssim_mean'] for r in rates):+.4f}",
            f"{100 * max(r['bpp_rise_mean'] for r in rates):+.2f} %",
            found["status"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    crossings = report["crossings"]
    wrong = sum(c["wrong"] for c in crossings)
    lines += [
        "",
        f"Means over {len(report['pictures'])} pictures at the worst of three rates, against the "
        "eager model, on one CPU ([validation.json](BASE/benchmarks/results/validation.json)). "
        f"Cross-decoding: {len(crossings)} pairs, {sum(c['streams'] for c in crossings)} streams, "
        f"{wrong} with other codes than were encoded.",
    ]
    return "\n".join(lines)


def _share(flips: int, found: dict[str, Any]) -> str:
    return str(flips) if flips < 1000 else f"{100 * flips / found['codes']:.2f} %"


@click.command()
@click.option("--model", type=click.Path(path_type=Path), required=True, help="Bundle folder.")
@click.option("--reference", type=click.Path(path_type=Path), default=CHECKPOINT)
@command.matching("--images", "Glob of pictures to compare on.")
@command.output
def main(model: Path, reference: Path, images: list[Path], output: Path) -> None:
    """Measure, write JSON, print the table."""
    result = measured(model, reference, images)
    command.write(output, result)
    click.echo(table(result))


if __name__ == "__main__":
    main()
