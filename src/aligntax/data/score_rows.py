"""Scores out of a table: columns `id` (or `item`), `score` (or `value`), optional `task`, `format` and `choices`.

`choices` are log-probabilities of the answers in nats, gold first. An item in several formats counts once, by its mean.
"""

from pathlib import Path
from typing import Any

import numpy as np

from aligntax.data.rows import Row, read_table
from aligntax.data.task_scores import FoundTasks, TaskScores, as_id, as_score
from aligntax.errors import DataError

UNNAMED = "all"
"""The task of a table without a column `task`."""

Cells = dict[str, dict[str, dict[str, Any]]]


def read_score_rows(path: Path) -> FoundTasks:
    """All tasks of one table. Rows without a score are left out and counted.

    Raises DataError naming the row without an id, with a score that is no finite number, or that repeats an id.
    """
    table = read_table(path)
    tasks: dict[str, Cells] = {}
    unscored = 0
    for row in table.rows:
        task, key, fmt, score = _parsed(row)
        if score is None:
            unscored += 1
            continue
        items = tasks.setdefault(task, {}).setdefault(fmt, {})
        if key in items:
            raise DataError(f"{row.place}: task {task!r} holds the id {key!r} twice; give every item one id")
        items[key] = {"score": score, "choices": _choices(row)}
    notes = (f"{path}: {unscored} rows without a score are left out",) if unscored else ()
    return FoundTasks(tuple(_task(path, name, cells) for name, cells in tasks.items()), table.sha256, notes)


def _parsed(row: Row) -> tuple[str, str, str, float | None]:
    cells = row.cells
    key = as_id(cells.get("id", cells.get("item")))
    if key is None:
        raise DataError(f"{row.place}: no id (found: {', '.join(sorted(cells)) or 'nothing'}); name the column id")
    if "score" not in cells and "value" not in cells:
        return str(cells.get("task", UNNAMED)), key, str(cells.get("format", "")), None
    raw = cells.get("score", cells.get("value"))
    score = as_score(raw)
    if score is None:
        raise DataError(
            f"{row.place}: item {key!r} has the score {raw!r:.60}; give a finite number or leave the row out"
        )
    return str(cells.get("task", UNNAMED)), key, str(cells.get("format", "")), score


def _choices(row: Row) -> tuple[float, ...] | None:
    raw = row.cells.get("choices")
    if raw is None:
        return None
    values = [as_score(value) for value in raw] if isinstance(raw, list | tuple) else []
    if len(values) < 2 or any(value is None for value in values):
        raise DataError(f"{row.place}: choices are {raw!r:.60}; give two or more log-probabilities in nats, gold first")
    return tuple(value for value in values if value is not None)


def _task(path: Path, name: str, cells: Cells) -> TaskScores:
    """Means over formats; every format must hold the same items."""
    formats = list(cells)
    first = cells[formats[0]]
    for fmt in formats[1:]:
        odd = sorted(set(cells[fmt]) ^ set(first))
        if odd:
            raise DataError(
                f"{path}: task {name!r}, item {odd[0]!r} is not in every format; score each item in all of them"
            )
    scores = {key: float(np.mean([cells[fmt][key]["score"] for fmt in formats])) for key in first}
    choices = {
        fmt: {key: item["choices"] for key, item in items.items()}
        for fmt, items in cells.items()
        if all(item["choices"] is not None for item in items.values())
    }
    return TaskScores(name, "score", scores, choices, formats=len(formats))
