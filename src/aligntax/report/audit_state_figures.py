"""Figures of the states of both models: how far apart along the safety direction, by layer and position, and the shift by layer."""

from collections.abc import Callable

from markupsafe import Markup

from ..results import RepresentationRecord, ShiftRecord
from .frame import BOTTOM, HEIGHT, LEFT, TOP, curve, frame
from .svg import WIDTH, Scale, drawing, rect, spread, text
from .text import number
from .verdict import held

CELL = 11.0


def difference(record: RepresentationRecord | None) -> Markup | None:
    """Layers by positions: how far the aligned model stands from its base along the direction, on its own replies."""
    gaps = _gaps(record) if record is not None else []
    size = max((abs(v) for row in gaps for v in row if held(v)), default=0.0)
    if record is None or not size > 0:
        return None
    left, top, last = 52.0, 52.0, WIDTH - 12
    step = (last - left) / len(record.position)
    parts = [
        text(left, 14, "against the direction", "tick cost-text"),
        text(last, 14, "along it", "tick gain-text", "end"),
    ]
    parts += [text(left, 30, number(-size, 2, True), "tick"), text(last, 30, number(size, 2, True), "tick", "end")]
    for layer, row in enumerate(gaps):
        y = top + CELL * (len(gaps) - 1 - layer)
        parts += [_cell((left + k * step, y, step), v, size, (layer, record.position[k])) for k, v in enumerate(row)]
        if layer % max(1, len(gaps) // 6) == 0:
            parts.append(text(left - 6, y + 9, str(layer), "tick", "end"))
        if layer == record.layer:
            parts.append(rect((left - 1, y - 1, last - left + 2, CELL + 1), "outline"))
    bottom = top + CELL * len(gaps)
    every = max(1, len(record.position) // 10)
    for column in range(0, len(record.position), every):
        parts.append(text(left + (column + 0.5) * step, bottom + 14, str(record.position[column]), "tick", "middle"))
    parts.append(text(4, 46, "layer", "label"))
    parts.append(
        text(
            (left + last) / 2,
            bottom + 32,
            "position in the reply (tokens; the scored layer is framed)",
            "label",
            "middle",
        )
    )
    title = "Where the states of the two models differ"
    return drawing("fig-states", title, "Heat map; the table has each layer's horizon.", bottom + 42, parts)


def _cell(at: tuple[float, float, float], value: float | None, size: float, place: tuple[int, int]) -> Markup:
    """One cell `(x, y, step)` of the heat map, with its number when pointed at; `place` is its layer and token."""
    box = (at[0], at[1], max(at[2] - 0.5, 0.4), CELL - 0.5)
    tip = f"layer {place[0]}, token {place[1]}: {number(value, 2, True)}"
    if not held(value):
        return rect(box, "heat-none", title=tip)
    return rect(box, "heat-low" if value < 0 else "heat-high", abs(value) / size, tip)


def _gaps(record: RepresentationRecord) -> list[list[float | None]]:
    return [
        [a - b if a is not None and b is not None else None for a, b in zip(after, before, strict=True)]
        for after, before in zip(record.aligned, record.base, strict=True)
    ]


def shift(records: list[ShiftRecord]) -> Markup | None:
    """Length, coherence and cosines of the realised shift by layer."""
    lines: list[tuple[str, str, Callable[[ShiftRecord], float | None]]] = [
        ("length / activation", "one", lambda x: x.relative_length),
        ("share that is one vector", "two dashed", lambda x: x.coherence),
        ("cosine with v", "three longdash", lambda x: x.cosine),
        ("difference in means, before and after", "muted dotted", lambda x: x.turn),
    ]
    values = [v for _, _, of in lines for x in records if held(v := of(x))]
    if len(records) < 2 or not values:
        return None
    low, high = spread(values)
    across = Scale(0, records[-1].layer, LEFT, WIDTH - 12)
    up = Scale(max(low, -1.05), min(max(high, 0.2), 1.2), BOTTOM, TOP + 20)
    parts = frame(across, up, ("layer", "fraction"), [(name, css, "") for name, css, _ in lines])
    for _, css, of in lines:
        found = [v if held(v := of(x)) else None for x in records]
        parts.append(curve([x.layer for x in records], found, across, up, css))
    return drawing("fig-shift", "The shift that training made", "By layer; the table has the intervals.", HEIGHT, parts)
