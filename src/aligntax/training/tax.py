"""The tax while it is being paid: capability items scored every few steps, against their scores before training.

Per item the change is split as in the audit: *shared* is what the distractors undergo too, *selective* the change of the
margin of the gold choice. Only the selective part is called capability.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.data import Encoded
from aligntax.errors import AligntaxError
from aligntax.models import answer_logprobs, embedding_device
from aligntax.training.rows import in_batches, pad


@dataclass(frozen=True)
class ScoredItem:
    """An item as token rows: `rows[gold]` is right; with a single row the item is an answer without distractors."""

    rows: Sequence[Encoded]
    gold: int = 0


class TaxCallback(TrainerCallback):
    """Logs `tax/<task>` (nats per token; positive is a loss) and `tax/<task>/shared` every `every` steps, and at the end.

    Made before training, from the model that pays; scores never enter a gradient.
    """

    def __init__(
        self, model: PreTrainedModel, tasks: Mapping[str, Sequence[ScoredItem]], every: int = 10, batch: int = 8
    ) -> None:
        if every < 1 or not tasks or any(not items for items in tasks.values()):
            raise AligntaxError(f"tax of {len(tasks)} tasks every {every} steps; give tasks with items, and every >= 1")
        self.tasks, self.every, self.batch = dict(tasks), every, batch
        self._before = {name: self._scores(model, items) for name, items in self.tasks.items()}
        self.history: list[dict[str, float]] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Score where it is time."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            found = self.measure(model)
            self.history.append({"step": float(state.global_step), **found})
            state.log_history.append({"step": state.global_step, **found})  # type: ignore[dict-item]

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        """Tax of every task now: mean over items, nats per token."""
        found = {}
        for name, items in self.tasks.items():
            margin, shared = (self._before[name] - self._scores(model, items)).mean(0).tolist()
            found[f"tax/{name}"] = margin
            if any(len(item.rows) > 1 for item in items):
                found[f"tax/{name}/shared"] = shared
        return found

    def _scores(self, model: PreTrainedModel, items: Sequence[ScoredItem]) -> torch.Tensor:
        """Margin and mean distractor score of each item `(n, 2)`, nats per token; without distractors `(answer, 0)`."""
        rows = [row for item in items for row in item.rows]
        values = torch.zeros(len(rows))
        training = model.training
        model.eval()
        with torch.no_grad():
            for group in in_batches(rows, self.batch):
                ids, mask, scored = pad([rows[k] for k in group], embedding_device(model))
                values[group] = answer_logprobs(model, ids, mask, scored).means().float().cpu()
        model.train(training)
        found, start = [], 0
        for item in items:
            own = values[start : start + len(item.rows)]
            others = [float(v) for k, v in enumerate(own) if k != item.gold]
            other = sum(others) / len(others) if others else 0.0
            found.append([float(own[item.gold]) - other, other])
            start += len(item.rows)
        return torch.tensor(found)
