"""A merge in one HTML page, and in a terminal: the front between two models, the fractions by layer, what was picked and why."""

from collections.abc import Sequence

from markupsafe import Markup
from rich.console import Console

from ..results import Merge, MergePoint
from .document import document
from .figures import by_layer
from .frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Name, curve, frame
from .svg import Scale, drawing, line, mark, spread
from .tables import Table, table
from .terminal import say
from .text import clean, exact, interval, number
from .verdict import KeyFigure, held

LOOKS = {"uniform": ("one", "circle"), "random": ("muted", "cross")}
OWN = ("gain", "diamond")
"""Colour and mark of each scheme; that of the merge itself, whatever its name, is the last."""


def render_merge(merge: Merge) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    merge = clean(merge)
    return document(
        "merge.html.j2",
        s=merge,
        verdict=verdict(merge),
        keys=key_figures(merge),
        fig={"front": front(merge), "layers": fractions(merge)},
        tab={
            "points": _points(merge),
            "layers": _layers(merge),
            "learned": _learned(merge),
            "provenance": _provenance(merge),
        },
    )


def verdict(merge: Merge) -> str:
    """What was written and why, from the numbers alone."""
    pick = merge.pick
    said = f"The written model takes {exact(merge.aligned_fraction)} of the aligned one on average, by {merge.scheme} fractions. "
    if pick.rule == "given":
        return said + "The fraction was given, not picked."
    rule = (
        "most safety above the floor of capability" if pick.rule == "capability_floor" else "most of the weighted sum"
    )
    said += f"It was picked on {pick.split} items for {rule} ({exact(pick.value)}): "
    return f"{said}safety {number(pick.safety_gain, 2, True)}, capability {number(pick.capability, 2, True)} nats."


def key_figures(merge: Merge) -> list[KeyFigure]:
    """The written mixture on test items where it was scored, and what its own fractions promise over equal ones."""
    found = [
        KeyFigure(
            exact(merge.aligned_fraction), "aligned fraction", f"mean over {len(merge.layers)} blocks, {merge.scheme}"
        )
    ]
    point = written(merge)
    if point is not None:
        gain = interval(point.safety_gain, point.safety_low, point.safety_high, plus=True)
        found.append(
            KeyFigure(number(point.safety_gain, 2, True), "safety against the base", f"{gain} on test prompts")
        )
        change = interval(point.capability, point.capability_low, point.capability_high, plus=True)
        found.append(
            KeyFigure(number(point.capability, 2, True), "capability against the base", f"{change} nats on test items")
        )
    if merge.geometry is not None and held(merge.geometry.predicted_ratio):
        meaning = "gain that theory promises of these fractions, over that of equal ones of the same length"
        found.append(KeyFigure(number(merge.geometry.predicted_ratio), "over uniform", meaning))
    return found


def tested(merge: Merge) -> list[MergePoint]:
    """Points of the front: those of the test split."""
    return [point for point in merge.points if point.split == "test"]


def written(merge: Merge) -> MergePoint | None:
    """The point of the front that was written, None where it was not scored."""
    same = (p for p in tested(merge) if p.scheme == merge.scheme and abs(p.fraction - merge.aligned_fraction) < 1e-6)
    return next(same, None)


def _look(scheme: str) -> tuple[str, str]:
    return LOOKS.get(scheme, OWN)


def front(merge: Merge) -> Markup | None:
    """Safety gain against capability change on test items: each scheme, the straight line, the frontier at each mixture's KL."""
    points = [p for p in tested(merge) if held(p.capability) and held(p.safety_gain)]
    if not points:
        return None
    straight = [(p.line[0], p.line[1]) for p in points if p.line and held(p.line[0]) and held(p.line[1])]
    bound = [(p.capability, p.frontier.within) for p in points if p.frontier and held(p.frontier.within)]
    both = [*((p.capability, p.safety_gain) for p in points), *straight, *bound]
    across = Scale(*spread([float(x or 0) for x, _ in both]), LEFT, RIGHT)
    up = Scale(*spread([float(y or 0) for _, y in both]), BOTTOM, TOP)
    schemes = sorted({p.scheme for p in points}, key=lambda name: (name == "random", name != "uniform"))
    entries: list[Name] = [(name, *_look(name)) for name in schemes]
    entries += [("straight line", "muted dashed", "")] * bool(straight) + [
        ("frontier of one layer", "two", "square")
    ] * bool(bound)
    parts = frame(across, up, ("capability change (nats per answer token)", "safety gain"), entries)
    ordered = sorted(straight)
    parts.append(curve([float(x) for x, _ in ordered], [y for _, y in ordered], across, up, "muted dashed"))
    for x, y in bound:
        parts.append(mark(across(float(x or 0)), up(float(y or 0)), "square", "two", f"frontier: {number(y, 2, True)}"))
    for name in schemes:
        own = sorted((p for p in points if p.scheme == name), key=lambda p: p.fraction)
        if name != "random":
            parts.append(
                curve(
                    [p.capability or 0.0 for p in own],
                    [p.safety_gain for p in own],
                    across,
                    up,
                    f"{_look(name)[0]} thin",
                )
            )
        for p in own:
            parts += _whiskers(p, across, up)
    return drawing("fig-front", "Safety against capability", f"{len(points)} mixtures on test items.", HEIGHT, parts)


def _whiskers(point: MergePoint, across: Scale, up: Scale) -> list[Markup]:
    css, shape = _look(point.scheme)
    x, y = across(point.capability or 0.0), up(point.safety_gain or 0.0)
    parts = []
    if held(point.safety_low) and held(point.safety_high):
        parts.append(line(x, up(point.safety_low), x, up(point.safety_high), f"whisker {css}"))
    if held(point.capability_low) and held(point.capability_high):
        parts.append(line(across(point.capability_low), y, across(point.capability_high), y, f"whisker {css}"))
    told = f"{point.scheme} {exact(point.fraction)}: safety {number(point.safety_gain, 2, True)}"
    return [*parts, mark(x, y, shape, css, told)]


def fractions(merge: Merge) -> Markup | None:
    """Aligned fraction of each block that was written, beside their mean."""
    mean: Sequence[tuple[int, float | None]] = [(k, merge.aligned_fraction) for k in range(len(merge.layers))]
    own: list[tuple[int, float | None]] = list(enumerate(merge.layers))
    series = [(merge.scheme, "gain", own), ("their mean", "muted dashed", list(mean))]
    return by_layer("fig-fractions", "Fractions by layer", "aligned fraction", series, None, (-0.02, 1.02))


COLUMNS = [
    "scheme",
    "fraction",
    "split",
    "safety gain [90%]",
    "capability [90%]",
    "line: safety",
    "frontier",
    "share of it",
]


def _points(merge: Merge) -> Table:
    rows = [
        [
            p.scheme,
            exact(p.fraction),
            p.split,
            interval(p.safety_gain, p.safety_low, p.safety_high, plus=True),
            interval(p.capability, p.capability_low, p.capability_high, plus=True),
            number(p.line[1] if p.line else None, 2, True),
            number(p.frontier.within if p.frontier else None),
            number(p.frontier.within_share if p.frontier else None),
        ]
        for p in merge.points
    ]
    return table("The front", COLUMNS, rows, (2,))


def _layers(merge: Merge) -> Table:
    geometry = merge.geometry
    rows = [
        [
            str(k),
            number(fraction),
            number(geometry.yields[k] if geometry else None),
            number(geometry.update_norms[k] if geometry else None),
        ]
        for k, fraction in enumerate(merge.layers)
    ]
    rows.append(["outside the blocks", number(merge.outside), number(None), number(None)])
    return table("Fractions by layer", ["block", "aligned fraction", "yield", "length of the update"], rows)


def _learned(merge: Merge) -> Table | None:
    found = merge.learned
    if found is None:
        return None
    rows = [["runs of layers", str(found.blocks)], ["mixtures scored", str(found.evaluations)]]
    rows += [["at the start", number(found.start)], ["at the best", number(found.best)]]
    return table("The search for fractions, on validation items", ["what", "value"], rows, (1,))


def _provenance(merge: Merge) -> Table:
    p = merge.provenance
    facts = {
        "command": p.command, "created": p.created, "version": p.package_version, "seed": p.seed, "safety": merge.safety_unit,
        "survey": p.survey or "none", "written weights": merge.weights_sha256,
        **{f"{what}: {one.name}": one.weights_sha256 for what, one in (("base", p.base), ("aligned", p.aligned))},
        **{f"number type {kind}": f"{count} tensors" for kind, count in merge.dtypes.items()},
        **{f"data: {name}": digest for name, digest in p.data.items()},
        **{f"count: {name}": count for name, count in p.counts.items()}, **p.versions,
    }  # fmt: skip
    return table("Provenance", ["what", "value"], [[name, str(value)] for name, value in facts.items()], (1,))


def merge_summary(merge: Merge, console: Console) -> None:
    """Print verdict, key figures and warnings; strings are stripped of escapes and never read as markup."""
    merge = clean(merge)
    title = f"{merge.provenance.base.name} and {merge.provenance.aligned.name}"
    say(console, title, verdict(merge), key_figures(merge), merge.warnings)
