"""Optimisation on tabular policies: does gradient descent really reach the optimum that the theory writes down?

Logits of every prefix are free parameters in double precision; gradients come from autograd, through the very recovery
loss that training uses. Nothing here knows a closed form.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from aligntax.depth.objective import RecoveryForm, RecoveryPenalty, recovery_objective
from aligntax.errors import LabError
from aligntax.lab.tabular import Array, Harm, TabularPolicy

Loss = Callable[[list[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Descent:
    """Where the descent ended: the `policy`, the objective's `value` in nats, the largest `gradient` entry left, and how
    many times the objective was evaluated.
    """

    policy: TabularPolicy
    value: float
    gradient: float
    evaluations: int


@dataclass(frozen=True)
class DeepObjective:
    """`lambda E_pi[H] + KL + recovery penalty` on a tabular policy ([S] Def 17).

    `prefixes[t]` `(V^t,)` is `Q` over prefixes of length `t = 0..T-1` (a row of zeros charges nothing there). `rho` says
    where KL is averaged: "Q", on the same prefixes as the penalty, or "pi", on the policy's own. Without `penalty` this
    is the standard objective `lambda E[H] + KL(pi | base)`. Raises LabError where a penalty lacks recovery tokens or a `Q`
    of the base's sizes.
    """

    base: TabularPolicy
    harm: Harm | None = None
    strength: float = 0.0
    penalty: RecoveryPenalty | None = None
    recovery: Sequence[int] = ()
    prefixes: Sequence[Array] = ()
    rho: Literal["Q", "pi"] = "Q"

    def __post_init__(self) -> None:
        sizes, given = [len(rows) for rows in self.base.logits], [np.size(q) for q in self.prefixes]
        if self.penalty is not None and (not self.recovery or given != sizes):
            raise LabError(
                f"recovery {list(self.recovery)} and prefixes of sizes {given}: give recovery tokens and sizes {sizes}"
            )

    def loss(self) -> Loss:
        """The objective as a function of free logits, differentiable."""
        base = [torch.as_tensor(rows) for rows in self.base.logits]
        harm = None if self.harm is None else torch.as_tensor(self.base.leaf_values(self.harm))
        chosen = sorted(set(self.recovery))

        def value(logits: list[torch.Tensor]) -> torch.Tensor:
            log_p = [torch.log_softmax(rows, -1) for rows in logits]
            kl = [(rows.exp() * (rows - old)).sum(-1) for rows, old in zip(log_p, base, strict=True)]
            reach = _reach(log_p)
            total = torch.zeros((), dtype=torch.float64)
            if harm is not None:
                total = total + self.strength * (reach[-1] * harm).sum()
            if self.penalty is None or self.rho == "pi":
                total = total + sum((r * k).sum() for r, k in zip(reach[:-1], kl, strict=True))
            if self.penalty is not None:
                total = total + self._recovery_term(log_p, kl, chosen)
            return total

        return value

    def occurrence(self) -> list[Array]:
        """How often each prefix counts in the objective, `(V^t,)` for `t = 0..T-1`: under the base, under `Q`, or both."""
        shares = [np.asarray(reach) for reach in self.base.prefix_probabilities()[:-1]]
        if self.penalty is not None:
            charged = [np.asarray(q, dtype=float).ravel() for q in self.prefixes]
            own = self.rho == "pi" or self.harm is not None
            shares = [r + q if own else q for r, q in zip(shares, charged, strict=True)]
        return shares

    def _recovery_term(self, log_p: list[torch.Tensor], kl: list[torch.Tensor], chosen: list[int]) -> torch.Tensor:
        """Training's loss, on all prefixes of all lengths at once."""
        assert self.penalty is not None
        mass = torch.cat([rows[:, chosen].logsumexp(-1) for rows in log_p])
        nats = torch.cat(kl) if self.rho == "Q" else torch.zeros_like(mass)
        weights = torch.as_tensor(np.concatenate([np.asarray(q, dtype=float).ravel() for q in self.prefixes]))
        positions = torch.cat([torch.full((len(rows),), t + 1.0).double() for t, rows in enumerate(log_p)])
        return torch.as_tensor(recovery_objective(mass, nats, weights, positions, self.penalty))


def descend(objective: DeepObjective, start: TabularPolicy | None = None, evaluations: int = 4000) -> Descent:
    """Minimise `objective` over all logits by L-BFGS from `start` (the base policy when None).

    Steps are scaled by how often each prefix occurs, or logits of rare prefixes would hardly move. Stops when nothing
    moves any more. Raises LabError where the objective is not finite at the end.
    """
    first = [torch.as_tensor(rows) for rows in (start or objective.base).logits]
    scale = [torch.as_tensor(1.0 / np.sqrt(np.maximum(share, 1e-12)))[:, None] for share in objective.occurrence()]
    steps = [torch.zeros_like(rows, requires_grad=True) for rows in first]
    loss = objective.loss()

    def value() -> torch.Tensor:
        return loss([rows + s * step for rows, s, step in zip(first, scale, steps, strict=True)])

    spent = _minimise(value, steps, evaluations)
    found = [(rows + s * step).detach().requires_grad_() for rows, s, step in zip(first, scale, steps, strict=True)]
    end = loss(found)
    if not torch.isfinite(end):
        raise LabError(f"the objective ended at {float(end)}; lower the penalty or the strength")
    gradient = max(float(g.abs().max()) for g in torch.autograd.grad(end, found))
    return Descent(TabularPolicy([rows.detach().numpy() for rows in found]), float(end.detach()), gradient, spent)


def _minimise(value: Callable[[], torch.Tensor], steps: list[torch.Tensor], evaluations: int) -> int:
    """L-BFGS rounds with a fresh history each, until a round moves nothing; returns evaluations spent."""
    spent = 0

    def closure() -> torch.Tensor:
        nonlocal spent
        spent += 1
        for step in steps:
            step.grad = None
        found = value()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    while spent < evaluations:
        before = [step.detach().clone() for step in steps]
        torch.optim.LBFGS(
            steps,
            max_iter=500,
            history_size=40,
            tolerance_grad=1e-14,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        ).step(closure)  # type: ignore[no-untyped-call]
        if all(torch.equal(old, new) for old, new in zip(before, steps, strict=True)):
            break
    return spent


def steps_to_recover(
    p0: float, x: float, target: float, form: RecoveryForm, rate: float = 1.0, limit: int = 20_000
) -> int | None:
    """Plain gradient steps until recovery mass reaches `target`, from `p0`, at one position; None if not in `limit`.

    Four tokens, one of them recovery, step size `rate` on the logits.
    """
    base = TabularPolicy.from_probabilities([[[p0] + [(1.0 - p0) / 3.0] * 3]])
    objective = DeepObjective(base, None, 0.0, RecoveryPenalty(x, 1.0, form), (0,), (np.ones(1),))
    loss = objective.loss()
    rows = torch.tensor(base.logits[0], requires_grad=True)
    for step in range(limit):
        if float(torch.softmax(rows.detach(), -1)[0, 0]) >= target:
            return step
        (gradient,) = torch.autograd.grad(loss([rows]), rows)
        rows = (rows - rate * gradient).detach().requires_grad_()
    return None


def _reach(log_p: list[torch.Tensor]) -> list[torch.Tensor]:
    found = [torch.ones(1, dtype=torch.float64)]
    for rows in log_p:
        found.append((found[-1][:, None] * rows.exp()).reshape(-1))
    return found


def worst_kl(found: TabularPolicy, expected: TabularPolicy, positions: Any = None) -> float:
    """Largest `KL(found(.|prefix) | expected(.|prefix))` over *all* prefixes in nats, reached or not; `positions` picks
    some of `1..T`.
    """
    chosen = range(1, found.length + 1) if positions is None else positions
    pairs = [(found.logits[t - 1], expected.logits[t - 1]) for t in chosen]
    return max(float((np.exp(a) * (a - b)).sum(-1).max()) for a, b in pairs)
