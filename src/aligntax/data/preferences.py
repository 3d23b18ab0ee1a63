"""Preference pairs of a user's file: TRL's columns, or transcripts that begin alike and end in two ways."""

import re
from pathlib import Path
from typing import Any

from aligntax.data.hub import named_table
from aligntax.data.items import clean_text
from aligntax.data.rows import Row
from aligntax.errors import DataError

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*")
_ROLES = {"Human": "user", "Assistant": "assistant"}
Turns = list[dict[str, str]]


def read_preferences(path: Path | str) -> list[dict[str, Any]]:
    """Rows `{prompt, chosen, rejected}` of message lists, from JSON lines, CSV, Parquet or `hf:DATASET:CONFIG:SPLIT`.

    `chosen` and `rejected` are text or message lists, with a `prompt` beside them, or whole transcripts of
    `Human:` / `Assistant:` turns (or of messages) that share all but the last turn; message lists that begin with the user's
    turn are whole transcripts, though a `prompt` stands beside them. Pairs whose two replies are the same are
    left out. Raises DataError naming row and column for anything else, and where no pair is left.
    """
    table = named_table(path)
    found = [pair for row in table.rows if (pair := _pair(row)) is not None]
    if not found:
        raise DataError(f"{path}: chosen and rejected are the same in every row; preference data needs two classes")
    return found


def _pair(row: Row) -> dict[str, Any] | None:
    for column in ("chosen", "rejected"):
        if not row.cells.get(column):
            raise DataError(f"{row.place}: column {column!r} is missing or empty; every row needs chosen and rejected")
    if row.cells.get("prompt") and not _whole(row):
        prompt = _turns(row, "prompt", "user")
        chosen, rejected = (_turns(row, column, "assistant") for column in ("chosen", "rejected"))
    else:
        (prompt, chosen), (other, rejected) = (_cut(row, column) for column in ("chosen", "rejected"))
        if prompt != other:
            raise DataError(
                f"{row.place}: chosen and rejected answer different conversations; they must share the prompt"
            )
    if chosen == rejected:
        return None
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _whole(row: Row) -> bool:
    """Both replies are message lists that begin before the reply, as data sets of the Hub have them beside a prompt."""
    first = [cell[0] for name in ("chosen", "rejected") if isinstance(cell := row.cells[name], list)]
    return len(first) == 2 and all(isinstance(turn, dict) and turn.get("role") in ("system", "user") for turn in first)


def _turns(row: Row, column: str, role: str) -> Turns:
    value = row.cells[column]
    if isinstance(value, str):
        return _transcript(value) or [{"role": role, "content": _clean(value)}]
    if isinstance(value, list) and all(isinstance(t, dict) and {"role", "content"} <= set(t) for t in value):
        return [{"role": str(t["role"]), "content": _clean(str(t["content"]))} for t in value]
    raise DataError(f"{row.place}: column {column!r} is neither text nor a list of messages")


def _transcript(text: str) -> Turns:
    marks = list(_TURN.finditer(text))
    if not marks:
        return []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        {"role": _ROLES[mark.group(1)], "content": _clean(text[mark.end() : end])}
        for mark, end in zip(marks, ends, strict=True)
    ]


def _clean(text: str) -> str:
    return clean_text(text)[0].strip()


def _cut(row: Row, column: str) -> tuple[Turns, Turns]:
    """All turns but the last, and the last, which must be the assistant's."""
    turns = _turns(row, column, "assistant")
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise DataError(
            f"{row.place}: column {column!r} does not end in an assistant's turn after a prompt; add a 'prompt' column"
        )
    return turns[:-1], turns[-1:]
