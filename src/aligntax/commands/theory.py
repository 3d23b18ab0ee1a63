"""`aligntax theory`: every numbered item of the theory against its own oracle, as a table.

A row that raises, a row whose error is nan and an item without a row all count as falling short: silence is no proof.
"""

import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..errors import AligntaxError
from ..results import write_json
from .ending import say_written
from .registry import MODEL
from .theorems.check import Check, Row

TITLES = {
    1: "Geometry of one layer",
    2: "Scaling",
    3: "Several safety objectives",
    4: "Where alignment pressure acts",
    5: "The recovery objective",
    6: "Pipeline quantities",
}
ITEMS_PER_SECTION = {1: 18, 2: 7, 3: 7, 4: 9, 5: 8, 6: 7}


@dataclass(frozen=True)
class SectionChecks:
    """One section's rows in the order of the theory, and the numbered items that no row covers."""

    section: int
    checks: tuple[Check, ...]
    missing: tuple[str, ...]
    seconds: float

    @property
    def short(self) -> tuple[str, ...]:
        """Items that fall short: a row beyond its tolerance, or no row at all."""
        failed = [check.item for check in self.checks if not check.passed]
        return tuple(sorted({*failed, *self.missing}, key=_place))


def section_rows(section: int) -> tuple[Row, ...]:
    """The rows of one section, not yet run. Raises AligntaxError for a section that the theory does not have."""
    if section not in ITEMS_PER_SECTION:
        raise AligntaxError(
            f"the theory has no section {section}; choose from {', '.join(map(str, ITEMS_PER_SECTION))}"
        )
    rows: tuple[Row, ...] = importlib.import_module(f"{__package__}.theorems.section{section}").ROWS
    return rows


def check_section(section: int) -> SectionChecks:
    """Run every row of one section; the same numbers each time. Raises AligntaxError for an unknown section."""
    rows, started = section_rows(section), time.perf_counter()
    checks = sorted((_run(row) for row in rows), key=lambda check: _place(check.item))
    wanted = (f"{section}.{number}" for number in range(1, ITEMS_PER_SECTION[section] + 1))
    missing = tuple(item for item in wanted if item not in {check.item for check in checks})
    return SectionChecks(section, tuple(checks), missing, time.perf_counter() - started)


def _run(row: Row) -> Check:
    try:
        return row()
    except Exception as error:  # one broken row must not hide the others
        name = getattr(row, "__name__", "row")
        item = name.removeprefix("row_").replace("_", ".")
        return Check(item, f"{name} raised {type(error).__name__}: {error}", "nothing", "nothing", math.nan, 0.0)


def _place(item: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in item.split("."))


@dataclass(frozen=True)
class TheoryCommand:
    """Check every theorem against an independent oracle; exit code 1 if any falls short. A minute, no model needed."""

    section: Annotated[tuple[Literal[1, 2, 3, 4, 5, 6], ...], tyro.conf.UseAppendAction] = ()
    """Section of the theory, repeatable: 1 geometry, 2 scaling, 3 conflict, 4 depth, 5 recovery, 6 pipeline. Default: all."""
    json: Path | None = None
    """Also write the rows to this file."""

    def execute(self) -> int:
        """Run, print, and return 0 where every item holds, 1 otherwise. Raises AligntaxError for an unknown section."""
        console, tables = Console(), []
        for section in sorted(set[int](self.section) or ITEMS_PER_SECTION):
            with console.status(f"Checking section {section}: {TITLES[section].lower()}"):
                table = check_section(section)
            console.print(rendered(table))
            tables.append(table)
        console.print(Text(summary(tables)))
        if self.json is not None:
            write_json(self.json, as_record(tables))
        short = [str(table.section) for table in tables if table.short]
        following = ("theory", "--section", short[0]) if short else ("survey", MODEL, "--size", "demo")
        say_written(*([self.json] if self.json else []), following=("aligntax", *following), console=console)
        return int(bool(short))


def rendered(table: SectionChecks) -> Table:
    """The section as a rich table that stays readable at 80 columns: the three texts of a row stand one below the other."""
    title = Text(f"{table.section}. {TITLES[table.section]}", "bold")
    grid = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, expand=True
    )
    grid.add_column("item", no_wrap=True)
    grid.add_column(Text("statement\n= computed\n~ oracle"), ratio=1, overflow="fold")
    grid.add_column("largest\nerror", justify="right", no_wrap=True)
    grid.add_column("tolerance", justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    rows = [(check.item, _cells(check)) for check in table.checks]
    rows += [
        (item, (Text("no row checks this item", "red"), "", "", Text("missing", "bold red"))) for item in table.missing
    ]
    for item, cells in sorted(rows, key=lambda row: _place(row[0])):
        grid.add_row(item, *cells)
    return grid


def _cells(check: Check) -> tuple[Text, str, str, Text]:
    what = Text.assemble(check.statement, "\n", (f"= {check.computed}\n~ {check.oracle}", "dim"))
    verdict = Text("holds", "green") if check.passed else Text("short", "bold red")
    return what, f"{check.error:.2g}", f"{check.tolerance:.2g}", verdict


def summary(tables: Sequence[SectionChecks]) -> str:
    """One line: how many items hold, which fall short, how long it took."""
    short = [item for table in tables for item in table.short]
    items = {check.item for table in tables for check in table.checks} | set(short)
    verdict = f"these fall short: {', '.join(short)}" if short else "none falls short"
    return f"{len(items) - len(short)} of {len(items)} items hold, {verdict}; {sum(t.seconds for t in tables):.0f} s."


def as_record(tables: Sequence[SectionChecks]) -> dict[str, object]:
    """What `--json` writes; an undefined error is null."""
    return {
        "schema_version": 1,
        "aligntax_version": __version__,
        "holds": not any(table.short for table in tables),
        "missing": [item for table in tables for item in table.missing],
        "seconds": {str(table.section): round(table.seconds, 3) for table in tables},
        "rows": [{**vars(check), "passed": check.passed} for table in tables for check in table.checks],
    }
