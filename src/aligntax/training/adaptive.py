"""The KL coefficient follows the KL ([R]): `beta_t = beta_0 exp(rate KL_t)`, within a stated range."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aligntax.errors import AligntaxError
from aligntax.stats.adaptive_kl import adaptive_beta


class AdaptiveKL(TrainerCallback):
    """Sets `trainer.beta` from the KL that the trainer logs; for GRPO and RLOO, which log `kl` when beta is not 0.

    `trainer.add_callback(AdaptiveKL(trainer, rate=2.0))`. Without a target (as in the source) beta only ever rises with KL; the
    range bounds it. Works at logging steps, so log every step to have it follow closely. A resumed run goes on from the last
    beta in the log of its state.
    """

    def __init__(self, trainer: Any, rate: float = 1.0, low: float = 1e-3, high: float = 1.0) -> None:
        start = float(getattr(trainer, "beta", 0.0))
        if not start > 0.0:
            raise AligntaxError(f"adaptive KL starts from the trainer's beta, which is {start}; give a beta > 0")
        self.trainer, self.start = trainer, start
        self.rate, self.low, self.high = rate, low, high
        adaptive_beta(0.0, start, rate, (low, high))

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Beta where it was when the state was saved; beta_0 in a run that begins."""
        self.trainer.beta = next((float(e["beta"]) for e in reversed(state.log_history) if "beta" in e), self.start)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Move beta where a KL was logged; beta is logged beside it."""
        if not logs or logs.get("kl") is None:
            return
        self.trainer.beta = adaptive_beta(max(0.0, float(logs["kl"])), self.start, self.rate, (self.low, self.high))
        logs["beta"] = self.trainer.beta
        if state.log_history:
            state.log_history[-1]["beta"] = self.trainer.beta
