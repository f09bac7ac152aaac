"""The report as tables of words: what terminal, Markdown and HTML show alike."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from cwic_export.validation.differences import Rate
from cwic_export.validation.metrics import CONVENTION
from cwic_export.validation.report import Artefact, Crossing, Report
from cwic_export.validation.tolerances import TOLERANCES

__all__ = ["Table", "tables"]

_NONE = "-"


@dataclass(frozen=True)
class Table:
    """Attributes: title, header, rows (one word for each column of the header), note below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tables(report: Report) -> list[Table]:
    """All tables that are not empty."""
    made = (
        _artefacts(report),
        _rates(report),
        _matrix(report),
        _departures(report),
        _limits(report),
    )
    return [table for table in made if table.rows]


def _artefacts(report: Report) -> Table:
    return Table(
        f"{report.name} ({report.model_id}): artefacts, pictures: {len(report.pictures)}",
        ("artefact", "result", "codes that flip", "share", "largest |E|", "importance differs"),
        tuple(_artefact(artefact) for artefact in report.artefacts),
    )


def _artefact(artefact: Artefact) -> tuple[str, ...]:
    if not artefact.runs:
        return artefact.label, artefact.status, _NONE, _NONE, _NONE, _NONE
    d = artefact.differences
    return (
        artefact.label,
        artefact.status,
        f"{d.flips} of {d.codes}",
        _share(d.flips, d.codes),
        f"{d.largest_flip_margin:.1e}" if d.flips else _NONE,
        f"{d.importance_flips}, by {d.importance_largest}" if d.importance_flips else _NONE,
    )


def _rates(report: Report) -> Table:
    rows = [
        (artefact.label, *_rate(rate))
        for artefact in report.artefacts
        if artefact.runs
        for rate in artefact.differences.by_scale
    ]
    header = ("artefact", "s", "bpp", "kept flip", "levels differ", "pixels max, mean")
    return Table(
        "By rate: means, and in brackets the worst picture",
        (*header, "ΔPSNR dB", "ΔMS-SSIM", "Δbpp %"),
        tuple(rows),
        f"bpp: of whole .cwic files. pixels: 8-bit steps, on the reference's codes. {CONVENTION}.",
    )


def _rate(rate: Rate) -> tuple[str, ...]:
    levels = rate.total("levels_differ")
    differ = f"{_share(levels, rate.total('positions'))}, by {rate.highest('level_largest')}"
    return (
        f"{rate.scale:g}",
        _number(rate.mean("reference_bpp"), ".3f"),
        _share(rate.total("kept_flips"), rate.total("kept_codes")),
        differ if levels else _NONE,
        f"{rate.highest('pixel_largest')}, {_number(rate.mean('pixel_mean'), '.2g')}",
        _change(rate.mean("delta_psnr_db"), rate.lowest("delta_psnr_db"), "+.3f"),
        _change(rate.mean("delta_ms_ssim"), rate.lowest("delta_ms_ssim"), "+.4f"),
        _change(rate.mean("bpp_rise"), rate.highest("bpp_rise"), "+.2f", 100),
    )


def _matrix(report: Report) -> Table:
    labels = dict.fromkeys(label for c in report.crossings for label in (c.encoder, c.decoder))
    cells = {(c.encoder, c.decoder): _cell(c) for c in report.crossings}
    return Table(
        "Encoded by (row), decoded by (column): largest pixel difference, mean",
        ("", *labels),
        tuple((a, *(cells.get((a, b), _NONE) for b in labels)) for a in labels),
        "8-bit steps from the picture that the encoder's own decoder makes; codes and levels of "
        "every stream were compared after entropy decoding. !: past tolerance.",
    )


def _cell(crossing: Crossing) -> str:
    words = f"{crossing.pixel_largest}, {crossing.pixel_mean:.2g}"
    if crossing.wrong:
        words += f", {crossing.wrong} of {crossing.streams} streams wrong"
    return f"{words} !" if crossing.problems else words


def _departures(report: Report) -> Table:
    rows = [
        (
            artefact.label,
            d.graph,
            d.node,
            d.op,
            d.layer or _NONE,
            f"{d.before:.1e}",
            f"{d.error:.1e}" + (", first" if d.first else ""),
        )
        for artefact in report.artefacts
        for d in artefact.departures
    ]
    return Table(
        "Nodes that the error comes from",
        ("artefact", "graph", "node", "operator", "layer", "error before", "error after"),
        tuple(rows),
        "RMS of the difference from the fp32 graph, relative to the tensor's RMS; "
        "in the order of the graph, those that add most; first: where it begins.",
    )


def _limits(report: Report) -> Table:
    precisions = dict.fromkeys(a.precision for a in report.artefacts if a.precision in TOLERANCES)
    limits = {precision: TOLERANCES[precision].to_dict() for precision in precisions}
    names = next(iter(limits.values()), {})
    return Table(
        "Tolerances",
        ("limit", *limits),
        tuple(
            (
                name.replace("_", " "),
                *(_NONE if (v := of[name]) is None else f"{v:g}" for of in limits.values()),
            )
            for name in names
        ),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.3g} %"


def _number(value: float | None, form: str, factor: float = 1) -> str:
    if value is None:
        return _NONE
    return format(factor * value, form) if isfinite(value) else str(value)


def _change(mean: float | None, worst: float | None, form: str, factor: float = 1) -> str:
    if mean is None:
        return _NONE
    return f"{_number(mean, form, factor)} ({_number(worst, form, factor)})"
