"""The report as one HTML file with pictures of the differences in it."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from cwic.errors import ExportError
from cwic_export.validation.report import Artefact, Bytes, Exhibit, Report
from cwic_export.validation.tables import tables

__all__ = ["to_html"]

_GAINS = (1, 2, 4, 8, 16, 32, 64)

# No script, nothing from elsewhere; jinja2 escapes every value.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Validation of {{ report.name }}</title>
<style>
:root { --paper: #fff; --ink: #222; --rule: #bbb; --head: #eee; --good: #06602a; --bad: #a80000 }
@media (prefers-color-scheme: dark) { :root {
 --paper: #16191d; --ink: #e3e6e9; --rule: #4a525b; --head: #262c33; --good: #5fd08d; --bad: #ff8a80
} }
body { font: 15px/1.4 sans-serif; margin: 1em auto; padding: 0 1em; max-width: 76em;
 color: var(--ink); background: var(--paper); overflow-wrap: anywhere }
h1 { font-size: 1.6em } h2 { font-size: 1.25em; margin: 1.6em 0 .4em } h3 { font-size: 1em }
table { border-collapse: collapse; margin: .5em 0; overflow-wrap: normal }
th, td { border: 1px solid var(--rule); padding: .2em .6em; text-align: left; white-space: nowrap }
th { background: var(--head) }
.scroll { overflow-x: auto }
.passed { color: var(--good) } .differs, .error { color: var(--bad); font-weight: bold }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9em, 1fr)); gap: 1em }
figure { margin: 0; max-width: 288px }
img { image-rendering: pixelated; width: 100%; display: block }
figcaption, .note { font-size: 13px; max-width: 70em }
</style>
</head>
<body>
<h1>Validation of {{ report.name }}:
 <span class="{{ 'passed' if report.passed else 'differs' }}">
 {{- 'passed' if report.passed else 'not passed' }}</span></h1>
{% if problems %}<ul>{% for problem in problems %}
<li>{{ problem }}</li>{% endfor %}
</ul>{% endif %}
{% for table in tables %}
<h2>{{ table.title }}</h2>
<div class="scroll" role="region" tabindex="0" aria-label="{{ table.title }}"><table>
<tr>{% for name in table.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}
<td{% if cell in ("passed", "differs", "error") %} class="{{ cell }}"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>
{% if table.note %}<p class="note">{{ table.note }}</p>{% endif %}
{% endfor %}
{% if shown %}<h2>Where the artefacts differ most</h2>{% endif %}
{% for group in shown %}
<h3>{{ group.title }}</h3>
<div class="figures">{% for figure in group.figures %}<figure>
<img src="{{ figure.source }}" alt="{{ figure.caption }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}</div>{% endfor %}
<p>Pictures: {{ report.pictures | join(", ") }}.</p>
</body>
</html>
"""


def to_html(report: Report) -> str:
    """A page that needs nothing else; pictures are PNG in data URIs.

    Raises:
        ExportError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as exc:
        raise ExportError(f"HTML reports need jinja2 ({exc}); pip install 'cwic[export]'") from exc
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_PAGE).render(
        report=report,
        problems=report.problems(),
        tables=tables(report),
        shown=[_shown(a, a.exhibit) for a in report.artefacts if a.exhibit is not None],
    )
    return page + "\n"


def _shown(artefact: Artefact, exhibit: Exhibit) -> dict[str, object]:
    difference = exhibit.own.astype(np.int16) - exhibit.reference
    largest = int(np.abs(difference).max())
    gain = max((g for g in _GAINS if g * largest <= 127), default=1)
    magnified = (128 + gain * difference).clip(0, 255).astype(np.uint8)
    pictures = (
        ("original", exhibit.original),
        ("eager", exhibit.reference),
        (artefact.label, exhibit.own),
        (f"difference, {gain}-fold around grey; largest {largest}", magnified),
    )
    title = (
        f"{artefact.label}: {exhibit.picture} at s = {exhibit.scale:g}, mean difference of the "
        f"whole picture {exhibit.pixel_mean:.3g}"
    )
    figures = [{"caption": caption, "source": _data_uri(p)} for caption, p in pictures]
    return {"title": title, "figures": figures}


def _data_uri(pixels: Bytes) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
