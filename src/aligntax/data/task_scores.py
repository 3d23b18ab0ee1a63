"""Scores of the items of one task, as every reader of logs returns them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aligntax.errors import DataError

MAX_BYTES = 2 * 1024**3
"""Largest log file, unpacked, in bytes."""


@dataclass(frozen=True)
class TaskScores:
    """`scores`: item id -> score, finite, higher is better, a mean over `formats` prompt formats.

    `choices`: format -> item id -> log-probabilities of the answers in nats, gold first; empty where the log has none.
    `contents` and `prompts`: item id -> fingerprint of the document and of the prompt, where the log has them.
    """

    task: str
    metric: str
    scores: dict[str, float]
    choices: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    formats: int = 1

    def only(self, ids: Sequence[str]) -> "TaskScores":
        """The same task over `ids` alone; choices stay only where every one of the ids has them."""
        choices = {
            name: {key: found[key] for key in ids}
            for name, found in self.choices.items()
            if all(key in found for key in ids)
        }
        return replace(self, scores={key: self.scores[key] for key in ids}, choices=choices)


@dataclass(frozen=True)
class FoundTasks:
    """What a reader found: tasks, the sha256 of the bytes it read, and what a user should know."""

    tasks: tuple[TaskScores, ...]
    sha256: str
    notes: tuple[str, ...] = ()


def checked_size(path: Path, limit: int) -> int:
    """Size of the file in bytes. Raises DataError above `limit` or for a file that cannot be read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    if size > limit:
        raise DataError(f"{path}: {size} bytes, above the limit of {limit}; split the log by task")
    return size


def file_sha256(paths: Sequence[Path]) -> str:
    """sha256 over the bytes of the files, in the order given."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def as_score(value: Any) -> float | None:
    """A finite number out of a number, a truth value or their text; None for anything else.

    >>> as_score(True), as_score("0.5"), as_score("true"), as_score(float("nan")), as_score([1])
    (1.0, 0.5, 1.0, None, None)
    """
    if isinstance(value, str):
        word = value.strip().lower()
        value = {"true": 1.0, "false": 0.0}.get(word, word)
    if isinstance(value, bool | int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return None
        return number if math.isfinite(number) else None
    return None


def as_id(value: Any) -> str | None:
    """An item id as text; whole numbers lose a `.0` that tables with gaps add. None for what is no id."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, int | str) and str(value).strip() else None


def chosen_metric(
    task: str, found: Mapping[str, Any] | Sequence[str], wanted: Sequence[str], usual: Sequence[str]
) -> str:
    """The first of `wanted` (else of `usual`, else the only one) among `found`. Raises DataError naming what there is."""
    names = list(found)
    for name in wanted or usual:
        if name in names:
            return name
    if len(names) == 1 and not wanted:
        return names[0]
    asked = f"none of {', '.join(wanted)}" if wanted else "no usual metric"
    raise DataError(
        f"task {task!r} has {asked}, but {', '.join(sorted(names)) or 'no number for an item'}; choose with --metric"
    )
