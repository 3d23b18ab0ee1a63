"""The family's figure: one small panel a task, tax against width, with its fit and the band of control tasks."""

import math

from markupsafe import Markup

from ..results.scale import Scale, ScaleBand, ScaleRow
from .frame import curve
from .svg import WIDTH, drawing, line, mark, rect, text
from .svg import Scale as Axis
from .text import number

COLUMNS, PANEL, GAP, TOP = 3, 118.0, 34.0, 52.0
EDGE = 14.0
CSS = {"incidental": "gain", "intrinsic": "cost", "undecided": "muted"}
STEPS = 24


def panels(scale: Scale) -> Markup | None:
    """Small multiples of all tasks that have points; one vertical scale for all, widths on a logarithmic axis."""
    rows = [row for row in scale.rows if row.points]
    if not rows:
        return None
    band = scale.controls.band if scale.controls else []
    low, high = _range(rows, band)
    every = [p.width for row in rows for p in row.points]
    widths = (min(every), max(every))
    lines = math.ceil(len(rows) / COLUMNS)
    parts = [text(4, 14, "tax against width; bars: standard errors; grey: central 90% of control tasks", "tick")]
    wide = (WIDTH - 30 - EDGE - GAP * (COLUMNS - 1)) / COLUMNS
    for index, row in enumerate(rows):
        left = 30 + (index % COLUMNS) * (wide + GAP)
        top = TOP + (index // COLUMNS) * (PANEL + 46)
        across = Axis(math.log2(widths[0]) - 0.15, math.log2(widths[1]) + 0.15, left, left + wide)
        parts += _panel(row, band, across, Axis(low, high, top + PANEL, top), widths)
    height = TOP + lines * (PANEL + 46)
    return drawing("fig-scale", "Tax of each task against width", "The table has the numbers.", height, parts)


def _range(rows: list[ScaleRow], band: list[ScaleBand]) -> tuple[float, float]:
    held = [v for row in rows for p in row.points for v in (p.tax,) if v is not None]
    held += [v for b in band for v in (b.low, b.high) if v is not None]
    low, high = min(0.0, *held), max(0.0, *held)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _panel(row: ScaleRow, band: list[ScaleBand], across: Axis, up: Axis, widths: tuple[int, int]) -> list[Markup]:
    css = CSS.get(row.call, "muted")
    bottom, top = up.start, up.end
    parts = [text(across.start, top - 8, row.task[:24], "name")]
    for tick in up.ticks(3):
        parts.append(line(across.start, up(tick), across.end, up(tick), "axis" if tick == 0 else "grid"))
        parts.append(text(across.start - 4, up(tick) + 4, f"{tick:g}".replace("-", "−"), "tick", "end"))
    parts += _band(band, across, up)
    parts += _fit(row, across, up, css)
    for point in row.points:
        if point.tax is None:
            continue
        x = across(math.log2(point.width))
        if point.standard_error is not None:
            reach = (point.tax - point.standard_error, point.tax + point.standard_error)
            ends = [min(max(up(value), top), bottom) for value in reach]
            parts.append(line(x, ends[0], x, ends[1], f"whisker {css}"))
        parts.append(mark(x, up(point.tax), "dot", css, f"{row.task}, width {point.width}: {number(point.tax)}"))
    for width in widths:
        parts.append(text(across(math.log2(width)), bottom + 15, str(width), "tick", "middle"))
    return [*parts, text(across.end, top - 8, row.call, f"tick {css}-text", "end")]


def _band(band: list[ScaleBand], across: Axis, up: Axis) -> list[Markup]:
    parts = []
    for b in band:
        if b.low is not None and b.high is not None:
            x = across(math.log2(b.width))
            parts.append(
                rect((x - 4, up(b.high), 8, up(b.low) - up(b.high)), "band", title=f"control tasks, width {b.width}")
            )
    return parts


def _fit(row: ScaleRow, across: Axis, up: Axis, css: str) -> list[Markup]:
    if row.t is None or row.b is None:
        return []
    first, last = math.log2(row.points[0].width), math.log2(row.points[-1].width)
    logs = [first + (last - first) * k / STEPS for k in range(STEPS + 1)]
    fitted = [row.t + row.b * 2.0**-x for x in logs]
    plateau = line(across(first), up(row.t), across(last), up(row.t), f"curve thin {css} dashed")
    return [curve(logs, fitted, across, up, css), plateau]
