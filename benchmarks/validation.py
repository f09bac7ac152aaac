"""Export every format that needs no GPU, validate it, and keep the report.

``python -m benchmarks.validation --calibration 'photos/*.jpg' --images 'kodak/*.png' -o RESULT``
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from benchmarks import environment
from cwic.files import write_bytes
from cwic_export.bundle_writer import export_bundle
from cwic_export.validation import validate_bundle
from cwic_training.data import find_pictures

__all__ = ["FORMATS", "measured", "table"]

CHECKPOINT = Path(__file__).resolve().parents[1] / "models" / "nano.safetensors"
FORMATS = (
    "onnx",
    "torchscript",
    "exported-program",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-tensorrt",
    "triton",
)
"""What can be exported and run on any machine."""


def measured(checkpoint: Path, calibration: list[Path], images: list[Path]) -> dict[str, Any]:
    """The report of ``cwic validate`` on a bundle of all :data:`FORMATS`, with times in s."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / checkpoint.stem
        start = time.perf_counter()
        export_bundle(checkpoint, bundle, FORMATS, calibration=calibration)
        exported = time.perf_counter()
        report = validate_bundle(bundle, checkpoint, images)
        times = {"export_s": exported - start, "validate_s": time.perf_counter() - exported}
    return {
        **environment.describe(),
        "calibration_pictures": len(calibration),
        **{name: round(value, 1) for name, value in times.items()},
        "report": json.loads(report.to_json()),
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: one line per artefact, what differs at the worst picture and rate."""
    lines = [
        "| artefact | codes that flip | pixels: largest, mean | ΔPSNR | ΔMS-SSIM | Δbytes | |",
        "|---|---|---|---|---|---|---|",
    ]
    report = result["report"]
    for found in report["artefacts"]:
        rates = found["by_scale"]
        cells = (
            f"{found['target']} {found['precision']}",
            f"{found['flips']} of {found['codes']}"
            if found["flips"] < 1000
            else f"{100 * found['flip_share']:.2f} %",
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


@click.command()
@click.option("--checkpoint", type=click.Path(path_type=Path), default=CHECKPOINT)
@click.option("--calibration", required=True, help="Glob of pictures for int8.")
@click.option("--images", required=True, help="Glob of pictures to compare on.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(checkpoint: Path, calibration: str, images: str, output: Path) -> None:
    """Measure, write JSON, print the table."""
    pictures = (find_pictures(calibration, "--calibration"), find_pictures(images, "--images"))
    result = measured(checkpoint, *pictures)
    write_bytes(output, (json.dumps(result, indent=1) + "\n").encode())
    click.echo(table(result))


if __name__ == "__main__":
    main()
