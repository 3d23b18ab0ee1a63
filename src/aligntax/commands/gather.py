"""Everything that runs the model, phase by phase, each a set of shards on disk.

A phase asks the store for its shards; what a killed run has left is read, the rest is computed. Nothing here decides
anything: geometry and statistics come after, from arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..data import ChatFormat
from ..data.chat import NO_THINKING
from ..errors import DataError
from ..probing import (
    STANDARD_OPENINGS,
    Meter,
    Metric,
    Probe,
    Row,
    ShardStore,
    Sinks,
    answer_activations,
    answer_metric,
    control_gradients,
    control_targets,
    find_sinks,
    fisher_draws,
    generate,
    item_gradients,
    opens_refusal,
    refusal_metric,
    reply_rows,
    rows_from_arrays,
    rows_to_arrays,
    tail_activations,
    tokens_of,
)
from ..stats import GroupSums
from .materials import GREEDY_TOKENS, ItemRows, Materials, Objective, TaskRows
from .sizes import Size

SHARD_ITEMS = 32
FIRST_PROMPTS = 16
"""Prompts in whose greedy replies refusal tokens are looked for."""


@dataclass(frozen=True)
class Gathered:
    """Group sums of one set of items `(J, L, d)` and the metric of each row."""

    groups: GroupSums
    values: np.ndarray


@dataclass(frozen=True)
class Workbench:
    """Model, store, meter and size: what every phase needs. `own` and `labels` are the user's metrics by task."""

    probe: Probe
    store: ShardStore
    meter: Meter
    size: Size
    chat: ChatFormat
    seed: int
    groups: int
    own: Mapping[str, Metric] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text."""
        return str(self.chat.tokenizer.decode(list(ids)))

    def metric(self, task: str) -> tuple[Metric, str]:
        """A task's metric and the label that goes into fingerprints."""
        return self.own.get(task, answer_metric), self.labels.get(task, "answer")


def rows_key(rows: Sequence[Row]) -> list[list[object]]:
    """Rows as JSON values, for a shard's fingerprint."""
    return [[list(row.ids), row.start, row.item, row.weight] for row in rows]


def gather_items(bench: Workbench, items: ItemRows, metric: Metric, label: str) -> Gathered:
    """Gradients of all items, a shard for every 32 of them; `label` names the metric in the fingerprint."""
    total: GroupSums | None = None
    values = np.zeros(len(items.rows))
    for start in range(0, len(items.keys), SHARD_ITEMS):
        stop = min(start + SHARD_ITEMS, len(items.keys))
        where = [k for k, row in enumerate(items.rows) if start <= row.item < stop]
        rows = [Row(r.ids, r.start, r.item - start, r.weight) for r in (items.rows[k] for k in where)]
        groups = items.groups[start:stop]

        def make(rows: list[Row] = rows, groups: np.ndarray = groups) -> dict[str, np.ndarray]:
            found = item_gradients(bench.probe, rows, metric, groups, (bench.groups, items.name))
            return {"sums": found.sums, "counts": found.counts, "values": found.values}

        shard = bench.store.get(f"gradients-{items.name}", (label, rows_key(rows), groups.tolist(), bench.groups), make)
        part = GroupSums(shard["sums"], shard["counts"])
        total = part if total is None else total.merge(part)
        values[where] = shard["values"]
    assert total is not None
    return Gathered(total.require(2, items.name), values)


def sink_rows(materials: Materials) -> list[Row]:
    """The rows in which attention sinks are looked for: a few of every task and of the prompts."""
    return [row for task in materials.tasks for row in task.gradient.rows[:2]] + list(materials.main.positive.rows[:8])


def gather_sinks(bench: Workbench, materials: Materials) -> Sinks:
    """Attention sinks on a few rows of every task and of the prompts."""
    rows = sink_rows(materials)

    def make() -> dict[str, np.ndarray]:
        sinks = find_sinks(bench.probe.model, rows, bench.probe.budget, bench.probe.device)
        bench.probe.advance(tokens_of(rows))
        pairs = [(k, p) for k, layer in enumerate(sinks.by_layer) for p in layer]
        return {"pairs": np.array(pairs, dtype=np.int64).reshape(-1, 2), "norms": np.array(sinks.activation_norm)}

    shard = bench.store.get("sinks", (rows_key(rows),), make)
    by_layer = tuple(tuple(int(p) for k, p in shard["pairs"] if k == layer) for layer in range(len(shard["norms"])))
    return Sinks(by_layer, tuple(shard["norms"].tolist()))


def leave_out(bench: Workbench, sinks: Sinks) -> Workbench:
    """The bench with these sinks left out of every pass; what was gathered with other sinks is not reused."""
    bench.store.depend(sinks=list(sinks.positions))
    return replace(bench, probe=replace(bench.probe, sinks=sinks.positions))


def gather_texts(bench: Workbench, materials: Materials) -> list[Row]:
    """The model's own sampled replies to harmless prompts, as rows with the reply scored, think blocks left out.

    Raises DataError where fewer than half of the prompts, or fewer than two, were given a reply: KL and Fisher information
    are averages over them.
    """
    prompts = [list(p) for p in materials.texts]

    def make() -> dict[str, np.ndarray]:
        replies = generate(bench.probe, prompts, bench.size.reply_tokens, sample=True, seed=bench.seed)
        content = [reply[bench.chat.response_start(reply) :] for reply in replies]
        starts = [list(p) + list(r[: len(r) - len(c)]) for p, r, c in zip(prompts, replies, content, strict=True)]
        thoughts = sum(bool(r) and not c for r, c in zip(replies, content, strict=True))
        return {**rows_to_arrays(reply_rows(starts, content)), "thoughts": np.array([thoughts])}

    shard = bench.store.get("texts", (prompts, bench.size.reply_tokens, bench.seed), make)
    rows = rows_from_arrays(shard)
    if len(rows) < max(2, len(prompts) / 2):
        raise DataError(
            _no_replies(len(rows), len(prompts), bench.size.reply_tokens, int(sum(shard.get("thoughts", [0]))))
        )
    return rows


def _no_replies(given: int, asked: int, tokens: int, thoughts: int) -> str:
    """Why KL cannot be measured: too few replies, most of them empty or nothing but a thought."""
    if not thoughts:
        return f"the model gave {given} replies to {asked} prompts, the others are empty; give other harmless prompts"
    return (
        f"the model gave {given} replies to {asked} prompts; in {thoughts} nothing follows the think block within {tokens} "
        f"tokens; have the template leave it out ({NO_THINKING}, or what its own switch is called)"
    )


def discover_refusals(bench: Workbench, materials: Materials) -> list[tuple[int, str, str]]:
    """Tokens that open a refusal: `(id, text, origin)`, from standard openings and from the model's own refusals."""
    prompts = [list(row.ids) for row in materials.main.positive.rows[:FIRST_PROMPTS]]
    key = (prompts, "greedy", GREEDY_TOKENS)
    shard = bench.store.get(
        "openings",
        key,
        lambda: rows_to_arrays(reply_rows(prompts, generate(bench.probe, prompts, GREEDY_TOKENS, False, bench.seed))),
    )
    found: dict[int, str] = {}
    for row in rows_from_arrays(shard):
        reply = list(row.ids[row.start :])
        if opens_refusal(bench.text(reply)):
            found.setdefault(reply[0], "the model's own refusals")
    for opening in STANDARD_OPENINGS:
        found.setdefault(bench.chat.encode_reply(opening)[0], "standard openings")
    return [(token, bench.text([token]), origin) for token, origin in found.items()]


def control_rows(tasks: Sequence[TaskRows], size: Size, groups: int) -> list[tuple[list[Row], int]]:
    """For each task the rows whose prompts its control tasks are made from, and how many control tasks these are.

    The shorter half of each task's prompts is used: a control is about answers that do not belong, not about length.
    """
    copies = [len(part) for part in np.array_split(np.arange(size.controls), len(tasks))]
    found = []
    for task, count in zip(tasks, copies, strict=True):
        gold = sorted((row for row in task.gradient.rows if row.weight > 0), key=lambda row: (row.start, row.ids))
        found.append((gold[: max(groups, size.control_items)] if count else [], count))
    return found


def gather_controls(bench: Workbench, tasks: Sequence[TaskRows], vocab: int) -> tuple[np.ndarray, int]:
    """Group means of control tasks `(K, J, L, d)` and the number of distinct prompts behind them."""
    found, pool = [], 0
    for number, (chosen, count) in enumerate(control_rows(tasks, bench.size, bench.groups)):
        if not count:
            continue
        prompts = [Row(row.ids[: row.start], row.start, k) for k, row in enumerate(chosen)]
        groups = np.arange(len(prompts)) % bench.groups
        rng = np.random.default_rng([bench.seed, number])
        targets = control_targets([row.ids[row.start] for row in chosen], count, vocab, rng)

        def make(
            prompts: list[Row] = prompts, targets: np.ndarray = targets, groups: np.ndarray = groups
        ) -> dict[str, np.ndarray]:
            return {"means": control_gradients(bench.probe, prompts, targets, groups, bench.groups)}

        key = (rows_key(prompts), targets.tolist(), bench.groups)
        found.append(bench.store.get(f"controls-{tasks[number].task.name}", key, make)["means"])
        pool += len(prompts)
    return np.concatenate(found), pool


def gather_fisher(bench: Workbench, texts: Sequence[Row]) -> np.ndarray:
    """Score vectors `(texts * draws, L, d)` on the model's own replies."""
    key = (rows_key(texts), bench.size.draws, bench.seed)
    return bench.store.get(
        "fisher", key, lambda: {"scores": fisher_draws(bench.probe, texts, bench.size.draws, bench.seed)}
    )["scores"]


def gather_activations(bench: Workbench, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Activations `(n, P, L, d)` of both classes at the `P` post-instruction positions (P = 1 for reply pairs)."""
    if objective.kind == "items":
        good = [row for row in objective.positive.rows if row.weight > 0]
        bad = [row for row in objective.positive.rows if row.weight < 0]
        parts = [("good", good), ("bad", bad)]

        def run(rows: list[Row]) -> np.ndarray:
            return answer_activations(bench.probe, rows)[:, None]
    else:
        positions = max(1, bench.chat.post_instruction)
        parts = [("positive", list(objective.positive.rows)), ("negative", list(objective.negative.rows))]

        def run(rows: list[Row]) -> np.ndarray:
            return tail_activations(bench.probe, rows, positions)

    def stored(label: str, rows: list[Row]) -> np.ndarray:
        name = f"activations-{objective.name}-{label}"
        return bench.store.get(name, (rows_key(rows),), lambda: {"a": run(rows)})["a"]

    first, second = (stored(label, rows) for label, rows in parts)
    return first, second


def gather_last_states(bench: Workbench, prompts: ItemRows) -> np.ndarray:
    """Activations `(n, L, d)` at the last token of prompts."""
    rows = list(prompts.rows)

    def make() -> dict[str, np.ndarray]:
        return {"a": tail_activations(bench.probe, rows, 1)[:, 0]}

    return bench.store.get(f"states-{prompts.name}", (rows_key(rows),), make)["a"]


def probed_tasks(tasks: Sequence[TaskRows]) -> list[TaskRows]:
    """The tasks that a right-against-wrong probe can be made of: those with wrong answers to compare with."""
    return [task for task in tasks if task.task.kind == "choices"]


def gather_answer_means(bench: Workbench, tasks: Sequence[TaskRows]) -> dict[str, np.ndarray]:
    """Right-against-wrong probe of every choice task: group means `(J, L, d)` of gold minus distractor activations."""
    found = {}
    for task in tasks:
        rows, groups = list(task.gradient.rows), task.gradient.groups

        def make(rows: list[Row] = rows) -> dict[str, np.ndarray]:
            return {"a": answer_activations(bench.probe, rows)}

        values = bench.store.get(f"answers-{task.task.name}", (rows_key(rows),), make)["a"]
        weighted = values * np.array([row.weight for row in rows], dtype=np.float32)[:, None, None]
        sums = GroupSums.empty(bench.groups, values.shape[1:]).update(weighted, groups[[row.item for row in rows]])
        counts = np.bincount(groups, minlength=bench.groups)
        found[task.task.name] = GroupSums(sums.sums, counts).means()
    return found


def objective_metric(objective: Objective, refusal_ids: Sequence[int]) -> tuple[Metric, str]:
    """The metric an objective wants to raise, and its label."""
    if objective.kind == "items":
        return answer_metric, "answer"
    return refusal_metric(refusal_ids), f"refusal {sorted(refusal_ids)}"
