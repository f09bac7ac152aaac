"""What a user asks `cwic validate` for, as text: rate factors, and files of the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cwic.errors import UsageError
from cwic.files import write_bytes
from cwic_export.validation.html import to_html
from cwic_export.validation.markdown import to_markdown
from cwic_export.validation.report import Report

__all__ = ["Outputs", "parse_scales"]

_PRINT = "-"


def parse_scales(text: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        UsageError: something else.
    """
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as exc:
        raise UsageError(
            f"--scales {text!r} are not numbers separated by commas; use for example 0.25,0.5,1"
        ) from exc


@dataclass(frozen=True)
class Outputs:
    """Where the report goes in each form: a file, ``-`` to print it, None for nowhere.

    Raises:
        UsageError: more than one is to be printed.
    """

    json: str | None = None
    markdown: str | None = None
    html: str | None = None

    def __post_init__(self) -> None:
        if [self.json, self.markdown, self.html].count(_PRINT) > 1:
            raise UsageError(
                "only one of --json, --markdown and --html can be -; give the others a file"
            )

    def write(self, report: Report) -> str | None:
        """Write the files; returns what is to be printed.

        Raises:
            UsageError: a folder is missing or cannot be written.
            ExportError: a package for this form is not installed.
        """
        forms: tuple[tuple[str | None, Callable[[Report], str]], ...] = (
            (self.json, Report.to_json),
            (self.markdown, to_markdown),
            (self.html, to_html),
        )
        printed = None
        for place, render in forms:
            if place == _PRINT:
                printed = render(report)
            elif place is not None:
                write_bytes(place, render(report).encode())
        return printed
