"""A term of the loss that any trainer can carry: its gradient is there before the trainer's own backward begins.

A callback cannot change what a trainer returns as its loss, but it is called when a step begins, when gradients are zero.
What it adds then is clipped, averaged over processes and stepped together with the trainer's own gradient, exactly as if both
losses had been one sum. So a term works with every trainer that calls back, without a subclass.
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.errors import AligntaxError, NonFiniteError


def join_log(state: TrainerState, logs: dict[str, float] | None, values: dict[str, float]) -> None:
    """Add values to what is being logged and to the trainer's record of it, which is a copy."""
    for entry in (logs, *state.log_history[-1:]):
        if entry is not None:
            entry.update(values)


class LossTerm(TrainerCallback):
    """`weight * loss(model, step)` added to the loss of each optimizer step; logged under `name`.

    The loss stands beside the trainer's loss of one optimizer step, whatever the accumulation. Processes work on their own
    rows and gradients are averaged by DDP. Raises AligntaxError with fp16 (its loss scale is not known here: use bf16).
    """

    name = "term"

    def __init__(self, weight: float = 1.0) -> None:
        if not (weight >= 0.0 and math.isfinite(weight)):
            raise AligntaxError(f"{self.name}: weight {weight} must be finite and >= 0")
        self.weight = weight
        self._seen: dict[str, list[float]] = {}

    def loss(self, model: PreTrainedModel, step: int, process: int, processes: int) -> Tensor:
        """The term as a scalar with a graph, in nats."""
        raise NotImplementedError

    def note(self, **values: float) -> None:
        """Numbers to average until the next log, under `name/key`."""
        for key, value in values.items():
            self._seen.setdefault(f"{self.name}/{key}", []).append(float(value))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Backward of the term. Raises NonFiniteError naming the step when it is NaN or infinite."""
        if args.fp16:
            raise AligntaxError(f"{self.name} does not know the loss scale of fp16; train with bf16 or float32")
        if self.weight == 0.0:
            return
        model.train()
        with torch.enable_grad():
            value = self.loss(model, state.global_step, args.process_index, args.world_size)
        if not bool(torch.isfinite(value)):
            raise NonFiniteError(
                f"{self.name} is {float(value)} at step {state.global_step + 1}; lower the learning rate or its weight"
            )
        (self.weight * value).backward()
        self.note(loss=float(value.detach()))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Put the means since the last log into the record of the trainer."""
        means = {key: sum(values) / len(values) for key, values in self._seen.items()}
        self._seen.clear()
        join_log(state, logs, means)
