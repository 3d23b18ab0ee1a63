"""KL by position: alignment moves the first tokens of a reply and little after them, which a mean over a reply hides.

Positions count from 1, the first token of a reply, and are summed up in four bins: 1, 2-4, 5-16 and 17 on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.data import Encoded
from aligntax.errors import AligntaxError
from aligntax.models import logits_of, unembedding
from aligntax.training.reference import Reference
from aligntax.training.rows import evenly, scored_hidden
from aligntax.training.terms import join_log

BINS: dict[str, tuple[int, float]] = {"1": (1, 1), "2-4": (2, 4), "5-16": (5, 16), "17-": (17, float("inf"))}
"""First and last position of each bin by its name in the log."""
KL_ROWS, KL_TOKENS = 8, 32
"""Rows and scored tokens of each that a measurement reads: about a third of a training step of 8 rows."""


def text_kl(model: PreTrainedModel, reference: Reference, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`KL(pi || pi_0)` `(n,)` nats at every scored position of the chosen rows, with a graph, and those positions `(n,)`."""
    kls, positions = [], []
    for k, hidden in zip(chosen, scored_hidden(model, [reference.rows[k] for k in chosen]), strict=True):
        kls.append(reference.kl(model, k, torch.log_softmax(logits_of(model, hidden), dim=-1)))
        positions.append(torch.arange(1, len(hidden) + 1, device=hidden.device, dtype=torch.float32))
    return torch.cat(kls), torch.cat(positions)


def by_position(kl: Tensor, positions: Tensor, name: str = "kl") -> dict[str, float]:
    """Mean nats of each bin as `name_1`, `name_2-4`, `name_5-16`, `name_17-`; a bin that no position falls into is left out."""
    found = {}
    for label, (first, last) in BINS.items():
        inside = kl.detach()[(positions >= first) & (positions <= last)]
        if inside.numel():
            found[f"{name}_{label}"] = float(inside.float().mean())
    return found


class KLCallback(TrainerCallback):
    """Logs `anchor_kl/kl`, the mean, and `anchor_kl/kl_1`, `_2-4`, `_5-16`, `_17-`: KL to the model before training, in nats
    per token, every `every` steps and at the last one.

    Measured as `KL(pi || pi_0)` on `most` of `rows`, taken at even distances, over the first `tokens` tokens of their scored
    part; give replies of the model itself to have the KL of its own texts. Made before training (adapters are switched off for
    it), it keeps final hidden states and no second model: the head must be frozen (`freeze_head`), or AligntaxError is raised
    when training begins. One forward pass of these rows a measurement; no gradient.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Sequence[Encoded],
        every: int = 20,
        most: int = KL_ROWS,
        tokens: int = KL_TOKENS,
    ) -> None:
        if min(every, most, tokens) < 1:
            raise AligntaxError(f"KL of {most} rows of {tokens} tokens every {every} steps; give at least 1 each")
        cut = [Encoded(row.ids[: row.start + tokens], row.start) for row in evenly(rows, most)]
        self.every = every
        self._reference = Reference(model, cut)
        self._waiting: dict[str, float] = {}

    def measure(self, model: PreTrainedModel) -> dict[str, float]:
        """KL now, by the keys that are logged."""
        training = model.training
        model.eval()
        with torch.no_grad():
            kl, positions = text_kl(model, self._reference, range(len(self._reference.rows)))
        model.train(training)
        found = {"kl": float(kl.mean()), **by_position(kl, positions)}
        return {f"anchor_kl/{key}": value for key, value in found.items()}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """A head that trains is said now and not at the first measurement."""
        if any(parameter.requires_grad for parameter in unembedding(model).parameters()):
            raise AligntaxError("KL to the model before training needs a frozen head; call freeze_head(model) first")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Measure where it is time: into the log of this step where there will be one, else into an entry of its own."""
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        found = self.measure(model)
        if control.should_log:
            self._waiting = found
        else:
            state.log_history.append({"step": state.global_step, **found})  # type: ignore[dict-item]

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Put what was measured at this step into the record of the trainer."""
        join_log(state, logs, self._waiting)
        self._waiting = {}
