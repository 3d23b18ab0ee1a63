"""Most safety when each task may lose at most its tolerance and gains are welcome.

`max <v, delta>  s.t.  U delta >= -t, |delta| <= eps`, with dual `S*(t) = min_{l >= 0} eps |v + U^T l| + <l, t>`. The
multipliers are shadow prices: one more unit of tolerance on task i buys `l_i` of safety. Everything is solved in the
span of `v` and the rows, of dimension at most `m + 1`, for which one QR factorisation is the only work that grows
with `d`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, to_numpy, unit_rows, unit_vector
from aligntax.geometry.frontier import task_name

_TIGHT = 1e-8  # of the budget: a constraint this close to equality counts as active
_NULL = 1e-9


@dataclass(frozen=True)
class ToleranceSolution:
    """Optimum under tolerances.

    `gain`: safety, `<v, shift>`. `shift` `(d,)`. `active` `(m,)` bool: the task's constraint holds with equality.
    `prices` `(m,) >= 0`: gain per unit of tolerance. `budget_price >= 0`: gain per unit of budget, `|v + U^T l|`, 0
    where the budget is slack. `price_low` is the gain per unit of *more* tolerance and `price_high` the loss per unit
    of *less* (`inf`: less is infeasible); they differ where active tasks depend on each other.
    """

    gain: float
    shift: Array
    active: np.ndarray
    prices: Array
    budget_price: float
    price_low: Array
    price_high: Array


@dataclass(frozen=True)
class _Problem:
    """The reduced problem at budget 1: `max <v,y>, U y >= -t, |y| <= 1`."""

    v: Array
    units: Array
    t: Array


@dataclass(frozen=True)
class _Point:
    y: Array
    prices: Array
    ball: float


def _tolerances(values: Any, count: int) -> Array:
    t = np.asarray(to_numpy(values), dtype=np.float64)
    if t.shape != (count,) or np.isnan(t).any() or (t == -np.inf).any():
        raise GeometryError(
            f"tolerances {t.tolist()} must be {count} numbers, one per task; inf leaves a task unprotected"
        )
    return t


def least_shift(units: Array, demands: Array) -> tuple[Array | None, Array]:
    """Shortest `y` with `U y >= h` and the weight of each row in forcing it; None where no `y` of any length exists.

    Least-distance programming through non-negative least squares (Lawson and Hanson, ch. 23).
    """
    stacked = np.vstack([units.T, demands[None, :]])
    goal = np.zeros(stacked.shape[0])
    goal[-1] = 1.0
    weights, _ = scipy.optimize.nnls(stacked, goal, maxiter=30 * stacked.shape[1] + 100)
    residual = stacked @ weights - goal
    if -residual[-1] <= 1e-12:
        return None, weights * demands
    return -residual[:-1] / residual[-1], weights * demands


def _check_feasible(problem: _Problem, names: Sequence[str] | None, index: np.ndarray, budget: float) -> Array | None:
    """None when the inside is reachable; the only feasible point when the demands just fit; else raises."""
    if (problem.t >= 0.0).all():
        return None
    least, share = least_shift(problem.units, -problem.t)
    worst = int(np.argmax(share))
    who = f"{task_name(int(index[worst]), names)} (tolerance {problem.t[worst] * budget:.6g})"
    if least is None:
        raise GeometryError(f"tolerances contradict each other whatever the budget; {who} binds most; relax it")
    size = float(np.linalg.norm(least))
    if size > 1.0 + _NULL:
        raise GeometryError(
            f"tolerances need a shift of {size * budget:.6g} but the budget is {budget:.6g}; {who} binds most; relax it"
        )
    return least if size > 1.0 - _NULL else None


def _solve_cone(problem: _Problem) -> _Point:
    """General tolerances by interior point: variables `y`, rows `-U y <= t` and the second-order cone `(1, y)`."""
    n, m = problem.v.size, problem.t.size
    matrix = scipy.sparse.csc_matrix(np.vstack([-problem.units, np.zeros((1, n)), -np.eye(n)]))
    right = np.concatenate([problem.t, [1.0], np.zeros(n)])
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    cones = [clarabel.NonnegativeConeT(m), clarabel.SecondOrderConeT(n + 1)]
    empty = scipy.sparse.csc_matrix((n, n))
    answer = clarabel.DefaultSolver(empty, -problem.v, matrix, right, cones, settings).solve()
    if answer.status not in (clarabel.SolverStatus.Solved, clarabel.SolverStatus.AlmostSolved):
        raise GeometryError(f"no optimum found for tolerances {problem.t.tolist()} at budget 1: {answer.status}")
    dual = np.asarray(answer.z)
    return _Point(np.asarray(answer.x), np.maximum(dual[:m], 0.0), float(dual[m]))


def _solve_zero(problem: _Problem) -> _Point:
    """All tolerances zero: `l` is the non-negative least-squares solution of `min |v + U^T l|`, and `y` its unit
    residual.
    """
    if problem.t.size == 0:  # scipy's routine aborts the process when there is no column
        return _Point(problem.v / np.linalg.norm(problem.v), problem.t, float(np.linalg.norm(problem.v)))
    prices, _ = scipy.optimize.nnls(problem.units.T, -problem.v, maxiter=30 * problem.t.size + 100)
    rest = problem.v + problem.units.T @ prices
    ball = float(np.linalg.norm(rest))
    if ball <= 1e-12:
        return _Point(np.zeros_like(rest), prices, 0.0)
    return _Point(rest / ball, prices, ball)


def _polish(problem: _Problem, rough: _Point) -> _Point:
    """Solve the optimality conditions exactly on the active set the interior point found; keep only what verifies.

    With the active rows as equalities the optimum is [G] Thm 4.3, and prices are the non-negative solution of `U_A^T
    l = kappa y - v`.
    """
    active = rough.prices > problem.units @ rough.y + problem.t
    rows = problem.units[active]
    c = np.linalg.lstsq(rows, -problem.t[active], rcond=1e-12)[0] if active.any() else np.zeros_like(problem.v)
    span = scipy.linalg.orth(rows.T, rcond=1e-12) if active.any() else np.zeros((problem.v.size, 0))
    free = problem.v - span @ (span.T @ problem.v)
    sine, left = float(np.linalg.norm(free)), 1.0 - float(c @ c)
    if sine < 1e-7 or left < 1e-12:
        return rough
    y = c + np.sqrt(left) * free / sine
    ball = sine / np.sqrt(left)
    prices = np.zeros_like(problem.t)
    misfit = 0.0
    if active.any():
        prices[active], misfit = scipy.optimize.nnls(rows.T, ball * y - problem.v, maxiter=30 * len(rows) + 100)
    if misfit > 1e-9 * (1 + ball) or (problem.units @ y + problem.t).min(initial=0.0) < -1e-10:
        return rough
    return _Point(y, prices, ball)


def _price_intervals(problem: _Problem, point: _Point) -> tuple[Array, Array]:
    """Smallest and largest price of each task over all optimal multipliers, by small linear programs.

    These are `(l, kappa) >= 0` on the tight rows with `U_A^T l - kappa y = -v`: the found one plus the null space of
    that system. A task outside the null space has one price and needs no program.
    """
    low, high = point.prices.copy(), point.prices.copy()
    tight = np.flatnonzero(problem.units @ point.y + problem.t <= _TIGHT)
    if tight.size == 0:
        return low, high
    on_sphere = np.linalg.norm(point.y) > 1.0 - _TIGHT
    columns = problem.units[tight].T
    start = np.maximum(point.prices[tight], 0.0)
    if on_sphere:
        columns, start = np.column_stack([columns, -point.y]), np.append(start, point.ball)
    null = scipy.linalg.null_space(columns, rcond=_NULL)
    for row, task in enumerate(tight):
        if null.shape[1] == 0 or np.abs(null[row]).max() <= _NULL * 10:
            continue
        for sign, ends in ((1.0, low), (-1.0, high)):
            answer = scipy.optimize.linprog(
                sign * null[row], A_ub=-null, b_ub=start, bounds=(None, None), method="highs"
            )
            ends[task] = max(0.0, start[row] + null[row] @ answer.x) if answer.success else np.inf
    return low, high


def max_safety_with_tolerances(
    safety: Any, capabilities: Any, tolerances: Any, budget: float, names: Sequence[str] | None = None
) -> ToleranceSolution:
    """Most safety when task i may lose at most `t_i`: `max <v,delta>  s.t.  U delta >= -t, |delta| <= eps`.

    Safety and capability rows are taken as unit vectors; `tolerances` `(m,)`, gain and shift share the unit of the
    budget. `inf` leaves a task unprotected; a negative tolerance demands a gain. Non-negative least squares where all
    tolerances are 0, a conic program otherwise. Raises GeometryError for a budget that is not positive and, naming
    the binding task, for demands that cannot be met. Where demands only just fit the budget there is one feasible
    point, and prices are nan.

    >>> solution = max_safety_with_tolerances([1.0, 0.0], [[-0.6, 0.8]], [0.0], 1.0)
    >>> round(solution.gain, 12), [round(float(p), 12) for p in solution.prices]
    (0.8, [0.6])
    """
    if not (np.isfinite(budget) and budget > 0.0):
        raise GeometryError(f"budget is {budget}; expected a finite number > 0")
    v = unit_vector(safety, "safety")
    units, _ = unit_rows(capabilities, "capabilities", v.size)
    t = _tolerances(tolerances, len(units))
    index = np.flatnonzero(np.isfinite(t))
    frame, short = np.linalg.qr(np.vstack([units[index], v]).T)
    problem = _Problem(short[:, -1], np.ascontiguousarray(short[:, :-1].T), t[index] / budget)
    only = _check_feasible(problem, names, index, budget)
    if only is not None:
        unknown = np.full(index.size, np.nan)
        point, low, high = _Point(only, unknown, float("nan")), unknown, unknown
    else:
        point = _solve_zero(problem) if not problem.t.any() else _polish(problem, _solve_cone(problem))
        low, high = _price_intervals(problem, point)
    active = np.zeros(t.size, dtype=bool)
    active[index] = problem.units @ point.y + problem.t <= _TIGHT
    spread = np.zeros((3, t.size))
    spread[:, index] = point.prices, low, high
    shift = budget * (frame @ point.y)
    return ToleranceSolution(
        float(budget * (problem.v @ point.y)), shift, active, spread[0], point.ball, spread[1], spread[2]
    )
