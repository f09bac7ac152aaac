"""A report from picture files to the text of its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cwic import __version__
from cwic.codec import Codec
from cwic.errors import CwicError, UsageError
from cwic.image import open_rgb
from cwic.rate import DEFAULT_QUALITY
from cwic.report.inputs import display_names, find_pictures
from cwic.report.measure import Rate, measure
from cwic.report.render import About, render
from cwic.report.view import picture_view

__all__ = ["CURVE_POINTS", "PAGE_PIXELS", "PICTURE_PIXELS", "build_report"]

CURVE_POINTS = 8
PICTURE_PIXELS = 2_000_000
"""A picture is shown with at most about this many pixels."""
PAGE_PIXELS = 16_000_000
"""All pictures together are, each counted once."""


def build_report(
    inputs: Sequence[Path],
    codec: Codec,
    rate: Rate | None = None,
    *,
    title: str | None = None,
    curve_points: int = CURVE_POINTS,
    progress: Callable[[str], None] = lambda name: None,
) -> str:
    """Measure pictures and describe them in one HTML page.

    Args:
        inputs: pictures, and folders of pictures.
        codec: the model to report on.
        rate: what to ask of it; quality 50 if None.
        title: of the page; None names the picture or their number.
        curve_points: rates of cwic's rate-distortion curve, at least 2; 0: no curves.
        progress: called with the name of each picture before it is measured.

    Returns:
        The page. It refers to nothing outside of it.

    Raises:
        CwicError: a picture cannot be read or coded at the rate; its name comes first.
        UsageError: no picture, or an argument out of range.
    """
    if curve_points < 0 or curve_points == 1:
        raise UsageError(f"{curve_points} points make no curve; use 0 for none, or 2 and more")
    rate = rate or Rate()
    paths = find_pictures(inputs)
    if not paths:
        raise UsageError("a report of nothing is empty; name a picture or a folder")
    shown_pixels = min(PICTURE_PIXELS, PAGE_PIXELS // len(paths))
    views = []
    for path, name in zip(paths, display_names(paths), strict=True):
        progress(name)
        original = open_rgb(path)
        try:
            measured = measure(codec, name, original, rate, curve_points)
        except CwicError as exc:
            raise type(exc)(f"{path}: {exc}") from exc
        views.append(picture_view(measured, shown_pixels))
    about = About(
        title or (views[0].name if len(views) == 1 else f"{len(views)} pictures"),
        __version__,
        codec.bundle.name,
        codec.bundle.model_id.hex(),
        codec.runner.backend,
        _asked(rate),
    )
    return render(about, views)


def _asked(rate: Rate) -> str:
    if rate.bpp is not None:
        return f"at most {rate.bpp:g} bits per pixel"
    if rate.max_bytes is not None:
        return f"at most {rate.max_bytes:,} bytes"
    return f"quality {DEFAULT_QUALITY if rate.quality is None else rate.quality:g}"
