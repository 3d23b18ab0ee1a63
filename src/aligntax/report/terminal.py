"""The survey in a terminal: the verdict, the bill as a table, the warnings."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results import Survey
from .lever_tables import subspace_line
from .text import clean, interval, number, p_text
from .verdict import cautions, is_ranked, key_figures, selected, sorted_tasks, verdict

_STYLES = {"free": "", "tradeoff": "yellow", "entangled": "red", "unranked": "dim"}


def terminal_summary(survey: Survey, console: Console) -> None:
    """Print the verdict, the bill at the selected layer and the warnings on `console`.

    Strings of the survey are stripped of escapes and control characters and are never read as console markup.
    """
    survey = clean(survey)
    console.print(
        Text(f"{survey.model}, {survey.size} survey, layer {survey.layer}, estimator {survey.estimator}", "bold")
    )
    console.print(Text(verdict(survey)))
    row = selected(survey)
    if row is not None and row.tasks:
        console.print(_bill(survey))
    if line := subspace_line(survey):
        console.print(Text(line))
    for figure in key_figures(survey):
        console.print(Text(f"{figure.value}  {figure.label}. {figure.meaning}"))
    for warning in cautions(survey):
        console.print(Text(f"Warning: {warning}", "yellow"))


def _bill(survey: Survey) -> Table:
    row = selected(survey)
    assert row is not None
    grid = Table(title=Text(f"The bill at layer {row.layer} (90% intervals)"))
    for name in ("task", "cosine", "tax", "p adj.", "reliab.", "regime", "change per 0.1 nat"):
        grid.add_column(Text(name), justify="left" if name in ("task", "regime") else "right", overflow="fold")
    entries = [(name, row.tasks[name]) for name in sorted_tasks(row)]
    if survey.over_refusal is not None:
        entries.append(("over-refusal", survey.over_refusal))
    for name, task in entries:
        ranked = task.regime if is_ranked(task) else "not ranked"
        cells = [
            name,
            interval(task.cosine, task.low, task.high, plus=True),
            number(task.tax),
            p_text(task.p_adjusted),
            number(task.reliability),
            ranked,
            interval(task.change_per_decinat, task.change_low, task.change_high, plus=True),
        ]
        if name == "over-refusal":
            grid.add_section()
        grid.add_row(*(Text(c) for c in cells), style=_STYLES.get(task.regime, ""))
    return grid
