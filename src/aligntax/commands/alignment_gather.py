"""Everything that needs the model before it is trained: its own words, what protections read, a survey's directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import BUILTIN_TASKS, ChatFormat, Encoded, Task, choose_distractors, encode_item, load_tasks
from ..data.hub import named_table
from ..models import LoadedModel
from ..probing import Meter, Probe, ShardStore, TokenBudget, tokens_of
from ..training import ScoredItem
from .alignment_reads import look_alikes_of_a_run
from .alignment_rows import Rows, training_rows
from .alignment_texts import Requests, Speaker, capability_rows, load_requests
from .materials import by_hash
from .protections import input_subspaces, survey_subspace
from .survey import CPU_TOKENS, GPU_TOKENS

if TYPE_CHECKING:
    from .align import AlignCommand

WATCHED = 8
"""Items of each task on which the tax is watched during training."""


@dataclass(frozen=True)
class Bench:
    """The model before training, ready to be asked."""

    command: AlignCommand
    loaded: LoadedModel
    chat: ChatFormat
    meter: Meter

    @cached_property
    def probe(self) -> Probe:
        """The model with a token budget for its device."""
        device = self.loaded.device
        budget = TokenBudget(GPU_TOKENS if device.type == "cuda" else CPU_TOKENS)
        return Probe(self.loaded.model, device, budget, "all", (), self.meter.advance)

    @cached_property
    def speaker(self) -> Speaker:
        """The model as an author; what it says is kept in private shards."""
        folder = Path(self.command.texts) if self.command.texts else self.command.out / "state" / "shards"
        store = ShardStore(folder, {"weights": self.loaded.weights_sha256, "seed": self.command.seed})
        return Speaker(self.probe, store, self.chat, self.command.seed)

    @cached_property
    def requests(self) -> Requests:
        """Prompts of the run."""
        return load_requests(self.command.safety, look_alikes_of_a_run(self.command))

    @cached_property
    def tasks(self) -> list[Task]:
        """Capability tasks, items in the order of their content's hash: protections read the first ones."""
        return [_ordered(task) for task in load_tasks(self.command.tasks or BUILTIN_TASKS())]

    @cached_property
    def sources(self) -> dict[str, str]:
        """sha256 of everything that was read, by name."""
        found = {**self.requests.sources}
        found |= {f"task {task.name}": task.sha256 for task in self.tasks}
        given = self.command.preferences
        return found | ({f"preferences {given}": named_table(given).sha256} if given else {})

    @property
    def limit(self) -> int:
        """Context length in tokens."""
        return self.loaded.context_length or 2**20


def _ordered(task: Task) -> Task:
    items = tuple(task.items[k] for k in by_hash([item.key for item in task.items], "items"))
    return Task(task.name, items, task.kind, task.source, task.sha256, task.notes)


def gather(bench: Bench, names: Sequence[str]) -> Rows:
    """Rows for the trainer and for the protections named."""
    command = bench.command
    rows = training_rows(command, bench.speaker, bench.requests, bench.meter, capability(bench))
    rows = replace(rows, data=bench.sources)
    if "nullspace" in names:
        with bench.meter.phase("protected inputs", tokens_of(rows.protected)):
            rows = rows.with_subspaces(input_subspaces(bench.probe, rows.protected, command.energy))
    if "directions" in names:
        rows = rows.with_directions(survey_subspace(command.survey, bench.loaded.weights_sha256))
    return rows


def capability(bench: Bench) -> tuple[list[Encoded], dict[str, list[ScoredItem]]]:
    """Rows that protections read (or that are learnt), and other items on which the tax is watched."""
    command, limit = bench.command, bench.limit
    rows: list[Encoded] = []
    scored: dict[str, list[ScoredItem]] = {}
    for task in bench.tasks:
        first, rest = task.items[: command.protect_items], task.items[command.protect_items :][:WATCHED]
        rows += capability_rows(first, lambda item, fmt: encode_item(item, fmt, bench.chat, limit))
        chosen = [choose_distractors(item, 1, command.seed) for item in rest]
        scored[task.name] = [
            ScoredItem(encode_item(item, "plain", bench.chat, limit), item.gold or 0) for item in chosen
        ]
    return rows, scored
