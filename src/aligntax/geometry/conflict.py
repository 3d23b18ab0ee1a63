"""Several safety objectives under preserved capabilities ([G] §6, corrected).

Projecting capabilities out turns the cosine of two objectives into their partial correlation. That it improves says
nothing about absolute gains: preserving is a constraint, so the absolute equal gain never rises.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector, rank_tolerance, unit_rows, unit_vector
from aligntax.geometry.frontier import single_frontier
from aligntax.geometry.tax import basis, triangle

_CANCEL = 1e-12  # a convex combination of unit directions this short is rounding


def positive_budget(budget: float) -> float:
    """`budget` as a float. Raises GeometryError unless it is finite and > 0."""
    value = float(budget)
    if not (np.isfinite(value) and value > 0.0):
        raise GeometryError(f"budget is {budget}; expected a finite number > 0")
    return value


def outside(objectives: Any, capabilities: Any) -> tuple[Array, Array]:
    """Unit objectives `(k, d)` and their parts outside the capability span; a part that is only rounding is zero.

    Raises GeometryError for no objective, for a zero row, or for widths that differ.
    """
    if len(objectives) == 0:
        raise GeometryError("objectives is empty; give at least one direction")
    first = as_array(objectives[0], "objectives row 0")
    units, _ = unit_rows(objectives, "objectives", first.size)
    rows, _ = unit_rows(capabilities, "capabilities", first.size)
    rtol = rank_tolerance(capabilities, rows.shape)
    span = basis(rows, rtol)
    free = units - (units @ span) @ span.T
    free = free - (free @ span) @ span.T  # once is not enough for a small remainder
    free[np.linalg.norm(free, axis=1) <= rtol] = 0.0
    return units, free


def two_objectives(v1: Any, v2: Any) -> Array:
    """`v1` and `v2` as unit rows `(2, d)`; errors name the one that cannot be used."""
    first = unit_vector(v1, "v1")
    return np.stack([first, unit_vector(as_vector(v2, "v2", first.size), "v2")])


def correlations(free: Array) -> Array:
    """Cosines `(k, k)` of what objectives keep outside the span. Raises GeometryError where one keeps nothing."""
    sizes = np.linalg.norm(free, axis=1)
    if (sizes == 0.0).any():
        which = f"v{int(np.flatnonzero(sizes == 0.0)[0]) + 1}"
        raise GeometryError(
            f"{which} lies inside the capability span (tax 1), so rho_eff is undefined; preserve fewer tasks"
        )
    units = free / sizes[:, None]
    found = np.clip(units @ units.T, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return np.asarray(found)


def effective_correlation(v1: Any, v2: Any, capabilities: Any) -> float:
    """`rho_eff = (rho - a^T G^+ b)/sqrt((1-tau_1)(1-tau_2))` in [-1, 1]: cosine after projecting capabilities out
    ([G] Prop 6.5).

    The partial correlation of two objectives `(d,)` given capability rows `(m, d)`, which may be dependent. For
    numbers instead of directions see `directions_with`. Raises GeometryError where a tax is 1.

    >>> round(effective_correlation([1.0, 1.0, 0.0], [1.0, -1.0, 1.0], [[1.0, 0.0, 0.0]]), 6)
    -0.707107
    """
    return float(correlations(outside(two_objectives(v1, v2), capabilities)[1])[0, 1])


def effective_correlations(objectives: Any, capabilities: Any) -> Array:
    """`effective_correlation` of every pair of objectives `(k, d)`: symmetric `(k, k)` with ones on its diagonal ([G]
    Prop 6.5, any number of objectives).
    """
    return correlations(outside(objectives, capabilities)[1])


def conflict_frontier(rho_eff: Any, first_gain: Any) -> Any:
    """Second normalised gain given the first: `g1 rho_eff + sqrt(1-g1^2) sqrt(1-rho_eff^2)` ([G] Thm 6.1).

    Gains are fractions of each objective's own maximum `eps sqrt(1-tau_i)`; Pareto-efficient for `rho_eff <= g1 <=
    1`. `efficient_gains` gives the frontier of any number of objectives.
    """
    return single_frontier(rho_eff, first_gain, 1.0)


def nearest_in_hull(points: Array) -> tuple[Array, Array]:
    """Point of the convex hull of `points` `(k, d)` nearest to 0, and its weights `(k,) >= 0` summing to 1.

    `min |X^T w|^2 + (sum w - 1)^2` over `w >= 0` has the hull's nearest point as its direction: along a ray the
    optimum over scale increases in the distance.
    """
    short = triangle(points)
    weights, _ = scipy.optimize.nnls(np.vstack([short, np.ones(len(points))]), np.append(np.zeros(len(short)), 1.0))
    weights = weights / weights.sum()
    return weights @ points, weights


def hull_distance(points: Array) -> float:
    """`dist(0, conv)` of rows of length at most 1; 0 where they cancel up to rounding."""
    distance = float(np.linalg.norm(nearest_in_hull(points)[0]))
    return distance if distance > _CANCEL else 0.0


def equal_normalised_gain(rho_eff: Any) -> float:
    """`sqrt((1 + rho_eff)/2) = cos(theta_eff/2)` in [0, 1], the normalised gain both objectives can have ([G] Cor
    6.3).

    Given a `(k, k)` matrix of effective correlations, the share of its own maximum that every one of k objectives can
    have at once: `min sqrt(w^T R w)` over weights `w >= 0` summing to 1. Raises GeometryError for a number outside
    [-1, 1] and for a matrix that no directions have.
    """
    table = as_array(rho_eff, "rho_eff")
    if table.ndim == 0:
        if not -1.0 <= table <= 1.0:
            raise GeometryError(f"rho_eff is {rho_eff}; a cosine lies in [-1, 1]")
        return float(np.sqrt((1.0 + table) / 2.0))
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
        raise GeometryError(f"rho_eff has shape {table.shape}; expected a number or (k, k)")
    values, vectors = np.linalg.eigh((table + table.T) / 2.0)
    if np.abs(table - table.T).max() > 1e-9 or np.abs(np.diag(table) - 1.0).max() > 1e-9 or values[0] < -1e-9:
        raise GeometryError(f"rho_eff {table.tolist()} has smallest eigenvalue {values[0]:.3g}; no directions have it")
    return hull_distance(vectors * np.sqrt(np.maximum(values, 0.0)))


@dataclass(frozen=True)
class GainDecomposition:
    """`gains = budget * kept * alignment` `(k,)` ([G] Cor 6.6): `kept` `(k,)` is `sqrt(1-tau_i)`, `alignment` the
    equal normalised gain, `cos(theta_eff/2)` for two. `gains` in the unit of the budget.
    """

    gains: Array
    kept: Array
    alignment: float
    budget: float


def decompose_gains(objectives: Any, capabilities: Any, budget: float) -> GainDecomposition:
    """Gains at equal normalised gain, split into budget, each objective's tax and their conflict ([G] Cor 6.6).

    `objectives` `(k, d)`, `capabilities` `(m, d)`. With three or more, some objectives may gain more than their entry
    at no cost to the others. Raises GeometryError for a budget <= 0 and where a tax is 1.
    """
    eps = positive_budget(budget)
    free = outside(objectives, capabilities)[1]
    together = correlations(free)
    alignment = equal_normalised_gain(together[0, 1] if len(free) == 2 else together)
    kept = np.linalg.norm(free, axis=1)
    return GainDecomposition(eps * kept * alignment, kept, alignment, eps)


def equal_gain(objectives: Any, capabilities: Any, budget: float) -> tuple[float, Array]:
    """Largest gain that every objective can have at once with capabilities unchanged, and the shift that attains it.

    `max_delta min_i <v_i, delta> = eps dist(0, conv{P^perp v_i})` over `U delta = 0`, `|delta| <= eps`. `objectives`
    `(k, d)` are taken as unit rows, any `k >= 1`; gain and shift `(d,)` in the unit of the budget. Both are 0 where
    the objectives cancel or one of them lies inside the span. Raises GeometryError for a budget <= 0 (beyond [G] §6:
    the paper compares gains normalised by each objective's own maximum).

    >>> gain, shift = equal_gain([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]], 2.0)
    >>> round(gain, 6), shift.round(6).tolist()
    (1.414214, [1.414214, 1.414214, 0.0])
    """
    eps = positive_budget(budget)
    free = outside(objectives, capabilities)[1]
    nearest, _ = nearest_in_hull(free)
    distance = float(np.linalg.norm(nearest))
    if distance <= _CANCEL:
        return 0.0, np.zeros_like(nearest)
    return eps * distance, eps * nearest / distance


def binding_weights(objectives: Any, capabilities: Any) -> Array:
    """Weights `(k,) >= 0` summing to 1 of the objectives in `equal_gain`'s shift: one with weight 0 does not bind.

    They are prices: letting objective i fall one unit short raises the common gain of the others by `w_i`.
    """
    return nearest_in_hull(outside(objectives, capabilities)[1])[1]


def efficient_gains(objectives: Any, capabilities: Any, weights: Any, budget: float) -> tuple[Array, Array]:
    """Gains `(k,)` of the Pareto-efficient shift for `weights` `(k,) >= 0`, and the shift `(d,)` ([G] Thm 6.1, any
    number of objectives).

    The shift maximises `sum w_i <v_i, delta>`; over all weights these shifts are the whole frontier, since what can
    be gained is convex. Unit of the budget. Raises GeometryError for a negative weight, a budget <= 0, and where the
    weighted objectives cancel, so that every shift is as good.
    """
    eps = positive_budget(budget)
    units, free = outside(objectives, capabilities)
    w = as_vector(weights, "weights", len(units))
    pull = w @ free
    size = float(np.linalg.norm(pull))
    if (w < 0.0).any() or size <= _CANCEL * np.abs(w).sum():
        raise GeometryError(f"weights {w.tolist()} are negative or make the objectives cancel; choose others")
    shift = eps * pull / size
    return units @ shift, shift


def absolute_loss(objectives: Any, capabilities: Any, budget: float) -> float:
    """What preserving costs in absolute equal gain: `eps [dist(0, conv{v_i}) - dist(0, conv{P^perp v_i})] >= 0`.

    Unit of the budget. Raises GeometryError for a budget <= 0.
    """
    units, free = outside(objectives, capabilities)
    return max(0.0, positive_budget(budget) * (hull_distance(units) - hull_distance(free)))
