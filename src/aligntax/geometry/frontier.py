"""How much safety a budget buys when capability changes are fixed exactly ([G] Thm 4.1, 4.3, Cor 4.4, 4.7, §7.3,
§7.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector, rank_tolerance, unit_rows, unit_vector
from aligntax.geometry.tax import basis

_SLACK = 1e-9


def _checked_budget(budget: float) -> float:
    value = float(budget)
    if not (np.isfinite(value) and value >= 0.0):
        raise GeometryError(f"budget is {budget}; expected a finite number >= 0")
    return value


def task_name(index: int, names: Sequence[str] | None) -> str:
    """`task 3` or `task 3 (chemistry)`, for error messages."""
    return f"task {index}" if names is None else f"task {index} ({names[index]})"


def single_frontier(cos_theta: Any, change: Any, budget: Any) -> Any:
    """Most safety at capability change `c` of one task: `c cos(theta) + sin(theta) sqrt(eps^2 - c^2)` ([G] Thm 4.1).

    Arguments broadcast; a float comes back for scalars. Same unit as the budget. Raises GeometryError for `|c| > eps`
    or a cosine outside [-1, 1].

    >>> single_frontier(0.6, 0.0, 1.0)
    0.8
    """
    cos, c, eps = (as_array(x, n) for x, n in ((cos_theta, "cos_theta"), (change, "change"), (budget, "budget")))
    if (np.abs(cos) > 1.0 + _SLACK).any():
        raise GeometryError(f"cos_theta reaches {np.abs(cos).max()}; a cosine lies in [-1, 1]")
    if (eps < 0.0).any():
        raise GeometryError(f"budget reaches {eps.min()}; expected a number >= 0")
    if (np.abs(c) > eps * (1.0 + _SLACK)).any():
        raise GeometryError(f"change reaches {np.abs(c).max()} and exceeds the budget {eps.min()}; ask for less change")
    cos = np.clip(cos, -1.0, 1.0)
    sin = np.sqrt((1.0 - cos) * (1.0 + cos))
    gain = c * cos + sin * np.sqrt(np.maximum((eps - c) * (eps + c), 0.0))
    return float(gain) if gain.ndim == 0 else gain


def single_frontier_shift(safety: Any, capability: Any, change: float, budget: float) -> Array:
    """The shift `(d,)` that attains `single_frontier`: `c u + sqrt(eps^2 - c^2) (v - cos u)/sin`.

    For parallel directions (sin = 0) nothing is gained outside `u` and `c u` is returned.
    """
    return max_safety(safety, as_vector(capability, "capability")[None, :], [change], budget)[1]


@dataclass(frozen=True)
class _Constraint:
    """Unit rows with an orthonormal basis of their span and the part of `v` outside it."""

    v: Array
    units: Array
    span: Array
    free: Array  # P_C^perp v, exactly zero where it is rounding
    rtol: float

    @property
    def sine(self) -> float:
        return float(np.linalg.norm(self.free))

    def shifts(self, changes: Array) -> tuple[Array, Array]:
        """`c = U^+ b` for rows `b` `(n, m)` and the misfit `U c - b` `(n, m)`."""
        inner = self.units @ self.span
        solution = np.linalg.lstsq(inner, changes.T, rcond=self.rtol)[0] if inner.size else np.zeros((0, len(changes)))
        return (self.span @ solution).T, (inner @ solution).T - changes


def _constrain(safety: Any, capabilities: Any) -> _Constraint:
    v = unit_vector(safety, "safety")
    units, _ = unit_rows(capabilities, "capabilities", v.size)
    rtol = rank_tolerance(capabilities, units.shape)
    span = basis(units, rtol)
    free = v - span @ (span.T @ v)
    free = free - span @ (span.T @ free)  # once is not enough for a small remainder
    if np.linalg.norm(free) <= rtol:
        free = np.zeros_like(v)
    return _Constraint(v, units, span, free, rtol)


def _range_slack(rtol: float, changes: Array) -> Array:
    return max(_SLACK, 10 * rtol) * np.abs(changes).max(axis=1, initial=0.0)


def full_frontier(safety: Any, capabilities: Any, changes: Any, budget: float) -> Array:
    """Most safety `(n,)` for each row of task changes `b` `(n, m)`: `<v,c> + sqrt(eps^2-|c|^2) sqrt(1-tau)`, `c = U^+
    b`.

    [G] Thm 4.3 over many points at once, for drawing: a change that cannot be had is nan. `max_safety` raises
    instead.
    """
    eps = _checked_budget(budget)
    parts = _constrain(safety, capabilities)
    b = np.atleast_2d(as_array(changes, "changes"))
    if b.shape[1] != len(parts.units):
        raise GeometryError(f"changes has shape {b.shape}; expected (n, {len(parts.units)}), one change per task")
    c, misfit = parts.shifts(b)
    left = eps**2 - np.square(c).sum(axis=1)
    gain = c @ parts.v + np.sqrt(np.maximum(left, 0.0)) * parts.sine
    bad = (np.abs(misfit).max(axis=1, initial=0.0) > _range_slack(parts.rtol, b)) | (left < -_SLACK * eps**2)
    return np.where(bad, np.nan, gain)


def max_safety(
    safety: Any, capabilities: Any, changes: Any, budget: float, names: Sequence[str] | None = None
) -> tuple[float, Array]:
    """Most safety `<v, delta>` and the shift `(d,)` under `U delta = b`, `|delta| <= eps` ([G] Thm 4.3).

    Safety and rows of `U` are taken as unit vectors, so `changes` `(m,)` and gain share the unit of the budget. With
    `c = U^+ b`: `S* = <v,c> + sqrt(eps^2-|c|^2) sqrt(1-tau)`. Raises GeometryError, naming the binding task, when `b`
    is not in the range of `U` (dependent tasks asked for different changes) or `|c| > eps`.
    """
    eps = _checked_budget(budget)
    parts = _constrain(safety, capabilities)
    b = as_vector(changes, "changes", len(parts.units))
    rows, misfits = parts.shifts(b[None, :])
    c, misfit = rows[0], np.abs(misfits[0])
    if misfit.max(initial=0.0) > _range_slack(parts.rtol, b[None, :])[0]:
        worst = int(np.flatnonzero(misfit >= misfit.max() * (1 - 1e-6))[0])
        raise GeometryError(
            f"{task_name(worst, names)} cannot change by {b[worst]:.6g}: its direction depends on other tasks', "
            f"whose changes imply {b[worst] + misfits[0][worst]:.6g}; make them agree or drop one"
        )
    size = float(np.linalg.norm(c))
    if size > eps * (1.0 + _SLACK):
        share = (
            b * np.linalg.lstsq(parts.units @ parts.span, np.eye(len(b)), rcond=parts.rtol)[0].T @ (parts.span.T @ c)
        )
        worst = int(np.argmax(share))
        raise GeometryError(
            f"changes need a shift of {size:.6g} but the budget is {eps:.6g}; {task_name(worst, names)} "
            f"(change {b[worst]:.6g}) binds most; ask for less or raise the budget"
        )
    rest = np.sqrt(max((eps - size) * (eps + size), 0.0))
    shift = c + rest * parts.free / parts.sine if parts.sine > 0.0 else c
    return float(parts.v @ c + rest * parts.sine), np.asarray(shift)


def tax_free_safety(safety: Any, capabilities: Any, budget: float) -> float:
    """Most safety with no capability change at all: `eps sqrt(1 - tau)`, unit of the budget ([G] Cor 4.4)."""
    return _checked_budget(budget) * _constrain(safety, capabilities).sine


def subsidy_threshold(cos_target: float, tax: float, budget: float) -> float:
    """Largest `t` below which moving a capability by `t` along a target gains safety over the tax-free amount.

    `cos_target = <v, c^>` for the unit target `c^` inside the capability span, `tax = tau`. With `s = sqrt(1-tau)`:
    `2 a s eps/(a^2+s^2)` if `0 < a <= s`; the whole budget if `a > s`; 0 (no subsidy) if `a <= 0`. Unit of the
    budget. Extends [G] Cor 4.7.
    """
    a, eps = float(cos_target), _checked_budget(budget)
    if not (0.0 <= tax <= 1.0) or not a * a <= tax + _SLACK:
        raise GeometryError(
            f"cos_target {a} and tax {tax}: need 0 <= cos_target^2 <= tax <= 1, the target lies in the span"
        )
    s = float(np.sqrt(1.0 - tax))
    if a <= 0.0:
        return 0.0
    return eps if a > s else 2.0 * a * s * eps / (a * a + s * s)


def max_capability(safety: Any, capabilities: Any, weights: Any, budget: float) -> tuple[float, Array]:
    """Most of a weighted capability target at zero safety change, and its shift ([G] §7.5, the dual problem).

    Target `w = U^T omega / |U^T omega|` for `weights` omega `(m,)`; gain `eps sqrt(1 - <w,v>^2)` in the unit of the
    budget. Raises GeometryError when the weighted directions cancel.
    """
    v = unit_vector(safety, "safety")
    units, _ = unit_rows(capabilities, "capabilities", v.size)
    omega = as_vector(weights, "weights", len(units))
    target = omega @ units
    if np.linalg.norm(target) <= 1e-12 * np.abs(omega).sum():
        raise GeometryError(f"weights {omega.tolist()} make the capability directions cancel; no target is left")
    return max_safety(target, v[None, :], [0.0], budget)


@dataclass(frozen=True)
class LineGaps:
    """Gap of a straight line below two frontiers, `(n,)` each, unit of the shift: `full` and `matched` budget."""

    full: Array
    matched: Array


def straight_line_gaps(safety: Any, capabilities: Any, shift: Any, fractions: Any) -> LineGaps:
    """How far interpolation `alpha * shift` stays below the frontier ([G] §7.3, corrected).

    `full`: against `|delta| <= |shift|` at the same capability change, `>= 0` on [0, 1]. `matched`: against `|delta|
    <= alpha |shift|`, which is `alpha` times the endpoint's own gap, so 0 for an efficient endpoint. Raises
    GeometryError for fractions outside [0, 1].
    """
    parts = _constrain(safety, capabilities)
    delta = as_vector(shift, "shift", parts.v.size)
    alpha = np.atleast_1d(as_array(fractions, "fractions"))
    if ((alpha < 0.0) | (alpha > 1.0)).any():
        raise GeometryError(f"fractions reach from {alpha.min()} to {alpha.max()}; expected [0, 1]")
    c = parts.span @ (parts.span.T @ delta)
    eps2, c2, gain = float(delta @ delta), float(c @ c), float(parts.v @ delta)

    def best(a: Array) -> Array:
        return a * float(parts.v @ c) + np.sqrt(np.maximum(eps2 - a**2 * c2, 0.0)) * parts.sine

    return LineGaps(best(alpha) - alpha * gain, alpha * (best(np.ones(1)) - gain))
