"""The recovery objective when KL is averaged over the policy's own prefixes (`rho = pi`): a self-consistent point.

`pi*(v | p) ~ pi_0(v | p) exp(w x 1[v in R] - cost(pv))` with `w = Q(p)/pi*(p)` and `cost(pv) = E_pi*[lambda H + KL still
to be paid | pv]`. Leaving the cost out is right to first order only; `w` grows without end down prefixes that do not
recover, because the policy then hardly ever writes them while `Q` still does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aligntax.depth.ranges import discount, not_negative
from aligntax.errors import LabError
from aligntax.lab.tabular import Array, Harm, TabularPolicy


@dataclass(frozen=True)
class Stationary:
    """A stationary `policy` with its density ratios `weight[t]` `(V^t,)`, `w = Q/pi*` for prefixes of length `t`, and
    `cost[t]` `(V^t,)` in nats for `t = 0..T`, the harm and KL still to be paid.
    """

    policy: TabularPolicy
    weight: tuple[Array, ...]
    cost: tuple[Array, ...]

    @property
    def largest_weight(self) -> float:
        """Largest `Q(p)/pi*(p)` over all prefixes."""
        return max(float(w.max()) for w in self.weight)


@dataclass(frozen=True)
class StationaryProblem:
    """`lambda E_pi[H] + KL(pi | base) + sum_t mu gamma^t E_Q[1 - pi(R | y_<t)]`; `prefixes[t]` `(V^t,)` is `Q`."""

    base: TabularPolicy
    harm: Harm
    strength: float
    recovery: Sequence[int]
    prefixes: Sequence[Array]
    mu: float
    gamma: float

    def cost(self, policy: TabularPolicy) -> tuple[Array, ...]:
        """`E_pi[lambda H + sum of later KL | y_<=t]` `(V^t,)` in nats, `t = 0..T`; minus `log Z(y_<=t)` of the Gibbs
        optimum at `mu = 0`.
        """
        future = [self.strength * self.base.leaf_values(self.harm)]
        for rows, old in zip(reversed(policy.logits), reversed(self.base.logits), strict=True):
            future.append((np.exp(rows) * (rows - old + future[-1].reshape(rows.shape))).sum(-1))
        return tuple(reversed(future))

    def tilted(self, cost: Sequence[Array]) -> tuple[TabularPolicy, tuple[Array, ...]]:
        """`pi_0 exp(w x 1[R] - cost)` and its `w`, found from the first position on: `w` needs earlier positions only."""
        not_negative(self.mu, "mu")
        discount(self.gamma)
        chosen = np.isin(np.arange(self.base.vocabulary), list(self.recovery))
        log_reach, tables, weights = np.zeros(1), [], []
        for t, old in enumerate(self.base.logits):
            with np.errstate(over="ignore"):
                weights.append(np.asarray(self.prefixes[t]) * np.exp(-log_reach))
            bonus = weights[-1] * self.mu * self.gamma ** (t + 1)
            if not np.isfinite(bonus).all():
                raise LabError(f"w = Q/pi exceeds a double at position {t + 1}; lower mu={self.mu}")
            rows = old - cost[t + 1].reshape(old.shape) + bonus[:, None] * chosen
            rows = rows - np.logaddexp.reduce(rows, axis=-1, keepdims=True)
            tables.append(rows)
            log_reach = (log_reach[:, None] + rows).ravel()
        return TabularPolicy(tables), tuple(weights)


def recovery_stationary(problem: StationaryProblem, rounds: int = 2000, tolerance: float = 1e-12) -> Stationary:
    """Stationary point of the recovery objective with `rho = pi`, by damped iteration between policy and cost
    ([S] Thm 20, Prop 29, Rem 9, corrected).

    Raises LabError where the iteration has not settled after `rounds`, which large `mu` can cause.
    """
    cost = problem.cost(problem.base)
    for _ in range(rounds):
        policy, weight = problem.tilted(cost)
        found = problem.cost(policy)
        change = max(float(np.abs(a - b).max()) for a, b in zip(found, cost, strict=True))
        if change <= tolerance:
            return Stationary(policy, weight, found)
        cost = tuple(0.5 * (a + b) for a, b in zip(found, cost, strict=True))
    raise LabError(
        f"no stationary point after {rounds} rounds (cost still moves by {change:.1e}); lower mu={problem.mu}"
    )


def tilt_agreement(found: Stationary, recovery: Sequence[int]) -> tuple[Array, ...]:
    """Do the two tilts agree? Mean cost of the other tokens minus mean cost of recovery tokens, nats, `(V^t,)` by prefix.

    Above 0 where recovery is also the cheaper way on, below 0 where harm's tilt works against recovery ([S] Prop 29,
    corrected). Means under the policy's own conditional law.
    """
    chosen = np.isin(np.arange(found.policy.vocabulary), list(recovery))
    gaps = []
    for rows, cost in zip(found.policy.logits, found.cost[1:], strict=True):
        p, paid = np.exp(rows), cost.reshape(rows.shape)
        inside = (p * paid)[:, chosen].sum(-1) / p[:, chosen].sum(-1)
        gaps.append((p * paid)[:, ~chosen].sum(-1) / p[:, ~chosen].sum(-1) - inside)
    return tuple(gaps)
