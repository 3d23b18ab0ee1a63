"""The survey in a terminal: the verdict, the bill as a table, the warnings."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results import Survey
from .lever_tables import subspace_line
from .text import clean, interval, number, p_text
from .verdict import KeyFigure, cautions, is_ranked, key_figures, selected, sorted_tasks, verdict

_STYLES = {"free": "", "tradeoff": "yellow", "entangled": "red", "unranked": "dim"}


def say(console: Console, title: str, verdict: str, figures: Sequence[KeyFigure], warnings: Sequence[str] = ()) -> None:
    """Print a clean result's title, verdict, key figures and warnings; nothing is read as console markup."""
    console.print(Text(title, "bold"))
    console.print(Text(verdict))
    say_figures(console, figures, warnings)


def say_figures(console: Console, figures: Sequence[KeyFigure], warnings: Sequence[str]) -> None:
    """Key figures, a line each, and warnings."""
    for figure in figures:
        label = figure.label if figure.label[-1] in "?.!" else f"{figure.label}."
        console.print(Text(f"{figure.value}  {label} {figure.meaning}"))
    for warning in warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))


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
    say_figures(console, key_figures(survey), cautions(survey))


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
