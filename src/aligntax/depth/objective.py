"""The recovery objective, written once: training calls it with torch tensors, the laboratory too, a report with numpy.

The estimand: adversarial prefixes `y_<t ~ Q` that the policy did not write; at each of them two numbers of the policy,
its log mass on recovery tokens and its KL to the base, both at the *next* token. Nothing is generated and no gradient
flows through the choice of prefixes. That keeps the optimum exact ([S] Thm 20): with KL averaged over the policy's own
prefixes instead, each prefix would be weighted by `Q/pi`, which explodes where recovery is wanted most.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from aligntax.depth.ranges import discount, not_negative
from aligntax.errors import DepthError

RecoveryForm = Literal["linear", "log"]


@dataclass(frozen=True)
class RecoveryPenalty:
    """`x = mu gamma^t` nats at position `t = 1, 2, ..` of the response, charged for failing to recover ([S] Def 16).

    `form` *linear* charges `1 - pi(R)`, whose gradient `p (1 - p)` nearly vanishes at `p = 1e-4`; *log* charges
    `-log pi(R)`, gradient `1 - p`, and has another optimum. Raises DepthError for `mu < 0`, `gamma` outside (0, 1] and
    any other form.
    """

    mu: float
    gamma: float = 1.0
    form: RecoveryForm = "linear"

    def __post_init__(self) -> None:
        not_negative(self.mu, "mu")
        discount(self.gamma)
        if self.form not in ("linear", "log"):
            raise DepthError(f"form={self.form!r}: the recovery form is 'linear' or 'log'")

    def at(self, positions: Any) -> Any:
        """`mu gamma^t` in nats, for positions that count from 1: a number, a numpy array or a torch tensor."""
        return self.mu * self.gamma**positions

    def failure(self, log_mass: Any) -> Any:
        """What is charged at `log_mass = log pi(R | y_<t) <= 0`: `1 - pi(R)`, or `-log pi(R)` in the log form."""
        return -log_mass if self.form == "log" else 1.0 - math.e**log_mass


def recovery_objective(log_mass: Any, kl: Any, weights: Any, positions: Any, penalty: RecoveryPenalty) -> Any:
    """`sum weights (KL_t + mu gamma^t failure_t)` in nats, a scalar: [S] Def 17 without its harm term, KL on the same
    prefixes as the penalty.

    `log_mass` and `kl` hold `log pi(R | y_<t)` and `KL(pi(.|y_<t) | pi_0(.|y_<t))`, one entry a prefix; `weights` is how
    much of `Q` each stands for (a mask over the number of texts, for padded batches); `positions` count from 1. Shapes
    broadcast. Numpy arrays or torch tensors alike; differentiable where they are.

    >>> import numpy as np
    >>> one = np.ones(1)
    >>> round(float(recovery_objective(np.log(0.25 * one), 0.0 * one, one, one, RecoveryPenalty(2.0, 0.5))), 6)
    0.75
    """
    return (weights * (kl + penalty.at(positions) * penalty.failure(log_mass))).sum()
