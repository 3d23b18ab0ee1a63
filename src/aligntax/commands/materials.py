"""From files to rows: which items give gradients, which are held out, and every token that will be run.

All choices are made here, by a hash of the content, before the model has seen anything: items that give gradients never
score the linearity check, and prompts that choose a layer are neither those of the direction nor those of the final
numbers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import ChatFormat, Contrast, Item, Task, choose_distractors, encode_item
from ..errors import AligntaxError, DataError
from ..probing import Row, tokens_of
from ..stats import group_of
from .sizes import Size

GREEDY_TOKENS = 8
"""Length of the greedy replies in which refusal tokens are looked for."""


@dataclass(frozen=True)
class ItemRows:
    """Items as rows: `rows` point to items by index; `keys` and `groups` `(n,)` belong to the items."""

    name: str
    rows: tuple[Row, ...]
    keys: tuple[str, ...]
    groups: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return tokens_of(self.rows)


@dataclass(frozen=True)
class TaskRows:
    """A task in one format: its gradient items and its held-out items."""

    task: Task
    fmt: str
    chance: float
    gradient: ItemRows
    heldout: ItemRows


@dataclass(frozen=True)
class Objective:
    """A safety objective: rows whose metric is to rise (`positive`), and for prompt classes the other class.

    `kind` is `prompts` (metric: refusal log-odds) or `items` (metric: margin of the good reply).
    """

    name: str
    kind: str
    source: str
    sha256: str
    positive: ItemRows
    negative: ItemRows
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Materials:
    """Everything a survey runs on, as token ids."""

    tasks: tuple[TaskRows, ...]
    other_formats: tuple[TaskRows, ...]
    objectives: tuple[Objective, ...]
    selection: tuple[Row, ...]
    final: tuple[Row, ...]
    over_refusal: ItemRows | None
    texts: tuple[tuple[int, ...], ...]

    @property
    def main(self) -> Objective:
        """The objective that is surveyed; the others enter the conflict table."""
        return self.objectives[0]


def by_hash(values: Sequence[str], salt: str) -> list[int]:
    """Indices in an order that depends on the content alone."""
    return sorted(range(len(values)), key=lambda i: hashlib.sha256(f"{salt}\0{values[i]}".encode()).digest())


@dataclass(frozen=True)
class Encoder:
    """Turns items and prompts into rows for one tokenizer; `groups` is J, `limit` the context in tokens."""

    chat: ChatFormat
    limit: int
    groups: int
    seed: int

    def task(self, task: Task, size: Size, fmt: str) -> TaskRows:
        """Split and encode a task. Raises DataError when fewer than two items a group are left for gradients."""
        order = by_hash([item.key for item in task.items], "items")
        heldout = min(size.heldout, len(order) // 3)
        wanted = len(order) - heldout if size.items is None else min(size.items, len(order) - heldout)
        if wanted < 2 * self.groups:
            raise DataError(
                f"task {task.name} has {len(order)} items, which leaves {wanted} for {self.groups} groups and they need two "
                f"each; give at least {3 * self.groups} items or fewer --groups"
            )
        items = [choose_distractors(item, size.distractors, self.seed) for item in task.items]
        picked = [items[i] for i in order[: wanted + heldout]]
        chance = float(np.mean([1 / item.alternatives for item in picked])) if task.kind == "choices" else float("nan")
        return TaskRows(
            task, fmt, chance, self.items(task.name, picked[:wanted], fmt), self.items(task.name, picked[wanted:], fmt)
        )

    def items(self, name: str, items: Sequence[Item], fmt: str) -> ItemRows:
        """Items as rows: weight 1 for the answer or the gold choice, `-1/k` for each of k distractors."""
        rows: list[Row] = []
        for number, item in enumerate(items):
            try:
                encoded = encode_item(item, fmt, self.chat, self.limit)
            except DataError as error:
                raise DataError(f"task {name}, item {(item.prompt or item.prompts[0])[:60]!r}: {error}") from error
            for k, sequence in enumerate(encoded):
                weight = 1.0 if len(encoded) == 1 or k == item.gold else -1.0 / (len(encoded) - 1)
                rows.append(Row(sequence.ids, sequence.start, number, weight))
        keys = tuple(item.key for item in items)
        return ItemRows(name, tuple(rows), keys, group_of(keys, self.groups) if keys else np.zeros(0, dtype=np.int64))

    def prompts(self, name: str, prompts: Sequence[str], reply: int = 1) -> ItemRows:
        """Prompts as the user's turn, each one row with nothing scored: what counts is the next token.

        Raises DataError for a prompt that leaves no room for `reply` tokens in the context.
        """
        rows = []
        for number, text in enumerate(prompts):
            ids = tuple(self.chat.encode_prompt(text))
            if len(ids) + reply > self.limit:
                raise DataError(
                    f"{name}: the prompt {text[:60]!r} has {len(ids)} tokens, and with {reply} of a reply that is longer than "
                    f"the context of {self.limit}; shorten it"
                )
            rows.append(Row(ids, len(ids), number))
        return ItemRows(name, tuple(rows), tuple(prompts), group_of(prompts, self.groups))

    def objective(self, contrast: Contrast, prompts: tuple[Sequence[str], Sequence[str]], size: Size) -> Objective:
        """A contrast as an objective; `prompts` are the positive and negative prompts of the direction split."""
        if contrast.items:
            # The other objectives enter the conflict table alone: as many items as select the layer are enough.
            count = max(2 * self.groups, size.prompts[1])
            order = by_hash([item.key for item in contrast.items], "items")[:count]
            chosen = self.items(contrast.name, [contrast.items[i] for i in order], "chat")
            self._enough(contrast.name, len(chosen.keys))
            return Objective(contrast.name, "items", contrast.source, contrast.sha256, chosen, chosen, contrast.notes)
        positive, negative = (
            self.prompts(contrast.name, prompts[0], GREEDY_TOKENS),
            self.prompts(contrast.name, prompts[1]),
        )
        self._enough(f"{contrast.name} (harmful prompts)", len(prompts[0]))
        self._enough(f"{contrast.name} (harmless prompts)", len(prompts[1]))
        return Objective(contrast.name, "prompts", contrast.source, contrast.sha256, positive, negative, contrast.notes)

    def _enough(self, name: str, count: int) -> None:
        if count < 2 * self.groups:
            raise DataError(
                f"{name}: {count} left for {self.groups} groups of at least two; give more or fewer --groups"
            )


def split_prompts(name: str, prompts: Sequence[str], counts: Sequence[int]) -> list[list[str]]:
    """Disjoint parts of at most `counts` prompts, scaled down together where there are too few."""
    ordered = [prompts[i] for i in by_hash(prompts, "prompts")]
    scale = min(1.0, len(ordered) / sum(counts))
    parts, start = [], 0
    for count in counts:
        take = max(1, int(count * scale))
        parts.append(ordered[start : start + take])
        start += take
    if not parts[-1]:
        raise DataError(f"{name}: {len(prompts)} prompts cannot be split into {len(counts)} parts; give more")
    return parts


def build_materials(
    encoder: Encoder,
    tasks: Sequence[Task],
    contrasts: Sequence[Contrast],
    over_refusal: Sequence[str],
    plan: tuple[Size, Sequence[str]],
) -> Materials:
    """Encode everything. `plan` is the size and the prompt formats, the first of which is surveyed."""
    size, formats = plan
    main = contrasts[0]
    if main.items:
        raise AligntaxError(
            f"--safety {main.name}: the first objective must have harmful and harmless prompts, not choices"
        )
    objectives, parts, texts = [], None, []
    for contrast in contrasts:
        harmful = split_prompts(contrast.name, contrast.positive, size.prompts) if contrast.positive else [[], [], []]
        harmless = (
            split_prompts(contrast.name, contrast.negative, (size.prompts[0], size.texts))
            if contrast.negative
            else [[], []]
        )
        objectives.append(encoder.objective(contrast, (harmful[0], harmless[0]), size))
        if parts is None:
            parts, texts = harmful, harmless[1]
    assert parts is not None
    over = list(over_refusal)[: size.over_refusal]
    return Materials(
        tuple(encoder.task(task, size, formats[0]) for task in tasks),
        tuple(encoder.task(task, size, fmt) for fmt in formats[1:] for task in tasks),
        tuple(objectives),
        encoder.prompts("selection", parts[1]).rows,
        encoder.prompts("final", parts[2]).rows,
        encoder.prompts("over-refusal", over) if len(over) >= 2 * encoder.groups else None,
        tuple(row.ids for row in encoder.prompts("texts", texts, size.reply_tokens).rows),
    )
