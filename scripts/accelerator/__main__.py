"""Validate and time every artefact that needs an NVIDIA GPU, and say what was skipped and why.

The eager graphs in fp32 on the CPU are the reference. docs/accelerator.md says what is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.environment import describe
from scripts.accelerator.bundles import Bundles
from scripts.accelerator.measure import (
    Bytes,
    Reference,
    end_to_end,
    graph_times,
    parse_sizes,
    picture_of,
    validate,
)
from scripts.accelerator.targets import Site, Target, targets
from scripts.accelerator.torch_graphs import exact_fp32

from cwic import doctor
from cwic.backends.device import find_device
from cwic.backends.host import driver_version
from cwic.engines.library import installed
from cwic.errors import CwicError, UsageError
from cwic.files import write_bytes
from cwic_export.validation import SCALES
from cwic_export.validation.tolerances import TOLERANCES
from cwic_training.data import find_pictures

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("onnx", "onnxscript", "lightning", "torch-tensorrt", "safetensors")
_BAD = ("differs", "error")
_HOW = """\
The package need not be installed. From the root of a checkout:

  PYTHONPATH=runtime:training:export python -m scripts.accelerator -o accelerator.json

Entropy coding is slow without its C part, which such a checkout lacks. With a C compiler:

  python -c 'import setuptools; setuptools.setup()' build_ext --inplace
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 if all that ran is within tolerance, also if nothing ran, else 1."""
    options = _parser().parse_args(argv)
    try:
        result = measure(options)
    except CwicError as exc:
        print(f"accelerator: {exc}", file=sys.stderr)
        return 1
    print("\n".join([*_table(result), f"written to {options.output}"]))
    return 0 if result["passed"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.accelerator",
        description=__doc__,
        epilog=_HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, help="JSON with the results")
    add("--checkpoint", type=Path, default=_ROOT / "models" / "nano.safetensors")
    add("--bundle", type=Path, help="take graphs from it instead of exporting the checkpoint")
    add("--images", default=str(_ROOT / "assets" / "kodim*.png"), help="glob of test pictures")
    add("--calibration", help="glob of pictures to make int8 graphs with (minutes); else no int8")
    add("--sizes", default="768x512,1920x1080", help="pictures to time, WIDTHxHEIGHT,...")
    add("--crop", type=int, help="validate on the centres of pictures, at most so many pixels")
    add("--repeats", type=int, default=20, help="timed calls of each graph; a quarter end to end")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try this script")
    add("--commit", help="to record where there is no git")
    add("--targets", help="measure only these, by name, separated by commas")
    return parser


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run all targets and write the result, again after each of them.

    Raises:
        CwicError: an input cannot be used. What an artefact does is in the result.
    """
    sizes = parse_sizes(options.sizes)
    images = find_pictures(options.images, "--images")
    calibration = find_pictures(options.calibration, "--calibration") if options.calibration else []
    if options.repeats < 1:
        raise UsageError(f"--repeats {options.repeats} measures nothing; use at least 1")
    wanted = _wanted(options)
    result: dict[str, Any] = {
        "format": "cwic-accelerator/1",
        "complete": False,
        "passed": True,
        **_facts(options, sizes, [path.name for path in images]),
        "targets": [],
    }
    _write(options.output, result)
    with tempfile.TemporaryDirectory(prefix="cwic-accelerator-") as name, exact_fp32():
        folder = Path(name)
        bundles = Bundles(options.checkpoint, folder, options.bundle, calibration)
        report = doctor.examine()
        result["doctor"] = {"problems": report.problems, "providers": _plain(report.providers)}
        bench = _Bench(Site(options.device, bundles, report, folder), options, images, sizes)
        for target in wanted:
            print(f"{target.label} ...", file=sys.stderr)
            started = time.monotonic()
            entry = bench.run(target)
            entry["seconds"] = round(time.monotonic() - started, 1)
            result["targets"].append(entry)
            result["passed"] = result["passed"] and entry["status"] not in _BAD
            _write(options.output, result)
    result["complete"] = True
    _write(options.output, result)
    return result


def _wanted(options: argparse.Namespace) -> list[Target]:
    every = targets(options.device)
    if options.targets is None:
        return every
    names = options.targets.split(",")
    known = dict.fromkeys(target.name for target in every)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"there is no target {unknown[0]!r}; choose from {', '.join(known)}")
    return [target for target in every if target.name in names]


class _Bench:
    """Measures targets; the reference is made once, by the first that runs."""

    def __init__(
        self,
        site: Site,
        options: argparse.Namespace,
        images: list[Path],
        sizes: list[tuple[int, int]],
    ) -> None:
        self._site, self._options, self._images, self._sizes = site, options, images, sizes
        self._reference: Reference | None = None
        self._timed: dict[str, Bytes] = {}

    def run(self, target: Target) -> dict[str, Any]:
        """What came of one target: its results, or why it was skipped."""
        entry: dict[str, Any] = {"target": target.name, "precision": target.precision}
        try:
            target.check(self._site)
            if target.form is not None:
                self._site.bundles.check(target.form)
        except CwicError as exc:
            return {**entry, "status": "skipped", "skipped": self._said(str(exc))}
        try:
            self._measure(target, entry)
        except Exception as exc:  # whatever a framework raises must not take the others along
            said = next(iter(str(exc).splitlines()), "") or "no message"
            line = str(exc) if isinstance(exc, CwicError) else f"{type(exc).__name__}: {said}"
            entry.update(status="error", problems=[self._said(line)])
        return entry

    def _said(self, line: str) -> str:
        """A message without the name of the temporary folder, which is gone when it is read."""
        return line.replace(str(self._site.folder), "BUNDLES")

    def _measure(self, target: Target, entry: dict[str, Any]) -> None:
        opened = target.open(self._site, target)
        entry.update(opened.facts)
        reference = self._prepare()
        entry.update(validate(target, opened.runner, reference, self._options.device))
        entry["times"] = {
            size: graph_times(opened, reference.bundle, picture, self._options.repeats)
            for size, picture in self._timed.items()
        }
        repeats = max(1, self._options.repeats // 4)
        entry["end_to_end"] = end_to_end(opened, target, self._timed, repeats)

    def _prepare(self) -> Reference:
        if self._reference is None:
            bundles = self._site.bundles
            self._reference = Reference.of(
                bundles.network, bundles.any(), self._images, self._options.crop
            )
            photograph = self._reference.pictures[0].pixels
            self._timed = {f"{w}x{h}": picture_of(photograph, w, h) for w, h in self._sizes}
        return self._reference


def _facts(
    options: argparse.Namespace, sizes: list[tuple[int, int]], images: list[str]
) -> dict[str, Any]:
    """Commit, command, machine, GPU and libraries; how it was measured."""
    facts = describe(*_PACKAGES)
    facts["commit"] = facts["commit"] or options.commit
    found = doctor.library_versions(installed())
    facts["versions"] |= {
        **found,
        "torch": torch.__version__,
        "torch CUDA": torch.version.cuda,
        "torch cuDNN": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }
    return {
        **facts,
        "device": options.device,
        "gpu": _gpu(),
        "pictures": images,
        "crop_px": options.crop,
        "scales": SCALES,
        "sizes": [f"{w}x{h}" for w, h in sizes],
        "repeats": options.repeats,
        "tolerances": {name: limit.to_dict() for name, limit in TOLERANCES.items()},
    }


def _gpu() -> dict[str, Any] | None:
    try:
        device = find_device()
    except CwicError:
        return None
    return {**dataclasses.asdict(device), "driver": driver_version()}


def _plain(states: Sequence[Any]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(state) for state in states]


def _write(path: Path, result: dict[str, Any]) -> None:
    write_bytes(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def _table(result: dict[str, Any]) -> list[str]:
    """One line for each target, then the times of those that ran, then every problem."""
    rows = [("target", "status", "flips", "share", "|E| <=", "pixel", "dPSNR dB")]
    times = [("ms: median on the device (or from host to host)", *_columns(result))]
    notes: dict[str, list[str]] = {}
    for entry in result["targets"]:
        label = f"{entry['target']} {entry['precision']}"
        rows.append((label, entry["status"], *_differences(entry)))
        if entry.get("times"):
            times.append((label, *_medians(entry)))
        for reason in [entry["skipped"]] if "skipped" in entry else entry["problems"]:
            notes.setdefault(reason, []).append(label)
    lines = _aligned(rows)
    if len(times) > 1:
        lines += ["", *_aligned(times)]
    return [*lines, *(f"\n{', '.join(labels)}:\n  {why}" for why, labels in notes.items())]


def _differences(entry: dict[str, Any]) -> tuple[str, ...]:
    if "codes" not in entry:
        return ("-",) * 5
    rates = entry["by_scale"]
    return (
        str(entry["flips"]),
        f"{100 * entry['flip_share']:.3g} %",
        f"{entry['largest_flip_margin']:.1e}",
        str(max(rate["pixel_largest"] for rate in rates)),
        f"{min(rate['delta_psnr_db_worst'] for rate in rates):+.4f}",
    )


def _columns(result: dict[str, Any]) -> list[str]:
    return [f"{size} {role}" for size in result["sizes"] for role in ("encoder", "decoder")]


def _medians(entry: dict[str, Any]) -> list[str]:
    cells = []
    for roles in entry["times"].values():
        for ways in roles.values():
            host = f"({ways['host']['median_ms']:.2f})"
            device = f"{ways['device']['median_ms']:.2f} " if "device" in ways else ""
            cells.append(device + host)
    return cells


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


if __name__ == "__main__":
    sys.exit(main())
