"""Texts of a user's own in an audit: harmful answers read from a file, and what the models said, shown when asked for."""

from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.text import Text

from ..data.rows import read_table
from ..errors import DataError
from ..report import strip_control

SHOWN = ("model", "kind", "depth", "refusal", "harm", "request", "prefill", "continuation")


def read_continuations(path: Path) -> tuple[dict[str, str], str]:
    """Request -> beginning of a harmful answer, from rows of `prompt` and `continuation`, and the file's sha256.

    Raises DataError naming the place of a row without them, a request that comes twice, or a file whose answers are all empty.
    """
    table, found = read_table(path), dict[str, str]()
    for row in table.rows:
        prompt, answer = row.cells.get("prompt"), row.cells.get("continuation", "")
        if not isinstance(prompt, str) or not prompt.strip() or not isinstance(answer, str):
            raise DataError(f"{row.place}: give a prompt and a continuation, both as text")
        if prompt in found:
            raise DataError(f"{row.place}: the prompt {prompt[:40]!r} is given twice; remove one")
        found[prompt] = answer
    if not any(answer.strip() for answer in found.values()):
        raise DataError(
            f"{path}: all {len(found)} continuations are empty; give the beginning of an answer in each row"
        )
    return found, table.sha256


def show_texts(path: Path, console: Console | None = None) -> None:
    """Print every reply of the private file, inert, with its scores."""
    console = console or Console()
    for row in pq.read_table(path, columns=list(SHOWN)).to_pylist():
        head = (
            f"{row['model']}, {row['kind']}, depth {row['depth']}: refusal {row['refusal']:.2f}, harm {row['harm']:.2f}"
        )
        console.print(Text(strip_control(head), "bold"))
        console.print(Text(f"  asked: {strip_control(row['request'])}"))
        console.print(Text(f"  said:  {strip_control(row['prefill'])}|{strip_control(row['continuation'])}"))
