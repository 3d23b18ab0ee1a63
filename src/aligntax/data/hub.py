"""Rows of a dataset of the Hub or of a local dataset folder, `hf:DATASET:CONFIG:SPLIT`, through the datasets library.

Besides our own columns (prompt, answer, choices, gold, prompts) the customary ones of question sets are understood:
question, input or instruction as the prompt; completion, output or target as the answer; options as choices; `choices`
holding `text` and `label`; answerKey, or an answer or label beside choices, as gold.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aligntax.data.rows import Row, Table, read_table
from aligntax.errors import DataError

_PROMPTS = ("prompt", "question", "input", "instruction")
_ANSWERS = ("answer", "completion", "output", "target")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def hub_rows(spec: str) -> tuple[Row, ...]:
    """The rows of `DATASET:CONFIG:SPLIT` as items; an empty CONFIG means the default one. Raises as `hub_table`."""
    return tuple(Row(row.place, _cells(row.cells)) for row in hub_table(spec).rows)


def hub_table(spec: str) -> Table:
    """The rows of `DATASET:CONFIG:SPLIT` with the columns they have, and the sha256 of them. Code from the dataset is never run.

    Raises DataError when datasets is not installed, the dataset cannot be reached, or it holds no rows.
    """
    dataset, config, split = _parts(spec)
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(f"hf:{spec}: needs the datasets library; pip install 'aligntax[hub]'") from error
    try:
        table = load_dataset(dataset, config or None, split=split)
    except Exception as error:  # The library raises errors of its own, of the Hub, of HTTP and of the OS.
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DataError(
            f"hf:{spec}: cannot be loaded ({reason[0]}); check the names and the connection, or give a file"
        ) from error
    rows = tuple(
        Row(f"hf:{spec}, row {n}", {name: cell for name, cell in dict(cells).items() if cell is not None})
        for n, cells in enumerate(table, 1)
    )
    if not rows:
        raise DataError(f"hf:{spec}: the split holds no rows; choose another")
    content = "\n".join(json.dumps(row.cells, sort_keys=True, default=str) for row in rows)
    return Table(f"hf:{spec}", hashlib.sha256(content.encode()).hexdigest(), rows)


def named_table(source: str | Path) -> Table:
    """The rows of a file, or of `hf:DATASET:CONFIG:SPLIT`, there with what they ask as `prompt` and other columns as they are.

    Raises DataError as `read_table` and `hub_table`.
    """
    text = str(source)
    if not text.startswith("hf:"):
        return read_table(Path(source))
    table = hub_table(text.removeprefix("hf:"))
    return replace(table, rows=tuple(Row(row.place, row.cells | _asked(row.cells)) for row in table.rows))


def _asked(cells: dict[str, Any]) -> dict[str, Any]:
    """Our names for the prompt, and for choices and gold where there are choices."""
    if "choices" in cells or "options" in cells:
        return _cells(cells)
    return {} if "prompts" in cells else _first(cells, "prompt", _PROMPTS)


def _parts(spec: str) -> tuple[str, str, str]:
    parts = spec.split(":")
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise DataError(f"hf:{spec}: give hf:DATASET:CONFIG:SPLIT, such as hf:openai/gsm8k:main:test")
    return parts[0], parts[1], parts[2]


def _cells(cells: dict[str, Any]) -> dict[str, Any]:
    if "prompts" in cells or "gold" in cells:
        return cells
    mapped = _first(cells, "prompt", _PROMPTS)
    if "choices" in cells or "options" in cells:
        return mapped | _choices(cells)
    if not mapped:
        return cells
    return mapped | _first(cells, "answer", _ANSWERS)


def _first(cells: dict[str, Any], ours: str, theirs: tuple[str, ...]) -> dict[str, Any]:
    found = next((cells[name] for name in theirs if name in cells), None)
    return {} if found is None else {ours: found}


def _choices(cells: dict[str, Any]) -> dict[str, Any]:
    choices: Any = cells.get("choices", cells.get("options"))
    labels: list[str] = list(_LETTERS)
    if isinstance(choices, dict):
        choices, labels = choices.get("text"), [str(label) for label in choices.get("label", ())]
    given = next((cells[name] for name in ("answerKey", "answer", "label") if name in cells), None)
    if isinstance(given, str):
        texts = list(choices) if isinstance(choices, list) else []
        given = labels.index(given) if given in labels else texts.index(given) if given in texts else given
    return {"choices": choices, "gold": given}
