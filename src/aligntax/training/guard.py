"""Stop before damage: NaN or infinite gradients never reach the weights, and a run says at which step it stopped."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.errors import NonFiniteError


class StopOnNonFinite(TrainerCallback):
    """Raises NonFiniteError before the optimizer would step on a NaN or infinite gradient; the weights stay as they were."""

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Look at every gradient."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not _finite(parameter.grad):
                raise NonFiniteError(
                    f"the gradient of {name} is NaN or infinite at step {state.global_step + 1}; the weights before that step "
                    "are kept; lower the learning rate"
                )


def _finite(gradient: torch.Tensor) -> bool:
    """Whether all of it is finite; where it is split over processes they hear the same, or one would stop and the others wait."""
    found: Any = torch.isfinite(gradient).all()
    return bool(found.full_tensor() if hasattr(found, "full_tensor") else found)
