"""The figures of the report as inline SVG, one function each; every function returns None when nothing can be drawn.

Colour never stands alone: marks differ in shape, lines in dash, and each figure is repeated as a table on the page.
"""

from collections import defaultdict

from markupsafe import Markup

from ..results import FrontierCurve, LayerSurvey, LinearityPoint, Survey, TaskAtLayer
from .svg import (
    WIDTH,
    Scale,
    drawing,
    legend,
    line,
    mark,
    path,
    rect,
    spread,
    text,
    x_axis,
    y_axis,
)
from .text import exact, number
from .verdict import held, selected, sorted_tasks

LABELS = 142.0


def look(task: TaskAtLayer) -> tuple[str, str]:
    """Shape and colour class of a task's mark: by regime first, then by sign."""
    if task.regime == "unranked" or task.cosine is None:
        return "cross", "muted"
    if task.regime == "free":
        return "circle", "free"
    cost = task.cosine < 0
    if task.regime == "entangled":
        return "diamond", "cost" if cost else "gain"
    return ("left", "cost") if cost else ("right", "gain")


_BILL_KEY = [
    ("tradeoff, cost", mark(0, 0, "left", "cost")),
    ("tradeoff, gain", mark(0, 0, "right", "gain")),
    ("entangled", mark(0, 0, "diamond", "muted")),
    ("free", mark(0, 0, "circle", "free")),
    ("unranked", mark(0, 0, "cross", "muted")),
]


def _short(name: str, limit: int = 20) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def bill_scale(row: LayerSurvey) -> Scale:
    """The horizontal scale of the bill: symmetric about 0, wide enough for every interval, at most [-1, 1]."""
    reach = [abs(v) for t in row.tasks.values() for v in (t.cosine, t.low, t.high) if v is not None]
    widest = min(1.0, 1.08 * max(reach, default=1.0)) or 1.0
    return Scale(-widest, widest, LABELS, WIDTH - 12)


def bill(row: LayerSurvey | None) -> Markup | None:
    """Dots with intervals: signed cosine per task, cost at the left, benefit at the right, chance as a grey band."""
    if row is None or not row.tasks:
        return None
    scale = bill_scale(row)
    names = sorted_tasks(row)
    parts, top = legend(_BILL_KEY, 10)
    top += 22
    bottom = top + 24 * len(names)
    chance = row.chance_anisotropic if row.chance_anisotropic is not None else row.chance_isotropic
    level = max(chance or 0.0, 0.0) ** 0.5
    band = (scale(-level), top - 4, scale(level) - scale(-level), bottom - top + 4)
    parts += [rect(band, "band", title="overlap expected by chance")]
    parts += x_axis(scale, top - 4, bottom, "signed cosine with the safety direction")
    parts += [text(scale.start, top - 10, "← costs this task", "label cost-text")]
    parts += [text(scale.end, top - 10, "helps this task →", "label gain-text", "end")]
    for index, name in enumerate(names):
        task, y = row.tasks[name], top + 24 * index + 12
        shape, css = look(task)
        parts.append(text(LABELS - 10, y + 4, _short(name), "name", "end"))
        if task.low is not None and task.high is not None:
            parts.append(line(scale(task.low), y, scale(task.high), y, f"whisker {css}"))
        if task.cosine is None:
            parts.append(text(scale(0.0), y + 4, "undefined", "tick", "middle"))
        else:
            parts.append(mark(scale(task.cosine), y, shape, css, f"{name}: {number(task.cosine, 2, True)}"))
    description = (
        f"Signed cosine of {len(names)} tasks at layer {row.layer} with 90% intervals; the table below has the numbers."
    )
    return drawing("fig-bill", "What safety costs each task", description, bottom + 42, parts)


def _apart(labels: list[tuple[float, float, str]], gap: float = 13.0) -> list[tuple[float, float, str]]:
    placed: list[tuple[float, float, str]] = []
    for x, y, name in sorted(labels, key=lambda item: item[1]):
        placed.append((x, max(y, placed[-1][1] + gap) if placed else y, name))
    return placed


def _notable(curves: list[FrontierCurve], row: LayerSurvey | None, count: int = 4) -> set[str]:
    known = row.tasks if row else {}
    strength = {
        c.task: abs(known[c.task].cosine or 0.0)
        for c in curves
        if c.task in known and known[c.task].regime in ("tradeoff", "entangled")
    }
    return set(sorted(strength, key=lambda name: -strength[name])[:count])


def frontier(curves: list[FrontierCurve], row: LayerSurvey | None) -> Markup | None:
    """Safety gain against the change of each task; only tasks that meet safety are labelled and coloured."""
    drawn = [
        (c, points)
        for c in curves
        if (points := [(x, y) for x, y in zip(c.change, c.gain, strict=False) if x is not None and y is not None])
    ]
    if not drawn:
        return None
    xs = [x for _, points in drawn for x, _ in points]
    ys = [y for _, points in drawn for _, y in points]
    across, up = Scale(*spread(xs), 44, WIDTH - 12), Scale(*spread(ys, 0.08), 300, 34)
    parts = [
        *x_axis(across, 34, 300, "change of the task, in its own unit"),
        *y_axis(up, 44, WIDTH - 12, "safety gained (nats of refusal log-odds)"),
    ]
    named, labels = _notable(curves, row), []
    for curve, points in sorted(drawn, key=lambda item: item[0].task in named):
        css = look(row.tasks[curve.task])[1] if row and curve.task in named else "muted thin"
        parts.append(path([(across(x), up(y)) for x, y in points], f"curve {css}"))
        if curve.task in named:
            best = max(points, key=lambda p: p[1])
            parts.append(mark(across(best[0]), up(best[1]), "dot", css))
            end = min(points) if css == "cost" else max(points)
            labels.append((across(end[0]), up(end[1]) + 15, curve.task))
    for x, y, name in _apart(labels):
        parts.append(text(min(max(x, 90.0), WIDTH - 70), y, _short(name), "name halo", "middle"))
    return drawing(
        "fig-frontier",
        "Safety against each capability",
        "One curve per task at 0.1 nat; the highest point is the most safety.",
        342,
        parts,
    )


Series = tuple[str, str, list[tuple[int, float | None]]]


def by_layer(
    name: str,
    title: str,
    label: str,
    series: list[Series],
    marked: int | None,
    limits: tuple[float, float] | None = None,
) -> Markup | None:
    """Lines over layers; `series` holds (name, classes, points). The selected layer is a vertical rule."""
    layers = [k for _, _, points in series for k, value in points if value is not None]
    if not layers:
        return None
    values = [value for _, _, points in series for _, value in points if value is not None]
    parts, top = legend([(n, line(-9, 0, 9, 0, f"curve {css}")) for n, css, _ in series], 10)
    top += 26
    bottom = top + 210
    across = Scale(min(layers) - 0.5, max(layers) + 0.5, 44, WIDTH - 12)
    up = Scale(*(limits or spread(values)), bottom, top)
    parts += [*x_axis(across, bottom, bottom, "layer", 8), *y_axis(up, 44, WIDTH - 12, label)]
    if marked is not None and min(layers) <= marked <= max(layers):
        x = across(marked)
        parts += [line(x, top, x, bottom, "chosen"), text(x + 5, top + 11, f"selected: {marked}", "tick halo")]
    for _, css, points in series:
        parts.append(path([None if v is None else (across(k), up(v)) for k, v in points], f"curve {css}"))
        parts += [mark(across(k), up(v), "dot", css) for k, v in points if v is not None and len(points) == 1]
    return drawing(name, title, f"{title}, over {len(set(layers))} layers.", bottom + 42, parts)


def joint(survey: Survey) -> Markup | None:
    """Joint tax against the sum of single taxes by layer, with the floor of rotated controls."""
    rows = survey.layers
    series: list[Series] = [
        ("joint, cross-fitted", "one", [(r.layer, r.joint_tax_crossfit) for r in rows]),
        ("joint, raw", "one dashed", [(r.layer, r.joint_tax) for r in rows]),
        ("sum of single taxes", "two longdash", [(r.layer, r.sum_tax) for r in rows]),
        ("floor (controls)", "muted dotted", [(r.layer, r.joint_tax_floor) for r in rows]),
    ]
    return by_layer("fig-joint", "Joint tax and sum of taxes", "tax (share of squared length)", series, survey.layer)


def agreement(survey: Survey) -> Markup | None:
    """Cosine between estimators of the safety direction by layer, one line per pair."""
    pairs: dict[tuple[str, str], list[tuple[int, float | None]]] = defaultdict(list)
    for entry in sorted(survey.agreement, key=lambda a: a.layer):
        pairs[entry.first, entry.second].append((entry.layer, entry.cosine))
    styles = ("one", "two dashed", "three dotted", "muted longdash", "one dotted", "two")
    series = [(f"{a} · {b}", styles[k % len(styles)], points) for k, ((a, b), points) in enumerate(pairs.items())]
    return by_layer("fig-agreement", "Agreement of estimators", "cosine", series, survey.layer, (-1.0, 1.0))


def heat(survey: Survey) -> Markup | None:
    """Layers by tasks, signed cosine: a hue for cost, one for benefit, stronger for larger; undefined is dotted."""
    names = list(dict.fromkeys([*sorted_tasks(selected(survey)), *(n for r in survey.layers for n in r.tasks)]))
    values = [abs(t.cosine) for r in survey.layers for t in r.tasks.values() if t.cosine is not None]
    if not values:
        return None
    most = max(values) or 1.0
    step, left, top = (WIDTH - 12 - LABELS) / len(survey.layers), LABELS, 58.0
    parts = [text(left, 14, "cost", "tick cost-text"), text(WIDTH - 12, 14, "benefit", "tick gain-text", "end")]
    for k in range(-10, 11):
        sample = (left + (k + 10) * (WIDTH - 12 - left) / 21, 19.0, (WIDTH - 12 - left) / 21, 10.0)
        parts.append(rect(sample, "heat-low" if k < 0 else "heat-high", abs(k) / 10))
    for share, anchor in ((-1, "start"), (0, "middle"), (1, "end")):
        at = left + (share + 1) / 2 * (WIDTH - 12 - left)
        parts.append(text(at, 42, number(share * most, 2, True), "tick", anchor))
    for row, name in enumerate(names):
        y = top + 20 * row
        parts.append(text(left - 10, y + 14, _short(name), "name", "end"))
        for column, layer in enumerate(survey.layers):
            task, box = layer.tasks.get(name), (left + column * step, y, max(step - 0.6, 0.4), 19.0)
            if task is None or task.cosine is None:
                parts.append(rect(box, "heat-none", title=f"{name}, layer {layer.layer}: undefined"))
                continue
            tip = f"{name}, layer {layer.layer}: {number(task.cosine, 2, True)}"
            parts.append(rect(box, "heat-low" if task.cosine < 0 else "heat-high", abs(task.cosine) / most, tip))
    bottom = top + 20 * len(names)
    every = max(1, -(-len(survey.layers) // 10))
    for column, layer in enumerate(survey.layers):
        x = left + column * step
        if column % every == 0:
            parts.append(text(x + step / 2, bottom + 14, str(layer.layer), "tick", "middle"))
        if layer.layer == survey.layer:
            parts.append(rect((x - 1, top - 2, step + 1.4, bottom - top + 3), "outline"))
    parts.append(text((left + WIDTH - 12) / 2, bottom + 32, "layer (the selected one is framed)", "label", "middle"))
    return drawing(
        "fig-heat", "Signed cosine by layer and task", "Heat map; the table below has every number.", bottom + 40, parts
    )


def scatter(points: list[LinearityPoint]) -> Markup | None:
    """Measured against predicted change; exact on the diagonal. Random directions are hollow squares."""
    shown = [p for p in points if held(p.predicted) and held(p.measured)]
    if not shown:
        return None
    range_ = spread([v for p in shown for v in (p.predicted, p.measured)])
    parts, top = legend(
        [("safety direction", mark(0, 0, "dot", "one")), ("random direction", mark(0, 0, "square", "two hollow"))], 10
    )
    top += 26
    across, up = Scale(*range_, 48, 428), Scale(*range_, top + 340, top)
    parts += [*x_axis(across, top, top + 340, "predicted change"), *y_axis(up, 48, 428, "measured change")]
    parts.append(line(across(range_[0]), up(range_[0]), across(range_[1]), up(range_[1]), "chosen"))
    parts.append(text(434, up(range_[1]) + 10, "exact", "tick"))
    for p in sorted(shown, key=lambda p: p.direction != "random"):
        shape, css = ("square", "two hollow") if p.direction == "random" else ("dot", "one")
        tip = f"{p.task}, {exact(p.budget_nats)} nat: predicted {number(p.predicted)}, measured {number(p.measured)}"
        parts.append(mark(across(p.predicted), up(p.measured), shape, css, tip))
    return drawing(
        "fig-linearity", "Predicted and measured change", f"{len(shown)} points around the diagonal.", top + 382, parts
    )
