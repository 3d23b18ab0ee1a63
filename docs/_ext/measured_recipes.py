"""`{recipes}`, `{seeds}`, `{matched} LEVEL`, `{separation}`: recipes compared on the embedded model, from records in runs/recipes.

A row for the end of every recipe; how far seeds of one recipe differ; the scores of recipes that pass a refusal rate, at that rate;
whom sets of training requests tell apart, before training and after.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from verdicts import table

from aligntax.report.text import interval, number

RECORDS = Path(__file__).parents[2] / "runs" / "recipes"
BASE = "base"
HEAD = (
    "recipe",
    "refuses harmful",
    "refuses harmless",
    "mass after 0, 1, 5, 20 tokens",
    "KL",
    "own loss (tasks worse)",
    "of the frontier",
    "minutes",
)
SEEDS = ("recipe", "seeds", "refuses harmful", "refuses harmless", "mass after 0", "mass after 20", "KL", "own loss")
MATCHED = {"over-refusal": "refuses harmless", "mass 5": "mass after 5", "mass 20": "after 20", "kl": "KL", "selective": "own loss",
           "shared": "loss by all answers", "worst task": "worst task"}  # fmt: skip


def end_rows(folder: Path = RECORDS) -> list[tuple[str, ...]]:
    """The head, the base and a row for the end of every recipe of the first seed, those that refuse most first."""
    found = {path.stem.removesuffix("-0"): json.loads(path.read_text()) for path in folder.glob("*-0.json")}
    order = sorted(found, key=lambda name: (name != BASE, -found[name]["harmful"]["value"]))
    return [HEAD, *(_row(name, found[name]) for name in order)]


def _row(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    mass = ", ".join(f"{found['mass'][depth][1]:.3f}" for depth in ("0", "1", "5", "20"))
    lost = f"{number(found['selective_mean'], 2, True)} ({len(found['tasks_worse'])})"
    own = (number(found["kl_forced"]["mean"], 2), lost, _share(found), number(found.get("minutes"), 2))
    cells = ("",) * len(own) if name == BASE else own
    return (name, _rate(found["harmful"]), _rate(found["harmless"]), mass, *cells)


def _rate(found: dict[str, Any]) -> str:
    return interval(found["value"], found["low"], found["high"])


def _share(found: dict[str, Any]) -> str:
    """Gain over the most at the same KL with the same changes; where there is none, with no task losing more, and no interval."""
    e = found.get("efficiency") or {}
    if e.get("exact_share") is not None:
        return interval(e["exact_share"], e["exact_low"], e["exact_high"])
    return number(e.get("within_share"), 2)


def seed_rows(folder: Path = RECORDS) -> list[tuple[str, ...]]:
    """The head and a row for each recipe with several seeds: median, and lowest to highest, of its ends."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-[0-9]*.json")):
        if "@" not in path.stem:
            found.setdefault(path.stem.rpartition("-")[0], []).append(json.loads(path.read_text()))
    rows = []
    for name, runs in found.items():
        if len(runs) > 1:
            scores = [(r["harmful"]["value"], r["harmless"]["value"], r["mass"]["0"][1], r["mass"]["20"][1],
                       r["kl_forced"]["mean"], r["selective_mean"]) for r in runs]  # fmt: skip
            rows.append((name, str(len(runs)), *map(_spread, zip(*scores, strict=True))))
    return [SEEDS, *rows]


def _spread(values: tuple[float, ...]) -> str:
    return f"{number(statistics.median(values), 2)} ({number(min(values), 2)} to {number(max(values), 2)})"


def matched_rows(level: str, folder: Path = RECORDS) -> list[tuple[str, ...]]:
    """The head and a row for each recipe that passes `level`, least over-refusal first. KeyError for a level without record."""
    courses = json.loads((folder / "matched.json").read_text())["levels"][level]
    held = {name: row for name, row in courses.items() if row is not None}
    order = sorted(held, key=lambda name: held[name]["over-refusal"])
    rows = [(_named(name), *(number(held[name][key], 2) for key in MATCHED)) for name in order]
    return [("recipe", *MATCHED.values()), *rows]


TESTS = ("same form", "held out")


def separation_rows(folder: Path = RECORDS) -> list[tuple[str, ...]]:
    """The head and a row for each set of training requests and recipe: areas of the readout, and of the models of all its seeds."""
    found = json.loads((folder / "separation.json").read_text())
    rows = [("training requests", "recipe", "same form: before", "after", "held out: before", "after")]
    for name, row in found.items():
        runs: dict[str, list[dict[str, Any]]] = {}
        for course, end in row["became"].items():
            runs.setdefault(course.rpartition("-")[0], []).append(end)
        form, held = row["same form"], number(row["held out"]["value"], 2)
        before = interval(form["value"], form["low"], form["high"])
        for recipe, ends in (runs or {"": []}).items():
            form_after, held_after = (", ".join(number(end[test]["value"], 2) for end in ends) for test in TESTS)
            rows.append((name, recipe, before, form_after, held, held_after))
    return rows


def _named(course: str) -> str:
    name, _, seed = course.rpartition("-")
    return name if seed == "0" else f"{name}, seed {seed}"


class Recipes(SphinxDirective):
    """All ends in a table."""

    def run(self) -> list[nodes.Node]:
        """One row a recipe; the page is made anew at every build."""
        self.env.note_reread()
        return [table(end_rows())]


class Seeds(SphinxDirective):
    """How far seeds differ."""

    def run(self) -> list[nodes.Node]:
        """One row a recipe with several seeds."""
        self.env.note_reread()
        return [table(seed_rows())]


class Matched(SphinxDirective):
    """Recipes at one refusal rate."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One row a recipe that gets there."""
        self.env.note_reread()
        return [table(matched_rows(self.arguments[0]))]


class SeparationTable(SphinxDirective):
    """Whom sets of requests tell apart."""

    def run(self) -> list[nodes.Node]:
        """One row a set."""
        self.env.note_reread()
        return [table(separation_rows())]


def setup(app: Any) -> dict[str, Any]:
    """Sphinx hook."""
    app.add_directive("recipes", Recipes)
    app.add_directive("seeds", Seeds)
    app.add_directive("matched", Matched)
    app.add_directive("separation", SeparationTable)
    return {"parallel_read_safe": True}
