"""Several safety objectives under preserved capabilities ([G] §6, corrected).

Projecting capabilities out turns the cosine of two objectives into their partial correlation. That it improves says
nothing about absolute gains: preserving is a constraint, so the absolute equal gain never rises; the loss stands
beside every verdict.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.optimize

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_vector, rank_tolerance, unit_rows, unit_vector
from aligntax.geometry.frontier import single_frontier
from aligntax.geometry.tax import basis, triangle

Case = Literal["conflict removed", "suppressor", "worsened", "unchanged"]


def _projected(safeties: Any, capabilities: Any, width: int) -> tuple[Array, Array]:
    """Unit objectives `(k, d)` and their parts outside the capability span; a part that is only rounding is zero."""
    units, _ = unit_rows(safeties, "safeties", width)
    rows, _ = unit_rows(capabilities, "capabilities", width)
    rtol = rank_tolerance(capabilities, rows.shape)
    span = basis(rows, rtol)
    free = units - (units @ span) @ span.T
    free = free - (free @ span) @ span.T
    free[np.linalg.norm(free, axis=1) <= rtol] = 0.0
    return units, free


def _pair(v1: Any, v2: Any) -> Array:
    first = unit_vector(v1, "v1")
    return np.stack([first, unit_vector(as_vector(v2, "v2", first.size), "v2")])


def _effective(free: Array) -> float:
    sizes = np.linalg.norm(free, axis=1)
    if (sizes == 0.0).any():
        which = f"v{int(np.flatnonzero(sizes == 0.0)[0]) + 1}"
        raise GeometryError(
            f"{which} lies inside the capability span (tax 1), so rho_eff is undefined; preserve fewer tasks"
        )
    return float(np.clip(free[0] @ free[1] / (sizes[0] * sizes[1]), -1.0, 1.0))


def effective_correlation(v1: Any, v2: Any, capabilities: Any) -> float:
    """`rho_eff = (rho - a^T G^+ b)/sqrt((1-tau_1)(1-tau_2))` in [-1, 1]: cosine after projecting capabilities out
    ([G] Prop 6.5).

    Raises GeometryError where a tax is 1.
    """
    pair = _pair(v1, v2)
    return _effective(_projected(pair, capabilities, pair.shape[1])[1])


def conflict_frontier(rho_eff: Any, first_gain: Any) -> Any:
    """Second normalised gain given the first: `g1 rho_eff + sqrt(1-g1^2) sqrt(1-rho_eff^2)` ([G] Thm 6.1).

    Gains are fractions of each objective's own maximum `eps sqrt(1-tau_i)`; Pareto-efficient for `rho_eff <= g1 <=
    1`.
    """
    return single_frontier(rho_eff, first_gain, 1.0)


def equal_normalised_gain(rho_eff: float) -> float:
    """`sqrt((1 + rho_eff)/2) = cos(theta_eff/2)` in [0, 1], the normalised gain both objectives can have ([G] Cor
    6.3).
    """
    if not -1.0 <= rho_eff <= 1.0:
        raise GeometryError(f"rho_eff is {rho_eff}; a cosine lies in [-1, 1]")
    return float(np.sqrt((1.0 + rho_eff) / 2.0))


@dataclass(frozen=True)
class GainDecomposition:
    """`gains = budget * kept * alignment` ([G] Cor 6.6): `kept` `(2,)` is `sqrt(1-tau_i)`, `alignment` is
    `cos(theta_eff/2)`.
    """

    gains: Array
    kept: Array
    alignment: float
    budget: float


def decompose_gains(v1: Any, v2: Any, capabilities: Any, budget: float) -> GainDecomposition:
    """Gains at equal normalised gain, split into budget, each objective's tax and their conflict ([G] Cor 6.6)."""
    pair = _pair(v1, v2)
    free = _projected(pair, capabilities, pair.shape[1])[1]
    kept, alignment = np.linalg.norm(free, axis=1), equal_normalised_gain(_effective(free))
    return GainDecomposition(budget * kept * alignment, kept, alignment, budget)


@dataclass(frozen=True)
class EqualGain:
    """`gain = max_delta min_i <v_i, delta>`, the `shift` `(d,)` that attains it and the hull weights `(k,)` summing
    to 1.
    """

    gain: float
    shift: Array
    weights: Array


def _nearest_in_hull(points: Array) -> tuple[Array, Array]:
    """Point of `conv` nearest to 0 and its weights.

    `min |X^T w|^2 + (sum w - 1)^2` over `w >= 0` has the hull's nearest point as its direction: along a ray the
    optimum over scale increases in the distance.
    """
    short = triangle(points)
    weights, _ = scipy.optimize.nnls(np.vstack([short, np.ones(len(points))]), np.append(np.zeros(len(short)), 1.0))
    weights = weights / weights.sum()
    return weights @ points, weights


def _equal(points: Array, budget: float) -> EqualGain:
    nearest, weights = _nearest_in_hull(points)
    distance = float(np.linalg.norm(nearest))
    if distance <= 1e-12:
        return EqualGain(0.0, np.zeros_like(nearest), weights)
    return EqualGain(budget * distance, budget * nearest / distance, weights)


def equal_absolute_gain(safeties: Any, capabilities: Any, budget: float) -> EqualGain:
    """Largest gain every objective can have at once with capabilities unchanged: `eps dist(0, conv{P^perp v_i})`.

    `safeties` `(k, d)` are taken as unit rows, any `k >= 1`; unit of the budget; 0 where the objectives cancel.
    """
    if len(safeties) == 0:
        raise GeometryError("safeties is empty; give at least one objective")
    return _equal(_projected(safeties, capabilities, len(safeties[0]))[1], budget)


def absolute_loss(safeties: Any, capabilities: Any, budget: float) -> float:
    """What preserving costs in absolute equal gain: `eps [dist(0, conv{v_i}) - dist(0, conv{P^perp v_i})] >= 0`."""
    units, free = _projected(safeties, capabilities, len(safeties[0]))
    return max(0.0, _equal(units, budget).gain - _equal(free, budget).gain)


@dataclass(frozen=True)
class Preserving:
    """Does preserving help two objectives? `helps` iff `margin = rho (1 - D) - mediated > 0`, `D =
    sqrt((1-tau_1)(1-tau_2))`.

    `mediated = a^T G^+ b`, the part of `rho` carried by the capabilities. `case`: *conflict removed* (helps, mediated
    < 0), *suppressor* (helps although the capabilities link the objectives positively or not at all), *worsened*,
    *unchanged*. `absolute_loss` per unit of budget.
    """

    helps: bool
    rho: float
    rho_eff: float
    mediated: float
    margin: float
    case: Case
    absolute_loss: float


def preserving_helps(v1: Any, v2: Any, capabilities: Any) -> Preserving:
    """Exact condition of [G] Thm 6.4, corrected: the normalised frontier improves iff `rho_eff > rho`.

    Opposite-sign projections do not suffice when `rho < 0`. Raises GeometryError where a tax is 1.
    """
    pair = _pair(v1, v2)
    units, free = _projected(pair, capabilities, pair.shape[1])
    rho, rho_eff = float(units[0] @ units[1]), _effective(free)
    mediated = rho - float(free[0] @ free[1])
    margin = rho * (1.0 - float(np.prod(np.linalg.norm(free, axis=1)))) - mediated
    case: Case = "suppressor" if mediated >= 0.0 else "conflict removed"
    if margin <= 1e-12:
        case = "worsened" if margin < -1e-12 else "unchanged"
    loss = max(0.0, _equal(units, 1.0).gain - _equal(free, 1.0).gain)
    return Preserving(margin > 1e-12, rho, rho_eff, mediated, margin, case, loss)
