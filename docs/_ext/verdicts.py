"""`{verdict} P1` and `{verdicts}`: what the committed record of a prediction says, read when the site is built.

Records lie in runs/predictions/P1.json to P7.json. A prediction without one is said to be not scored yet; a record that cannot be
read, or whose verdict is none of the three words, fails the build: a page must not invent one.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

RECORDS = Path(__file__).parents[2] / "runs" / "predictions"
NAMES = tuple(f"P{k}" for k in range(1, 8))
VERDICTS = ("supported", "contradicted", "undecided")
NOT_YET = "not scored yet"


@dataclass(frozen=True)
class Number:
    """An estimate with its interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        span = "" if self.low is None or self.high is None else f" [{_shown(self.low)}, {_shown(self.high)}]"
        return _shown(self.value) + span


@dataclass(frozen=True)
class Record:
    """What a page says of one prediction."""

    verdict: str
    estimate: Number
    baselines: Mapping[str, Number]
    n: int | None
    date: str
    negatives: tuple[str, ...]


def record_of(name: str, folder: Path = RECORDS) -> Record | None:
    """The record of `name`, None where it was not scored. Raises ValueError for a record that says nothing."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    raw = json.loads(path.read_text())
    if str(raw.get("prediction", name)).upper() != name:
        raise ValueError(f"{path} is the record of {raw['prediction']!r}, not of {name}")
    if raw.get("verdict") not in VERDICTS:
        raise ValueError(f"{path}: verdict {raw.get('verdict')!r} is none of {', '.join(VERDICTS)}")
    baselines = raw.get("baselines") or {}
    rows = baselines.items() if isinstance(baselines, dict) else [(str(b["name"]), b) for b in baselines]
    return Record(
        verdict=raw["verdict"],
        estimate=_number(raw),
        baselines={str(key): _number(value) for key, value in rows},
        n=raw.get("n"),
        date=str(raw.get("date", ""))[:10],
        negatives=tuple(one if isinstance(one, str) else json.dumps(one) for one in raw.get("negatives") or ()),
    )


def _number(raw: Any) -> Number:
    if isinstance(raw, Mapping):
        value = raw["estimate"] if "estimate" in raw else raw.get("value")
        return Number(_finite(value), _finite(raw.get("low")), _finite(raw.get("high")))
    if isinstance(raw, list | tuple):
        return Number(*(_finite(v) for v in [*raw, None, None][:3]))
    return Number(_finite(raw), None, None)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}".replace("-", "−")


def verdict_nodes(record: Record | None) -> list[nodes.Node]:
    """The verdict in words, and what it rests on."""
    said = nodes.paragraph("", "Verdict: ", classes=["verdict"])
    said += nodes.Text(NOT_YET if record is None else record.verdict)
    if record is None:
        return [
            said,
            nodes.paragraph("", "No record has been committed: the number this page is for does not exist yet."),
        ]
    facts = nodes.definition_list()
    for term, text in facts_of(record):
        body = nodes.definition("", nodes.paragraph("", text))
        facts += nodes.definition_list_item("", nodes.term("", term), body)
    return [said, facts]


def facts_of(record: Record) -> list[tuple[str, str]]:
    """Name and value of everything the record holds, negatives last."""
    found = [("Estimate (with its interval)", str(record.estimate))]
    found += [(f"Baseline: {name}", str(value)) for name, value in record.baselines.items()]
    found += [("Units behind it", str(record.n))] if record.n is not None else []
    found += [("Scored on", record.date)] if record.date else []
    return [*found, *(("What did not work", text) for text in record.negatives)]


class Verdict(SphinxDirective):
    """One prediction."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the record and depend on it."""
        name = self.arguments[0]
        self.env.note_dependency(str(RECORDS / f"{name}.json"))
        self.env.note_reread()
        return verdict_nodes(record_of(name))


class Verdicts(SphinxDirective):
    """All of them in a table."""

    def run(self) -> list[nodes.Node]:
        """One row a prediction."""
        self.env.note_reread()
        rows = [("prediction", "verdict", "estimate", "scored on")]
        for name in NAMES:
            found = record_of(name)
            rows.append(
                (name, NOT_YET, "", "") if found is None else (name, found.verdict, str(found.estimate), found.date)
            )
        return [table(rows)]


def table(rows: list[tuple[str, ...]]) -> nodes.table:
    """A table whose first row is its head."""
    made, group = nodes.table(), nodes.tgroup(cols=len(rows[0]))
    group += [nodes.colspec(colwidth=1) for _ in rows[0]]
    for part, chosen in ((nodes.thead(), rows[:1]), (nodes.tbody(), rows[1:])):
        for cells in chosen:
            part += nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))
        group += part
    made += group
    return made


def setup(app: Any) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("verdict", Verdict)
    app.add_directive("verdicts", Verdicts)
    return {"parallel_read_safe": True}
