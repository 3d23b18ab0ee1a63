"""A tax record in a terminal: the course of each task over the stages, then a table for every two stages compared."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..results.tax import Tax, TaxPair
from .text import clean, interval, number, p_text, percent

SIGNIFICANT = 0.05


def tax_summary(tax: Tax, console: Console) -> None:
    """Print a verdict, the tables and the warnings; strings are stripped of escapes and never read as markup."""
    tax = clean(tax)
    for before, after in dict.fromkeys((pair.before, pair.after) for pair in tax.pairs):
        pairs = [pair for pair in tax.pairs if (pair.before, pair.after) == (before, after)]
        console.print(_table(pairs, tax.provenance.level))
        console.print(Text(verdict(pairs)))
    for warning in tax.warnings:
        console.print(Text(f"Warning: {warning}", "yellow"))


def verdict(pairs: list[TaxPair]) -> str:
    """One sentence on the tasks whose change is told from noise; adjusted p at most .05."""
    sure = [pair for pair in pairs if pair.p_adjusted is not None and pair.p_adjusted <= SIGNIFICANT]
    lost = [pair.task for pair in sure if (pair.tax or 0) > 0]
    gained = [pair.task for pair in sure if (pair.tax or 0) < 0]
    parts = [f"{word} on {', '.join(tasks)}" for word, tasks in (("loss", lost), ("gain", gained)) if tasks]
    count = f"{len(pairs)} task{'s' if len(pairs) > 1 else ''}"
    if not parts:
        return f"No change is told from noise on {count} (adjusted p <= {SIGNIFICANT}); the intervals say how much may hide."
    return f"{' and '.join(parts).capitalize()}, of {count} (adjusted p <= {SIGNIFICANT})."


def _table(pairs: list[TaxPair], level: float) -> Table:
    first = pairs[0]
    kind = ", first to last" if first.span == "total" else ""
    title = f"{first.before} to {first.after}{kind}: tax = before - after ({percent(level)} intervals)"
    grid = Table(title=Text(title), title_justify="left")
    split = any(pair.split for pair in pairs)
    names = ["task", "n", "before", "after", "tax", "relative", "p adj.", *(["selective (nats)"] if split else [])]
    for name in names:
        grid.add_column(Text(name), justify="left" if name == "task" else "right", overflow="fold")
    for pair in pairs:
        grid.add_row(*(Text(cell) for cell in _cells(pair, split)), style="red" if _is_loss(pair) else "")
    return grid


def _is_loss(pair: TaxPair) -> bool:
    return (pair.tax or 0) > 0 and pair.p_adjusted is not None and pair.p_adjusted <= SIGNIFICANT


def _cells(pair: TaxPair, split: bool) -> list[str]:
    cells = [
        f"{pair.task} ({pair.metric})",
        number(pair.n),
        number(pair.score_before, 3),
        number(pair.score_after, 3),
        interval(pair.tax, pair.low, pair.high, plus=True),
        percent(pair.relative),
        p_text(pair.p_adjusted),
    ]
    if split:
        part = pair.split
        cells.append(
            interval(part.selective, part.selective_low, part.selective_high, plus=True) if part else number(None)
        )
    return cells
