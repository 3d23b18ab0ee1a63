"""Numeric optimisation, enumeration and simulation for the geometry of one layer: no closed form of the theory in here.

Everything takes and returns plain arrays. Directions are used as they come; whoever asks brings unit vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse.linalg
import scipy.special
from numpy.typing import NDArray

Array = NDArray[np.float64]


def most_gain(v: Array, equal: tuple[Array, Array], least: tuple[Array, Array], cost: Array) -> tuple[float, Array]:
    """`max <v, x>` subject to `A x = b`, `B x >= c`, `x^T cost x <= 1`, by sequential quadratic programming from 0.

    `equal` is `(A (p, d), b (p,))`, `least` is `(B (q, d), c (q,))`; both may be empty.
    """
    constraints = [{"type": "ineq", "fun": lambda x: 1.0 - x @ cost @ x, "jac": lambda x: -2.0 * cost @ x}]
    for kind, (rows, right) in (("eq", equal), ("ineq", least)):
        if len(rows):
            constraints.append({"type": kind, "fun": lambda x, a=rows, b=right: a @ x - b, "jac": lambda x, a=rows: a})
    found = scipy.optimize.minimize(
        lambda x: -v @ x, np.zeros_like(v), jac=lambda x: -v, constraints=constraints, method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    return float(v @ found.x), np.asarray(found.x)


def in_ball(v: Array, rows: Array, changes: Array, eps: float) -> float:
    """`max <v, x>` subject to `rows x = changes`, `|x| <= eps`."""
    return most_gain(v, (rows, changes), (rows[:0], changes[:0]), np.eye(v.size) / eps**2)[0]


def share_inside(v: Array, rows: Array) -> float:
    """Share of `|v|^2` that combinations of `rows` reproduce: iterative least squares, any rank."""
    rest = scipy.sparse.linalg.lsqr(rows.T, v, atol=1e-15, btol=1e-15, iter_lim=2000)[3]
    return float(1.0 - rest**2 / (v @ v))


def best_multiple(v: Array, u: Array) -> float:
    """The `s` that minimises `|v - s u|^2`, by line search: for unit vectors their signed cosine."""
    return float(scipy.optimize.minimize_scalar(lambda s: float(np.sum((v - s * u) ** 2)), tol=1e-14).x)


def angles_between(rows: Array, others: Array) -> Array:
    """Principal angles between two row spaces in radians, ascending, by scipy."""
    return np.asarray(scipy.linalg.subspace_angles(rows.T, others.T)[::-1])


def dual_minimum(v: Array, rows: Array, tolerances: Array, eps: float) -> tuple[float, Array]:
    """`min_{l >= 0} eps |v + rows^T l| + <l, t>` by a bounded quasi-Newton method: value and `l`."""

    def dual(l: Array) -> tuple[float, Array]:
        rest = v + rows.T @ l
        size = float(np.linalg.norm(rest))
        return eps * size + float(l @ tolerances), eps * rows @ rest / size + tolerances

    found = scipy.optimize.minimize(
        dual, np.full(len(rows), 0.1), jac=True, bounds=[(0, None)] * len(rows), method="L-BFGS-B",
        options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 2000},
    )  # fmt: skip
    return float(found.fun), np.asarray(found.x)


def slope_along(metrics: Sequence[Callable[[Array], float]], at: Array, shift: Array, step: float = 1e-5) -> Array:
    """Change of every metric per unit of `shift`, by central differences."""
    return np.array([(m(at + step * shift) - m(at - step * shift)) / (2 * step) for m in metrics])


@dataclass(frozen=True)
class Chain:
    """A small autoregressive softmax model that reads a shift: `logits_t = weights[t] @ shift + bias[t, y_(t-1)]`.

    `weights` `(T, V, d)`, `bias` `(T, V, V)`; the token before the first is 0.
    """

    weights: Array
    bias: Array

    def _log(self, shift: Array) -> Array:
        logits = (self.weights @ shift)[:, None, :] + self.bias
        return logits - scipy.special.logsumexp(logits, axis=-1, keepdims=True)

    def kl(self, shift: Array) -> float:
        """`KL(base | shifted)` in nats of whole sequences, by enumerating them."""
        base, moved = self._log(np.zeros(self.weights.shape[-1])), self._log(shift)
        total = 0.0
        for tokens in product(range(self.bias.shape[-1]), repeat=len(self.bias)):
            before = (0, *tokens[:-1])
            here = [(t, a, b) for t, (a, b) in enumerate(zip(before, tokens, strict=True))]
            own, other = (sum(float(table[i]) for i in here) for table in (base, moved))
            total += np.exp(own) * (own - other)
        return float(total)

    def scores(self, rng: np.random.Generator, draws: int) -> Array:
        """`g = sum_t grad log p(y_t)` at shift 0 for sampled sequences, `(draws, d)`."""
        probs = np.exp(self._log(np.zeros(self.weights.shape[-1])))
        before, total = np.zeros(draws, dtype=int), np.zeros((draws, self.weights.shape[-1]))
        for t, table in enumerate(probs):
            now = (rng.random((draws, 1)) > np.cumsum(table, axis=-1)[before]).sum(axis=1)
            now = np.minimum(now, table.shape[-1] - 1)
            total += self.weights[t][now] - table[before] @ self.weights[t]
            before = now
        return total


def random_overlaps(r: int, d: int, draws: int, rng: np.random.Generator) -> Array:
    """Squared length of a fixed unit vector inside random `r`-dimensional subspaces of `d` dimensions, `(draws,)`."""
    frames = np.linalg.qr(rng.standard_normal((draws, d, r)))[0]
    return np.asarray((frames[:, 0] ** 2).sum(axis=-1))


def at_cosines(v: Array, cosines: Array, rng: np.random.Generator) -> Array:
    """Unit directions `(n, d)` at the given signed cosines to the unit vector `v`, random in every other respect."""
    aside = rng.standard_normal((len(cosines), v.size))
    aside -= np.outer(aside @ v, v)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosines[:, None] * v + np.sqrt(1 - cosines[:, None] ** 2) * aside)


def quadruple_mean(table: Array) -> float:
    """Mean of `M_ab M_cd` over a, b, c, d all different, one by one, for `M` `(J, J)`."""
    every = list(permutations(range(len(table)), 4))
    return float(np.mean([table[a, b] * table[c, d] for a, b, c, d in every]))


def pair_mean(v: Array, u: Array) -> float:
    """Mean of `<v_a, u_b>` over pairs of different groups, one by one, for `(J, d)` each."""
    return float(np.mean([v[a] @ u[b] for a, b in permutations(range(len(v)), 2)]))
