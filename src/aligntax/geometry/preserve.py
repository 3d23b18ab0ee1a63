"""Does preserving capabilities help two safety objectives, and which should be preserved ([G] Thm 6.4 corrected, §9.4)."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from aligntax.geometry.arrays import Array, rank_tolerance, unit_rows
from aligntax.geometry.conflict import correlations, hull_distance, outside, positive_budget, two_objectives
from aligntax.geometry.tax import basis, triangle

EXACT_UP_TO = 12
_EVEN = 1e-12  # a margin this small is rounding

Case = Literal["conflict removed", "suppressor", "worsened", "unchanged"]


@dataclass(frozen=True)
class Preserving:
    """Does preserving help two objectives? `helps` iff `margin = rho (1 - D) - mediated > 0`, `D =
    sqrt((1-tau_1)(1-tau_2))`, which is `rho_eff > rho`.

    `mediated = a^T G^+ b`, the part of `rho` carried by the capabilities. `case`: *conflict removed* (helps, mediated
    < 0: the capabilities set the objectives against each other), *suppressor* (helps although they link the objectives
    positively or not at all: they hid an agreement), *worsened*, *unchanged*. `absolute_loss >= 0`, unit of the budget:
    what the equal gain `min_i <v_i, delta>` loses by preserving, helped or not.
    """

    helps: bool
    rho: float
    rho_eff: float
    mediated: float
    margin: float
    case: Case
    absolute_loss: float


def preservation_effect(v1: Any, v2: Any, capabilities: Any, budget: float = 1.0) -> Preserving:
    """Whether preserving `capabilities` `(m, d)` improves the normalised frontier of `v1`, `v2` `(d,)` ([G] Thm 6.4,
    corrected).

    It does exactly when `rho_eff > rho`. The paper's part (i), that opposite-sign projections suffice, holds for
    `rho >= 0` or `|a| = |b|` and fails otherwise: `a = .1, b = -.9, rho = -.5` gives `rho_eff = -.945`. What improves
    is only the frontier of gains normalised by each objective's own reduced maximum; the absolute loss stands beside.
    Raises GeometryError where a tax is 1 and for a budget <= 0.

    >>> from aligntax.geometry import directions_with
    >>> effect = preservation_effect(*directions_with(rho=-0.5, a=0.1, b=-0.9))
    >>> effect.case, round(effect.rho_eff, 3)
    ('worsened', -0.945)
    """
    eps = positive_budget(budget)
    units, free = outside(two_objectives(v1, v2), capabilities)
    rho, rho_eff = float(units[0] @ units[1]), float(correlations(free)[0, 1])
    mediated = rho - float(free[0] @ free[1])
    margin = rho * (1.0 - float(np.prod(np.linalg.norm(free, axis=1)))) - mediated
    case: Case = "suppressor" if mediated >= 0.0 else "conflict removed"
    if margin <= _EVEN:
        case = "worsened" if margin < -_EVEN else "unchanged"
    loss = max(0.0, eps * (hull_distance(units) - hull_distance(free)))
    return Preserving(margin > _EVEN, rho, rho_eff, mediated, margin, case, loss)


@dataclass(frozen=True)
class PreserveChoice:
    """Chosen task indices `tasks`, `rho` before and `rho_eff` after, `gain = rho_eff - rho >= 0`; `absolute_loss` in
    the unit of the budget.

    `exact`: all subsets were searched; otherwise the choice is greedy and may miss tasks that help only together.
    """

    tasks: tuple[int, ...]
    rho: float
    rho_eff: float
    gain: float
    absolute_loss: float
    exact: bool


def _best_subset(rows: Array, pair: Array, rtol: float) -> tuple[int, ...]:
    """Exhaustive search; ties go to the smaller subset."""
    best = float(pair[0] @ pair[1]) + 1e-12
    chosen: tuple[int, ...] = ()
    for size in range(1, len(rows) + 1):
        for subset in combinations(range(len(rows)), size):
            span = basis(rows[list(subset)], rtol)
            free = pair - (pair @ span) @ span.T
            sizes = np.linalg.norm(free, axis=1)
            if sizes.min() <= 1e-9:
                continue
            rho = float(free[0] @ free[1] / sizes.prod())
            if rho > best + 1e-12:
                best, chosen = rho, subset
    return chosen


def _greedy(rows: Array, pair: Array) -> tuple[int, ...]:
    """Add the task that raises `rho_eff` most until none does; all rows are deflated by each choice, so a round is
    one product.
    """
    chosen: list[int] = []
    while True:
        sizes = np.linalg.norm(rows, axis=1)
        usable = sizes > 1e-9
        usable[chosen] = False
        units = rows / np.where(usable, sizes, 1.0)[:, None]
        a, b = units @ pair[0], units @ pair[1]
        left1, left2 = pair[0] @ pair[0] - a**2, pair[1] @ pair[1] - b**2
        usable &= (left1 > 1e-12) & (left2 > 1e-12)
        now = float(pair[0] @ pair[1] / np.sqrt((pair[0] @ pair[0]) * (pair[1] @ pair[1])))
        if not usable.any():
            return tuple(sorted(chosen))
        after = np.full(len(rows), -np.inf)
        after[usable] = (pair[0] @ pair[1] - (a * b)[usable]) / np.sqrt((left1 * left2)[usable])
        task = int(np.argmax(after))
        if after[task] <= now + 1e-12:
            return tuple(sorted(chosen))
        chosen.append(task)
        u = units[task]
        rows, pair = rows - np.outer(rows @ u, u), pair - np.outer(pair @ u, u)


def which_to_preserve(v1: Any, v2: Any, capabilities: Any, budget: float = 1.0) -> PreserveChoice:
    """Subset of tasks with the largest gain in `rho_eff`, the absolute loss beside it ([G] §9.4).

    Every subset up to 12 tasks, greedy beyond. Subsets that contain an objective (tax 1) are passed over; the empty
    subset is allowed, and is all there is for objectives that are exactly opposite. The choice is made to look good:
    score it on data that did not choose it. Raises GeometryError where an objective is zero or the budget <= 0.
    """
    eps = positive_budget(budget)
    pair = two_objectives(v1, v2)
    units, _ = unit_rows(capabilities, "capabilities", pair.shape[1])
    rho = float(np.clip(pair[0] @ pair[1], -1.0, 1.0))
    exact = len(units) <= EXACT_UP_TO
    tasks: tuple[int, ...] = ()
    if 1.0 - abs(rho) > _EVEN:  # parallel directions stay parallel; searching them would compare rounding
        short = triangle(np.concatenate([units, pair]))
        rows, two = np.ascontiguousarray(short[:, :-2].T), np.ascontiguousarray(short[:, -2:].T)
        tasks = _best_subset(rows, two, rank_tolerance(capabilities, units.shape)) if exact else _greedy(rows, two)
    if not tasks:
        return PreserveChoice((), rho, rho, 0.0, 0.0, exact)
    effect = preservation_effect(pair[0], pair[1], units[list(tasks)], eps)
    return PreserveChoice(tasks, rho, effect.rho_eff, effect.rho_eff - rho, effect.absolute_loss, exact)
