"""A family of models in one HTML page, and in a terminal: which taxes vanish with width, which stay."""

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..results.scale import Scale, ScaleRow
from .document import document
from .scale_figures import panels
from .tables import Table, table
from .text import clean, interval, number, p_text, percent
from .verdict import KeyFigure

CALLS = ("intrinsic", "incidental", "undecided")
MEANING = {
    "intrinsic": "The tax levels off above 0: a larger model of this family pays it too.",
    "incidental": "The tax falls about as 1/width and nothing sizeable is left: the two merely share room in a small model.",
    "undecided": "The surveys cannot tell, or unrelated control tasks do the same. It says nothing either way.",
}
NAMED = 4
"""Surveys left out of a fit that are named; more are counted."""
STYLES = {"intrinsic": "red", "incidental": "green", "undecided": ""}


def render_scale(scale: Scale) -> str:
    """The report as one HTML document (UTF-8): no script, no request, everything escaped."""
    scale = clean(scale)
    return document(
        "scale.html.j2",
        s=scale,
        widths=sorted({source.width for source in scale.sources}),
        verdict=verdict(scale),
        keys=key_figures(scale),
        meaning=MEANING,
        fig=panels(scale),
        tab={
            "calls": _call_table(scale),
            "free": _free_table(scale),
            "points": _point_table(scale),
            "sources": _source_table(scale),
            "provenance": _provenance_table(scale),
        },
    )


def called(scale: Scale, call: str) -> list[str]:
    """Names of the tasks with this call, in the order of the record."""
    return [row.task for row in scale.rows if row.call == call]


def verdict(scale: Scale) -> str:
    """The family in a few sentences, from its numbers alone."""
    widths = sorted({source.width for source in scale.sources})
    parts = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {call} ({', '.join(names)})"
        for call in CALLS
        if (names := called(scale, call))
    ]
    said = f"Of {len(scale.rows)} tasks over widths {widths[0]} to {widths[-1]}, {'; '.join(parts)}. "
    withdrawn = [row.task for row in scale.rows if row.alone != row.call]
    if withdrawn:
        said += f"Without control tasks the call would differ for {', '.join(withdrawn)}. "
    if scale.controls is None:
        return said + "There are no control tasks to compare with."
    return said + f"The mean of {scale.controls.tasks} unrelated control tasks is itself {scale.controls.fit.call}."


def key_figures(scale: Scale) -> list[KeyFigure]:
    """How many of each call."""
    total = len(scale.rows)
    return [KeyFigure(f"{len(called(scale, call))} of {total}", call, MEANING[call]) for call in CALLS]


COLUMNS = ["task", "call", "plateau", "slope (tax x width)", "constant: p", "scatter", "like controls", "why"]


def call_cells(row: ScaleRow) -> list[str]:
    """One row of the table of calls."""
    same = "–" if row.same_as_controls is None else "yes" if row.same_as_controls else "no"
    why = row.reason + (f" (alone: {row.alone})" if row.alone != row.call else "")
    if row.left_out:
        few = len(row.left_out) <= NAMED
        why += f"; not reliable in {', '.join(row.left_out) if few else f'{len(row.left_out)} surveys'}"
    return [
        row.task,
        row.call,
        interval(row.t, row.low, row.high),
        interval(row.b, row.b_low, row.b_high, plus=True),
        p_text(row.constant_p),
        number(row.scatter),
        same,
        why,
    ]


def _rows(scale: Scale) -> list[ScaleRow]:
    return [*scale.rows, *([scale.controls.fit] if scale.controls else [])]


def _call_table(scale: Scale) -> Table:
    level = percent(scale.provenance.level)
    return table(f"tax(d) = t + b/d, {level} intervals", COLUMNS, [call_cells(row) for row in _rows(scale)], (1, 6, 7))


def _free_table(scale: Scale) -> Table:
    rows = [
        [row.task, number(row.free.p), interval(row.free.t, row.free.low, row.free.high), row.free.call]
        for row in _rows(scale)
        if row.free
    ]
    return table("The exponent set free: tax(d) = t + b/d^p", ["task", "p", "plateau", "call"], rows, (3,))


def _point_table(scale: Scale) -> Table:
    rows = [
        [row.task, str(p.width), str(p.surveys), number(p.tax, 2, True), number(p.standard_error)]
        for row in _rows(scale)
        for p in row.points
    ]
    return table("Mean tax by width", ["task", "width", "surveys", "tax", "standard error"], rows)


def _source_table(scale: Scale) -> Table:
    rows = [
        [
            s.name,
            s.model,
            str(s.width),
            f"{s.layer} of {s.layers}",
            str(s.selected),
            number(s.safety_reliability),
            s.size,
        ]
        for s in scale.sources
    ]
    columns = ["survey", "model", "width", "layer compared", "own layer", "reliability of safety", "size"]
    return table("The surveys", columns, rows, (1, 6))


def _provenance_table(scale: Scale) -> Table:
    p = scale.provenance
    facts = {
        "command": p.command, "created": p.created, "version": p.package_version, "seed": str(p.seed),
        "standard errors": p.error, "estimator": scale.estimator, "capability directions": scale.capability,
        **p.versions,
    }  # fmt: skip
    return table("Provenance", ["what", "value"], [[name, str(value)] for name, value in facts.items()], (1,))


def scale_summary(scale: Scale, console: Console) -> None:
    """Print verdict, table and warnings; strings are stripped of escapes and never read as markup."""
    scale = clean(scale)
    console.print(Text(verdict(scale)))
    grid = Grid(title=Text(f"tax(d) = t + b/d ({percent(scale.provenance.level)} intervals)"), title_justify="left")
    for name in COLUMNS[:-1]:
        grid.add_column(Text(name), justify="left" if name in ("task", "call") else "right", overflow="fold")
    rows = [*scale.rows, *([scale.controls.fit] if scale.controls else [])]
    for row in rows:
        grid.add_row(*(Text(cell) for cell in call_cells(row)[:-1]), style=STYLES.get(row.call, ""))
    console.print(grid)
    for row in rows:
        console.print(Text(f"{row.task}: {call_cells(row)[-1]}"))
    for warning in scale.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))
