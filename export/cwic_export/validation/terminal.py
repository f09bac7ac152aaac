"""The report on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cwic_export.validation.report import Report
from cwic_export.validation.tables import tables

__all__ = ["show"]

_SMALLEST_WIDTH = 120
_COLOURS = {"passed": "green", "differs": "red", "error": "red", "skipped": "yellow"}


def show(report: Report) -> None:
    """Print the tables, then one line for each problem."""
    console = Console()
    if not console.is_terminal:  # a file or a log has no width to keep to
        console = Console(width=max(console.width, _SMALLEST_WIDTH))
    for table in tables(report):
        shown = RichTable(title=Text(table.title), title_justify="left", caption_justify="left")
        for index, name in enumerate(table.header):
            shown.add_column(Text(name), overflow="fold", no_wrap=index == 0)
        for row in table.rows:
            shown.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
        console.print(shown)
        if table.note:
            console.print(table.note, soft_wrap=True, markup=False, highlight=False)
        console.print()
    for problem in report.problems():
        console.print(problem, soft_wrap=True, markup=False, highlight=False)
    verdict = "passed" if report.passed else "not passed"
    console.print(f"{report.name}: {verdict}", soft_wrap=True, markup=False, highlight=False)
