"""The items of P1: which give gradients, which are scored, all as token ids, chosen by content before any model is run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data import ChatFormat, Item, Task, choose_distractors, encode_item, load_contrast
from ..errors import DataError
from ..models import common_length
from ..predictions import FamilyTask, Protocol, family_tasks
from ..probing import Row, tokens_of
from .alignment_texts import refusals, training_part
from .audit_gather import FORMATS, audit_items
from .materials import Encoder, by_hash

LEAST_ITEMS = 8


@dataclass(frozen=True)
class TaskItems:
    """One task: rows that give gradients (formats take turns by item) and rows that are scored, `scored[format]`.

    A row's `item` counts within its part; `items` is how many are scored.
    """

    name: str
    family: str
    questions: float
    gradient: tuple[Row, ...]
    scored: dict[str, tuple[Row, ...]]
    items: int

    @property
    def count(self) -> int:
        """Number of gradient items."""
        return 1 + max(row.item for row in self.gradient)


@dataclass(frozen=True)
class PlannedRows:
    """Everything that P1 runs: tasks, prompts whose refusal is pushed, written refusals to them, prompts for the Fisher texts."""

    tasks: tuple[TaskItems, ...]
    prompts: tuple[Row, ...]
    refusals: tuple[Row, ...]
    texts: tuple[tuple[int, ...], ...]
    skipped: tuple[str, ...]

    @property
    def gradient_tokens(self) -> int:
        """Tokens of all gradient rows."""
        return sum(tokens_of(task.gradient) for task in self.tasks)

    @property
    def scored_tokens(self) -> int:
        """Tokens of all scored rows; what rows of one format begin with in common counts once."""
        return sum(run_tokens(rows) for task in self.tasks for rows in task.scored.values())

    @property
    def forward_tokens(self) -> int:
        """Tokens of all gradient rows in a forward pass, likewise."""
        return sum(run_tokens(part) for task in self.tasks for part in by_format(task.gradient))


def by_format(rows: Sequence[Row]) -> list[list[Row]]:
    """Gradient rows split into their formats: rows of one begin alike, so that beginning is run once."""
    return [[row for row in rows if row.item % len(FORMATS) == k] for k in range(len(FORMATS))]


def run_tokens(rows: Sequence[Row]) -> int:
    """Tokens of rows whose common beginning is run once."""
    return tokens_of(rows) - (len(rows) - 1) * shared_length(rows)


def shared_length(rows: Sequence[Row]) -> int:
    """Leading tokens that all rows share and none scores: run once."""
    return min(common_length([row.ids for row in rows]), min(row.start for row in rows) - 1)


def planned_rows(public: Path | None, chat: ChatFormat, limit: int, seed: int, protocol: Protocol) -> PlannedRows:
    """Tasks, prompts and texts of `protocol` for one tokenizer."""
    encoder = Encoder(chat, limit, 1, seed)
    tasks, skipped = [], []
    for task in family_tasks(public):
        found = task_items(task, encoder, protocol)
        if found is None:
            skipped.append(f"{task.name}: fewer than {2 * LEAST_ITEMS} items are short enough")
        else:
            tasks.append(found)
    contrast = load_contrast("harmlessness")
    harmful = _first(training_part(contrast.positive), int(protocol.setting("harmful prompts")))
    harmless = _first(training_part(contrast.negative), int(protocol.setting("texts for the Fisher matrix")))
    written = [
        (tuple(chat.encode_prompt(prompt)), tuple(chat.encode_reply(reply)))
        for prompt, reply in zip(harmful, refusals(harmful), strict=True)
    ]
    return PlannedRows(
        tuple(tasks),
        encoder.prompts("harmful prompts", harmful).rows,
        tuple(Row((*prompt, *reply), len(prompt), k) for k, (prompt, reply) in enumerate(written)),
        tuple(row.ids for row in encoder.prompts("texts", harmless, int(protocol.setting("reply tokens"))).rows),
        tuple(skipped),
    )


def task_items(task: FamilyTask, encoder: Encoder, protocol: Protocol) -> TaskItems | None:
    """Gradient items from the beginning of the hash order, scored ones from its end; None where too few are short enough."""
    kind = task.items[0].kind
    order = by_hash([item.key for item in task.items], "items")
    short: list[Item] = []
    wanted = [int(protocol.setting(f"items for {what}")) for what in ("gradients", "the observed tax")]
    longest = int(protocol.setting("longest item in tokens"))
    ends = [*order[: 4 * wanted[0]], *order[max(4 * wanted[0], len(order) - 4 * wanted[1]) :]]
    short = [task.items[k] for k in ends if _length(task.items[k], encoder) <= longest]
    if len(short) < 2 * LEAST_ITEMS:
        return None
    first = min(wanted[0], len(short) // 2)
    second = min(wanted[1], len(short) - first)
    parts = []
    for own in (short[:first], short[-second:]):
        rivals = audit_items(Task(task.name, tuple(own), kind, task.source, ""), len(own), encoder.seed)
        parts.append([choose_distractors(item, int(protocol.setting("distractors")), encoder.seed) for item in rivals])
    mixed = [
        Row(row.ids, row.start, number, row.weight)
        for number, item in enumerate(parts[0])
        for row in encoder.items(task.name, [item], FORMATS[number % len(FORMATS)]).rows
    ]
    scored = {fmt: encoder.items(task.name, parts[1], fmt).rows for fmt in FORMATS}
    return TaskItems(task.name, task.family, task.questions, tuple(mixed), scored, len(parts[1]))


def _length(item: Item, encoder: Encoder) -> int:
    try:
        return max(len(found.ids) for found in encode_item(item, "plain", encoder.chat, encoder.limit))
    except DataError:
        return encoder.limit + 1


def _first(prompts: Sequence[str], count: int) -> list[str]:
    return [prompts[k] for k in by_hash(prompts, "prompts")[:count]]


def margins(values: np.ndarray, rows: Sequence[Row], items: int) -> np.ndarray:
    """Gold minus mean of the other answers for each item `(items,)`, from row values."""
    weights = np.array([row.weight for row in rows])
    return np.bincount([row.item for row in rows], weights=weights * values, minlength=items)
