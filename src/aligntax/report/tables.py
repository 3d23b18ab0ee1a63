"""The tables that carry the argument: bill, frontier, layers, heat map, tolerances, selection, linearity."""

from dataclasses import dataclass

from markupsafe import Markup

from ..results import LayerSurvey, Survey, TaskAtLayer, TaskInfo
from .text import UNDEFINED, cell, exact, interval, number, p_text, percent
from .verdict import held, is_ranked, selected, sorted_tasks, unit_of

Cell = str | Markup


@dataclass(frozen=True)
class Table:
    """A captioned table; the first cell of each row is its header. `numeric` columns are set to the right."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    words: tuple[int, ...] = ()


def table(caption: str, columns: list[str], rows: list[list[str]], words: tuple[int, ...] = ()) -> Table:
    """A Table whose lone en dashes say *undefined*; `words` are the columns of text."""
    return Table(caption, columns, [[c if isinstance(c, Markup) else cell(c) for c in row] for row in rows], words)


def _notes(task: TaskAtLayer, info: TaskInfo | None) -> str:
    notes = [] if is_ranked(task) else ["not ranked"]
    if info is not None:
        notes += [] if info.headroom else ["no headroom"]
        notes += info.notes
    return "; ".join(notes) or "none"


def bill_row(name: str, task: TaskAtLayer, info: TaskInfo | None, unit: str) -> list[str]:
    """One row of the bill."""
    accuracy = percent(info.accuracy) if info else number(None)
    if info is not None and held(info.accuracy) and held(info.chance):
        accuracy += f" (chance {percent(info.chance)})"
    return [
        name,
        task.regime,
        interval(task.cosine, task.low, task.high, plus=True),
        interval(task.change_per_decinat, task.change_low, task.change_high, plus=True),
        unit,
        interval(task.tax, task.tax_low, task.tax_high),
        p_text(task.p_adjusted),
        number(task.reliability),
        interval(info.score, info.score_low, info.score_high) if info else number(None),
        accuracy,
        _notes(task, info),
    ]


BILL_COLUMNS = [
    "Task",
    "Regime",
    "Cosine [90%]",
    "Change per 0.1 nat [90%]",
    "Unit",
    "Tax [90%]",
    "p, adjusted",
    "Reliability",
    "Base score",
    "Accuracy",
    "Notes",
]


def bill_table(survey: Survey) -> Table | None:
    """Every task at the selected layer, from the largest cost to the largest benefit."""
    row = selected(survey)
    if row is None:
        return None
    infos = {info.name: info for info in survey.tasks}
    rows = [bill_row(n, row.tasks[n], infos.get(n), unit_of(survey, n)) for n in sorted_tasks(row)]
    rows += [[n, *[number(None)] * 9, "not measured at this layer"] for n in infos if n not in row.tasks]
    level = row.chance_anisotropic if held(row.chance_anisotropic) else row.chance_isotropic
    caption = f"The bill at layer {row.layer}; chance alone gives a tax of about {number(level)}"
    return table(caption, BILL_COLUMNS, rows, (1, 4, 10))


def chance_table(row: LayerSurvey | None) -> Table | None:
    """What tax pure chance would show at the selected layer."""
    if row is None:
        return None
    rows = [
        ["one task, all directions alike (1/d)", number(row.chance_isotropic)],
        ["one task, with this layer's activations", number(row.chance_anisotropic)],
        ["all tasks together", number(row.chance_joint)],
    ]
    return table("Tax expected by chance", ["Case", "Tax"], rows)


def over_refusal_table(survey: Survey) -> Table | None:
    """The over-refusal row, apart from the capabilities."""
    task = survey.over_refusal
    if task is None:
        return None
    row = bill_row("over-refusal", task, None, "nats of refusal log-odds")
    return table("Over-refusal", BILL_COLUMNS[:8], [row[:8]], (1, 4))


def frontier_table(survey: Survey) -> Table:
    """The ends and the top of each curve."""
    rows = []
    for curve in survey.frontier:
        pairs = [(x, y) for x, y in zip(curve.change, curve.gain, strict=False) if held(x) and held(y)]
        best = max(pairs, key=lambda p: p[1], default=(None, None))
        still = min(pairs, key=lambda p: (abs(p[0]), -p[1]), default=(None, None))
        rows.append(
            [curve.task, number(best[1]), number(best[0], 2, True), number(still[1]), unit_of(survey, curve.task)]
        )
    columns = ["Task", "Most safety (nats)", "Change of the task there", "Safety with the task held", "Unit of change"]
    return table("Frontier, 0.1 nat", columns, rows, (4,))


def joint_table(survey: Survey) -> Table:
    """Joint and summed tax, and what is left of the gain, at every layer."""
    rows = [
        [
            f"{r.layer}{' (selected)' if r.layer == survey.layer else ''}",
            number(r.joint_tax_crossfit),
            number(r.joint_tax),
            number(r.joint_tax_floor),
            number(r.sum_tax),
            number(r.safety_reliability),
            number(r.gain_per_decinat),
            number(r.tax_free_gain_per_decinat),
            number(r.shift_norm_per_decinat),
            number(r.activation_norm),
            ", ".join(map(str, r.sinks)) or "none",
        ]
        for r in survey.layers
    ]
    columns = ["Layer", "Joint, cross-fitted", "Joint, raw", "Floor", "Sum of taxes", "Reliability of safety"]
    columns += ["Gain per 0.1 nat", "Free of tax", "Length of the shift", "Activation norm", "Sink positions"]
    return table("Joint tax by layer", columns, rows)


def heat_table(survey: Survey) -> Table:
    """Signed cosine, layers down and tasks across."""
    names = list(dict.fromkeys([*sorted_tasks(selected(survey)), *(n for r in survey.layers for n in r.tasks)]))
    rows = [
        [str(r.layer), *(number(r.tasks[n].cosine if n in r.tasks else None, 2, True) for n in names)]
        for r in survey.layers
    ]
    return table("Signed cosine by layer and task", ["Layer", *names], rows)


def agreement_table(survey: Survey) -> Table:
    """Cosine between every pair of estimators."""
    rows = [
        [str(a.layer), f"{a.first} and {a.second}", interval(a.cosine, a.low, a.high, plus=True)]
        for a in sorted(survey.agreement, key=lambda a: (a.first, a.second, a.layer))
    ]
    return table("Agreement of estimators", ["Layer", "Estimators", "Cosine [90%]"], rows, (1,))


def _price(survey: Survey, task: str, price: float | None, active: bool) -> str | Markup:
    if not held(price):
        return UNDEFINED
    if not active or price == 0:
        return "nothing: this limit is not reached"
    unit = unit_of(survey, task)
    one = unit.replace("nats", "nat", 1) if unit.startswith("nats") else unit
    return f"one more {one} of tolerance on {task} buys {number(price)} nats of refusal log-odds"


def tolerance_table(survey: Survey) -> Table:
    """Which limits bind, and what loosening each would buy."""
    rows = [
        [
            r.task,
            exact(r.tolerance),
            number(r.predicted_change, 2, True),
            "yes" if r.active else "no",
            "0" if r.price == 0 else interval(r.price, r.price_low, r.price_high),
            _price(survey, r.task, r.price, r.active),
        ]
        for r in sorted(survey.tolerances.rows, key=lambda r: (not r.active, -(r.price or 0.0), r.task))
    ]
    columns = ["Task", "May lose", "Predicted change", "Limit reached", "Price [range]", "In words"]
    return table("Tolerances and their prices", columns, rows, (3, 5))


def selection_table(survey: Survey) -> Table:
    """Candidate layers with the refusal log-odds gained at the same measured KL."""
    rows = [
        [
            f"layer {c.layer}{' (chosen)' if c.chosen else ''}",
            c.position,
            c.estimator,
            number(c.kl_nats, 3),
            number(c.norm),
            interval(c.gain, c.low, c.high, plus=True),
        ]
        for c in sorted(survey.selection.candidates, key=lambda c: -(c.gain if held(c.gain) else -1e9))
    ]
    columns = ["Candidate", "Position", "Estimator", "Measured KL (nats)", "Length", "Gain [90%]"]
    return table("Candidates for the layer", columns, rows, (1, 2))


def token_table(survey: Survey) -> Table:
    """First tokens that count as a refusal."""
    rows = [[t.text, str(t.id), t.origin, percent(t.mass)] for t in survey.refusal_tokens]
    return table("Refusal tokens", ["Token", "Id", "Found in", "Share of refusal mass"], rows, (2,))


def budget_table(survey: Survey) -> Table | None:
    """How well predictions held, budget by budget."""
    check = survey.linearity
    if check is None:
        return None
    keys = dict.fromkeys([*check.slope_by_budget, *check.error_by_budget, *check.refusal_gain_by_budget])
    rows = [
        [
            key,
            number(check.slope_by_budget.get(key)),
            percent(check.error_by_budget.get(key)),
            number(check.refusal_predicted_by_budget.get(key), 2, True),
            number(check.refusal_gain_by_budget.get(key), 2, True),
        ]
        for key in keys
    ]
    heads = ["Budget (nats)", "Slope", "Relative error", "Refusal log-odds predicted", "gained"]
    return table("Linearity by budget", heads, rows)


def points_table(survey: Survey) -> Table | None:
    """Every point of the linearity figure."""
    if survey.linearity is None:
        return None
    rows = [
        [
            p.task,
            p.direction,
            exact(p.budget_nats),
            number(p.kl_nats),
            number(p.predicted, 3, True),
            number(p.measured, 3, True),
            number(p.noise),
        ]
        for p in survey.linearity.points
    ]
    columns = ["Task", "Direction", "Budget", "Measured KL", "Predicted", "Measured", "Noise"]
    return table("Predicted and measured changes", columns, rows, (1,))
