"""The page: a template, its style and its script in one file that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import jinja2
from markupsafe import Markup

from cwic.report.chart import HEIGHT, WIDTH
from cwic.report.classical import CLASSICAL
from cwic.report.embed import HEAT
from cwic.report.summary import summarise
from cwic.report.view import PictureView

__all__ = ["About", "render"]


@dataclass(frozen=True)
class About:
    """What made the report: title of the page, model, backend, what was asked for."""

    title: str
    version: str
    model: str
    model_id: str
    backend: str
    rate: str


def render(about: About, pictures: Sequence[PictureView]) -> str:
    """The whole page as text. Every value is escaped; only our own script may run."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cwic.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, count="{:,}".format, percent="{:.1f} %".format)
    script, style = (_text(name) for name in ("report.js", "report.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        about=about,
        pictures=pictures,
        summary=summarise(pictures) if len(pictures) > 1 else None,
        options={codec.name: codec.options for codec in CLASSICAL},
        heat_colours=", ".join(f"rgb{stop}" for stop in HEAT),
        chart_size=(WIDTH, HEIGHT),
        # Trusted: files of this package, without a closing tag.
        script=Markup(script),  # noqa: S704
        style=Markup(style),  # noqa: S704
        script_hash=digest,
    )


def _text(name: str) -> str:
    return (resources.files("cwic.report") / "page" / name).read_text(encoding="utf-8")


def _number(value: float | None, decimals: int) -> str:
    if value is None:
        return "–"
    return f"{value:,.{decimals}f}" if math.isfinite(value) else "∞"
