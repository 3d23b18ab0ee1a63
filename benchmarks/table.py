"""The README's table of benchmark results, between two comment markers, made from the committed JSON and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

OPEN, CLOSE = "<!-- bench -->", "<!-- /bench -->"
EMPTY = "Not measured yet: `make bench` fills this table."
HEAD = ["| benchmark | what | ours | peers | limit | ratio | |", "|---|---|---|---|---|---|---|"]


def render(results: dict[str, Any]) -> str:
    """Machine, load and one row for every line that is not a detail of another; failed scripts have a row too."""
    rows: list[str] = []
    for script, about in results["scripts"].items():
        if about["state"] == "failed":
            rows.append(f"| {script} | {_cell(about['why'])} | | | | | failed |")
        rows += [_row(line) for line in results["lines"] if line["script"] == script and not line["detail"]]
    return "\n".join([_where(results), "", *HEAD, *rows])


def section(measured: Sequence[dict[str, Any]]) -> str:
    """One table a machine, or that nothing was measured yet."""
    return "\n\n".join(map(render, measured)) or EMPTY


def replaced(page: str, table: str) -> str:
    """The page with the table between its markers. Raises ValueError where they are not there once each, in order."""
    before, opened, rest = page.partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not (opened and closed) or OPEN in rest or CLOSE in after:
        raise ValueError(f"the page needs {OPEN} and then {CLOSE}, once each")
    return f"{before}{OPEN}\n{table}\n{CLOSE}{after}"


def write(readme: Path, measured: Sequence[dict[str, Any]]) -> None:
    """Rewrite the tables in a file."""
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), section(measured)), encoding="utf-8")


def _where(results: dict[str, Any]) -> str:
    """One sentence: when, on what, how busy."""
    machine = results["machine"]
    parts = [machine["cpu"], f"{machine['cores']} cores", f"{machine['threads']} threads"]
    parts += [machine["device"]] * (machine["device"] != "cpu") + [f"torch {machine['torch']}"]
    parts += sorted({about["dtype"] for about in results["scripts"].values() if "dtype" in about})
    load = ", ".join(f"{loads[0]:.2f} {end}" for end, loads in results["load"].items())
    when = f"Measured {results['date']} with aligntax {machine['aligntax']} on {', '.join(parts)}"
    return f"{when}; load average {load}." if load else f"{when}; nothing ran to its end."


def _row(line: dict[str, Any]) -> str:
    peers = "; ".join(f"{name} {_number(value, line['unit'])}" for name, value in line["peers"].items())
    cells = [line["script"], line["name"], _number(line["ours"], line["unit"]), peers]
    cells += [line["goal"], _number(line["ratio"]), _verdict(line)]
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _verdict(line: dict[str, Any]) -> str:
    if line["void"]:
        return "void"
    return {True: "met", False: "missed", None: ""}[line["met"]]


def _number(value: float | None, unit: str = "") -> str:
    """Three digits and the unit; nothing for nothing."""
    if value is None:
        return ""
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def _cell(text: str) -> str:
    """Text that cannot end a cell."""
    return text.replace("|", "\\|").replace("\n", " ")
