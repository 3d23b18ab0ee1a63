"""Parameters shared by all positions: the tabular world in which pressure at one position moves the others ([S] App. A)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from aligntax.errors import LabError
from aligntax.lab.tabular import Array, Harm, TabularPolicy


@dataclass(frozen=True, eq=False)
class SharedPolicy:
    """`logits = base + features . theta`: one `theta` `(d,)` for every prefix and position.

    `base` is a TabularPolicy, `features[t]` `(V^t, V, d)` for prefixes of length `t = 0..T-1`; `theta` is 0 if None, where the
    policy is its base. Raises LabError for shapes that do not fit and numbers that are not finite. [S] Asm 1.
    """

    base: TabularPolicy
    features: Any
    theta: Any = None

    def __post_init__(self) -> None:
        tables = [np.asarray(table, dtype=float) for table in self.features]
        shapes = [table.shape for table in tables]
        d = shapes[0][-1] if shapes and shapes[0] else 0
        wanted = [(*rows.shape, d) for rows in self.base.logits]
        if d < 1 or shapes != wanted:
            raise LabError(f"features have shapes {shapes}; expected {wanted} with d >= 1")
        theta = np.zeros(d) if self.theta is None else np.asarray(self.theta, dtype=float)
        if theta.shape != (d,) or not np.isfinite(theta).all():
            raise LabError(f"theta is {theta.tolist()}; expected {d} finite numbers, one a feature")
        if not all(np.isfinite(table).all() for table in tables):
            raise LabError("features hold nan or inf; give finite numbers")
        object.__setattr__(self, "features", tuple(tables))
        object.__setattr__(self, "theta", theta)

    @classmethod
    def random(cls, base: TabularPolicy, d: int, rng: np.random.Generator) -> "SharedPolicy":
        """Independent standard normal features: every parameter touches every position."""
        return cls(base, [rng.standard_normal((*rows.shape, d)) for rows in base.logits])

    def tabular(self) -> TabularPolicy:
        """The same policy, its logits written out."""
        pairs = zip(self.base.logits, self.features, strict=True)
        return TabularPolicy([rows + table @ self.theta for rows, table in pairs])

    def moved(self, theta: Any) -> "SharedPolicy":
        """The policy of the same family at `theta` `(d,)`."""
        return SharedPolicy(self.base, self.features, theta)

    def scores(self) -> tuple[Array, ...]:
        """`s_t = grad_theta log pi(v | prefix)` `(V^(t-1), V, d)` for `t = 1..T`; mean 0 under each prefix."""
        tables = zip(self.tabular().logits, self.features, strict=True)
        return tuple(f - np.einsum("pv,pvd->pd", np.exp(rows), f)[:, None] for rows, f in tables)

    def gradients(self, harm: Harm) -> Array:
        """Exact `g_t` `(T, d)` in harm per unit of theta; they sum to `grad E[H]` ([S] Thm 8)."""
        return self._chained(self.tabular().gradient(harm))

    def fishers(self) -> Array:
        """Exact `F_t = E[s_t s_t^T]` `(T, d, d)` in nats; their sum is the Fisher matrix of whole sequences ([S] Lem 24)."""
        policy = self.tabular()
        reach = policy.prefix_probabilities()
        return np.array(
            [
                np.einsum("p,pv,pvd,pve->de", reach[t], np.exp(policy.logits[t]), score, score, optimize=True)
                for t, score in enumerate(self.scores())
            ]
        )

    def natural_step(self, harm: Harm, strength: float) -> "SharedPolicy":
        """`theta - strength F^+ g`, the equilibrium at leading order ([S] Prop 25)."""
        step = np.linalg.lstsq(self.fishers().sum(axis=0), self.gradients(harm).sum(axis=0), rcond=1e-11)[0]
        return self.moved(self.theta - strength * step)

    def optimum(self, harm: Harm, strength: float) -> "SharedPolicy":
        """Minimiser over theta of `strength E[H] + KL(pi_theta | self)`, by BFGS on exact gradients from here.

        No expansion anywhere, so it says how good `natural_step` is. Raises LabError where it does not converge to a
        gradient below 1e-9.
        """
        found = scipy.optimize.minimize(
            self._objective(harm, strength),
            self.theta,
            jac=True,
            method="BFGS",
            options={"gtol": 1e-11, "maxiter": 2000},
        )
        left = float(np.abs(found.jac).max())
        if not left < 1e-9:
            raise LabError(f"no optimum for strength={strength}: gradient {left:.2g} left; try a smaller strength")
        return self.moved(found.x)

    def _objective(self, harm: Harm, strength: float) -> Callable[[Array], tuple[float, Array]]:
        start = self.tabular()
        values = strength * start.leaf_values(harm)
        before = start.leaf_log_probabilities()

        def value_and_gradient(theta: Array) -> tuple[float, Array]:
            there = self.moved(theta)
            policy = there.tabular()
            payoff = values + policy.leaf_log_probabilities() - before
            return float(policy.expect(payoff)[0][0]), there._chained(policy.payoff_gradient(payoff)).sum(axis=0)

        return value_and_gradient

    def _chained(self, tables: tuple[Array, ...]) -> Array:
        return np.array([np.einsum("pv,pvd->d", g, f) for g, f in zip(tables, self.features, strict=True)])
