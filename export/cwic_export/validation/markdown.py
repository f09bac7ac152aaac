"""The report as Markdown, for a pull request or a CI summary."""

from __future__ import annotations

import re

from cwic_export.validation.report import Report
from cwic_export.validation.tables import Table, tables

__all__ = ["to_markdown"]


def to_markdown(report: Report) -> str:
    """Headings, tables and the list of problems; names are escaped."""
    verdict = "passed" if report.passed else "**not passed**"
    parts = [f"# Validation of {_text(report.name)}: {verdict}"]
    problems = report.problems()
    if problems:
        parts.append("\n".join(f"- {_text(problem)}" for problem in problems))
    parts += [_table(table) for table in tables(report)]
    parts.append(f"Pictures: {', '.join(_text(name) for name in report.pictures)}.")
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [_row(table.header), _row(("---",) * len(table.header), raw=True)]
    lines += [_row(row) for row in table.rows]
    note = f"\n\n{_text(table.note)}" if table.note else ""
    return f"## {_text(table.title)}\n\n" + "\n".join(lines) + note


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return f"| {' | '.join(cell if raw else _text(cell) for cell in cells)} |"


def _text(words: str) -> str:
    """Words that Markdown and the HTML in it leave as they are."""
    words = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", words)
