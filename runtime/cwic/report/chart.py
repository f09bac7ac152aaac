"""Line charts as coordinates: the template draws them as SVG, in the page's colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["HEIGHT", "WIDTH", "Chart", "Line", "Tick", "line_chart"]

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A grid line: where, and what stands beside it."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """One series; ``points`` and the ``marked`` one are in the units of the drawing."""

    name: str
    points: tuple[tuple[float, float], ...]
    marked: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """A chart of ``WIDTH`` x ``HEIGHT`` units."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def line_chart(
    title: str,
    labels: tuple[str, str],
    series: Mapping[str, Sequence[tuple[float, float]]],
    marked: Mapping[str, tuple[float, float]],
) -> Chart | None:
    """Scale series of (x, y) to a drawing; x begins at 0, y where the points do.

    Args:
        title: what the chart shows.
        labels: of the x axis and the y axis.
        series: points by name; those that are not finite are left out.
        marked: a point to stand out, by name.

    Returns:
        None if nothing is left to draw.
    """
    finite = {n: [p for p in points if all(map(math.isfinite, p))] for n, points in series.items()}
    special = {n: p for n, p in marked.items() if all(map(math.isfinite, p))}
    everything = [p for points in finite.values() for p in points] + list(special.values())
    if not everything:
        return None
    x_values = _ticks(0, max(x for x, _ in everything))
    y_values = _ticks(min(y for _, y in everything), max(y for _, y in everything))

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * _share(point[0], x_values)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _share(point[1], y_values)
        return round(x, 1), round(y, 1)

    return Chart(
        title,
        *labels,
        tuple(Tick(place((x, y_values[0]))[0], _label(x, x_values)) for x in x_values),
        tuple(Tick(place((0, y))[1], _label(y, y_values)) for y in y_values),
        tuple(
            Line(name, tuple(map(place, points)), place(special[name]) if name in special else None)
            for name, points in finite.items()
        ),
    )


def _share(value: float, ticks: Sequence[float]) -> float:
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _ticks(low: float, high: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten that enclose ``low`` and ``high``."""
    least = max(high - low, 1e-3 * max(abs(high), 1e-3)) / _TICKS
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= 0.999 * least)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _label(value: float, ticks: Sequence[float]) -> str:
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{value:.{decimals}f}"
