"""Keep capability losses where they are: their gradients are taken out of every step that the optimizer makes.

To first order a step `s` changes loss `i` by `<g_i, s>`. `two_sided` makes all these zero; one-sided (the default) only forbids
losses to rise, `<g_i, s> <= 0`, and is the nearest such step: `s - sum_i l_i g_i` with `l >= 0` from a non-negative least-squares
problem in as many unknowns as there are losses. Gradients go stale as weights move, so they are renewed every few steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.errors import AligntaxError, NonFiniteError
from aligntax.training.nullspace import NullSpaceProjection

Batch = Mapping[str, Tensor]
Loss = Callable[[PreTrainedModel], Tensor]


class GradientProjection(TrainerCallback):
    """Projects each optimizer step off the gradients of capability losses; drops into any trainer.

    `losses`: each a batch for `model(**batch).loss`, or a function of the model that returns a scalar; at most a few, since
    one copy of the trainable weights is kept for each. `every` steps they are renewed, and at the first step after a state was
    saved: a run that resumes from it has no older ones, and so takes the same steps. With `inside` (a null-space projection that
    comes before it among the callbacks) gradients are taken within that subspace, so that both promises hold.
    """

    def __init__(
        self,
        losses: Sequence[Batch | Loss],
        every: int = 10,
        two_sided: bool = False,
        inside: NullSpaceProjection | None = None,
    ) -> None:
        if not losses or every < 1:
            raise AligntaxError(
                f"gradient protection with {len(losses)} losses every {every} steps; give at least 1 each"
            )
        self.losses, self.every, self.two_sided, self.inside = list(losses), every, two_sided, inside
        self._gradients: list[list[Tensor]] = []
        self._before: list[Tensor] = []
        self.removed: list[float] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Gradients of an earlier run are of other weights."""
        self._gradients = []

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin anew where a resumed run would."""
        self._gradients = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Renew the gradients where it is time."""
        if state.global_step % self.every == 0 or not self._gradients:
            model.train()  # as in every step; before the first one, and so after a resume, it may be in another mode
            self._gradients = [self._gradient(model, loss, number) for number, loss in enumerate(self.losses)]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Remember the weights."""
        self._before = [parameter.detach().clone() for parameter in _trained(model)]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Project the step."""
        with torch.no_grad():
            parameters = _trained(model)
            step = [p - b for p, b in zip(parameters, self._before, strict=True)]
            gram = np.array([[_inner(g, h) for h in self._gradients] for g in self._gradients])
            along = np.array([_inner(g, step) for g in self._gradients])
            amounts = multipliers(gram, along, self.two_sided)
            for amount, gradient in zip(amounts.tolist(), self._gradients, strict=True):
                if amount != 0.0:
                    for parameter, part in zip(parameters, gradient, strict=True):
                        parameter.sub_(part, alpha=amount)
            size = float(np.sqrt(max(_inner(step, step), 1e-300)))
            self.removed.append(float(np.sqrt(max(amounts @ gram @ amounts, 0.0))) / size)
        self._before = []

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Log the share of the step's length that was taken out, mean since the last log."""
        if self.removed and logs is not None:
            logs["gradient/removed"] = sum(self.removed) / len(self.removed)
            if state.log_history:
                state.log_history[-1]["gradient/removed"] = logs["gradient/removed"]
        self.removed = []

    def _gradient(self, model: PreTrainedModel, loss: Batch | Loss, number: int) -> list[Tensor]:
        parameters = _trained(model)
        with torch.enable_grad():
            if callable(loss):
                value = loss(model)
            else:
                value = model(**{name: part.to(parameters[0].device) for name, part in loss.items()}).loss
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        gradient = [torch.zeros_like(p) if g is None else g.detach() for p, g in zip(parameters, found, strict=True)]
        if self.inside is not None:
            gradient = [self.inside.inside(p, g) for p, g in zip(parameters, gradient, strict=True)]
        size = float(np.sqrt(_inner(gradient, gradient)))
        if not np.isfinite(size) or size == 0.0:
            raise NonFiniteError(f"capability loss {number} has a gradient of length {size}; check its batch")
        return [part / size for part in gradient]


def multipliers(gram: np.ndarray, along: np.ndarray, two_sided: bool) -> np.ndarray:
    """Amounts `(k,)` of each gradient to take out of a step: `G l = a`, or the nearest step with no loss rising.

    One-sided, `min |s - sum l_i g_i|` over `l >= 0` leaves `<g_i, s> <= 0` for all (the dual of projecting on that cone).
    """
    if two_sided:
        return np.asarray(np.linalg.lstsq(gram, along, rcond=1e-10)[0])
    # |s - g^T l|^2 as a least-squares problem in the factor of the Gram matrix.
    values, vectors = np.linalg.eigh(gram)
    keep = values > 1e-10 * max(values.max(), 1e-300)
    root = np.sqrt(values[keep])[:, None] * vectors[:, keep].T
    target = (vectors[:, keep].T @ along) / np.sqrt(values[keep])
    return np.asarray(scipy.optimize.nnls(root, target)[0])


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return float(sum(torch.dot(a.flatten().double(), b.flatten().double()) for a, b in zip(first, second, strict=True)))
