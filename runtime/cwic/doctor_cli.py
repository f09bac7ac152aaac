"""``cwic doctor``: prints what :mod:`cwic.doctor` finds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cwic import cli_options

if TYPE_CHECKING:
    from cwic.doctor import Report

__all__ = ["doctor"]


@click.command()
@cli_options.model
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def doctor(model: Path | None, as_json: bool) -> None:
    """Say what works here and how to mend the rest; exit status 1 if no backend decodes."""
    from cwic.doctor import examine

    report = examine(model)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        for title, text in _lines(report):
            click.echo(f"{title:10} {text}".rstrip())
    sys.exit(0 if report.healthy else 1)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    yield "system", f"{report.platform}, Python {report.python}"
    if report.jetson:
        jetpack = report.jetson.jetpack or "unknown"
        yield "jetson", f"{report.jetson.model}, L4T {report.jetson.l4t}, JetPack {jetpack}"
    yield "driver", report.driver or "none"
    if report.device:
        device = report.device
        memory = f"{device.memory_mib} MiB{' shared with the host' if device.integrated else ''}"
        yield "GPU", f"{device.name}, SM {device.sm}, {memory}, CUDA {device.cuda_version}"
    else:
        yield "GPU", f"none: {report.device_problem}"
    have = ", ".join(f"{name} {found}" for name, found in report.versions.items() if found)
    missing = ", ".join(name for name, found in report.versions.items() if not found)
    yield "libraries", have
    if missing:
        yield "missing", missing
    yield "coder", report.coder
    yield "model", report.model or "none"
    for engine in report.engines:
        yield "engine", f"{engine.file}: {engine.problem or 'fits'}"
    for provider in report.providers:
        yield "provider", f"{provider.name}: {provider.problem or 'loads'}"
    for backend in report.backends:
        no_gpu = report.device is None and backend.problem == report.device_problem
        problem = "there is no GPU" if no_gpu else backend.problem
        yield "backend", f"{backend.name}: {problem or f'works, {backend.time_ms} ms'}"
    yield "auto takes", report.chosen or "nothing: no backend works"
    for problem in report.problems:
        yield "problem", problem
