"""`{verdict} P1` and `{verdicts}`: what the committed record of a prediction says, read when the site is built.

Records lie in runs/predictions/P1.json to P7.json and are read by the package's own reader; `networks-P5.json` is a second
record of P5, on trained networks. A prediction without one is said to be not scored yet; a record that cannot be read, or that is
of another prediction, fails the build: a page must not invent a verdict.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from aligntax.report.text import interval, number
from aligntax.results.prediction import Prediction, read_prediction

RECORDS = Path(__file__).parents[2] / "runs" / "predictions"
NAMES = tuple(f"P{k}" for k in range(1, 8))
NOT_YET = "not scored yet"


def records_of(name: str, folder: Path = RECORDS) -> dict[str, Prediction]:
    """Records of `name` by what they were scored on ('' for the protocol's own), none where it was not scored.

    Raises AligntaxError (a ValueError) for one that cannot be read.
    """
    records = {}
    for path in sorted(folder.glob(f"*{name}.json"), key=lambda p: len(p.name)):
        found = read_prediction(path, name)
        if found.prediction.upper() != name:
            raise ValueError(f"{path} is the record of {found.prediction!r}, not of {name}")
        records[path.stem.removesuffix(name).rstrip("-")] = found
    return records


def facts_of(found: Prediction) -> list[tuple[str, str]]:
    """Name and value of what a record holds, in the order in which a reader asks; what did not work comes last."""
    facts = [("Why", found.reason), ("Measured", found.measure)]
    facts += [("Estimate [90% interval]", _shown(found))]
    facts += [(f"Baseline: {name}", _shown(bound)) for name, bound in found.baselines.items()]
    facts += [("Ahead of the best baseline", _shown(found.ahead))]
    facts += [("Units behind it", _counted(found.n)), ("Scored on", found.date[:10])]
    facts += [("Beware", text) for text in found.warnings]
    facts += [("What did not work", text) for text in found.negatives]
    return [(term, text) for term, text in facts if text]


def _shown(bound: Any) -> str:
    return interval(bound.estimate, bound.low, bound.high, plus=True)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number(count)} {name.replace('_', ' ')}" for name, count in counts.items())


def verdict_nodes(records: Mapping[str, Prediction]) -> list[nodes.Node]:
    """The verdict of every record in words, and what it rests on."""
    if not records:
        missing = "No record has been committed: the number this page is for does not exist yet."
        return [_verdict("", NOT_YET), nodes.paragraph("", missing)]
    return [node for where, found in records.items() for node in (_verdict(where, found.verdict), _facts(found))]


def _verdict(where: str, said: str) -> nodes.Node:
    return nodes.paragraph("", f"Verdict{f' on {where}' if where else ''}: {said}", classes=["verdict"])


def _facts(found: Prediction) -> nodes.Node:
    facts = nodes.definition_list()
    for term, text in facts_of(found):
        body = nodes.definition("", nodes.paragraph("", text))
        facts += nodes.definition_list_item("", nodes.term("", term), body)
    return facts


class Verdict(SphinxDirective):
    """One prediction."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the record; the page is made anew at every build."""
        self.env.note_reread()
        return verdict_nodes(records_of(self.arguments[0]))


class Verdicts(SphinxDirective):
    """All of them in a table."""

    def run(self) -> list[nodes.Node]:
        """One row a prediction; the page is made anew at every build."""
        self.env.note_reread()
        return [table(verdict_rows())]


def verdict_rows(folder: Path = RECORDS) -> list[tuple[str, ...]]:
    """The head and a row for every prediction."""
    rows: list[tuple[str, ...]] = [("prediction", "verdict", "estimate [90% interval]", "scored on")]
    for name in NAMES:
        records = records_of(name, folder)
        for where, found in records.items():
            rows.append((f"{name}, {where}" if where else name, found.verdict, _shown(found), found.date[:10]))
        if not records:
            rows.append((name, NOT_YET, "", ""))
    return rows


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
