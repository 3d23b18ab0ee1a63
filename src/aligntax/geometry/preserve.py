"""Which capabilities to preserve so that two safety objectives conflict least ([G] §9.4)."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_vector, rank_tolerance, unit_rows, unit_vector
from aligntax.geometry.conflict import absolute_loss, preserving_helps
from aligntax.geometry.tax import basis, triangle

EXACT_UP_TO = 12


@dataclass(frozen=True)
class PreserveChoice:
    """Chosen task indices `tasks`, `rho` before and `rho_eff` after, `gain = rho_eff - rho >= 0`; loss per unit of
    budget.

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


def which_to_preserve(v1: Any, v2: Any, capabilities: Any) -> PreserveChoice:
    """Subset of tasks with the largest gain in `rho_eff`, the absolute loss beside it.

    Every subset up to 12 tasks, greedy beyond. Subsets that contain an objective (tax 1) are passed over; the empty
    subset is allowed. Raises GeometryError where an objective is zero.
    """
    first = unit_vector(v1, "v1")
    pair = np.stack([first, unit_vector(as_vector(v2, "v2", first.size), "v2")])
    units, _ = unit_rows(capabilities, "capabilities", first.size)
    rho = float(pair[0] @ pair[1])
    if 1.0 - abs(rho) <= 1e-12 and rho < 0.0:
        raise GeometryError("v1 and v2 are exactly opposite; no preserved capability changes that")
    short = triangle(np.concatenate([units, pair]))
    exact = len(units) <= EXACT_UP_TO
    rows, two = np.ascontiguousarray(short[:, :-2].T), np.ascontiguousarray(short[:, -2:].T)
    tasks = _best_subset(rows, two, rank_tolerance(capabilities, units.shape)) if exact else _greedy(rows, two)
    if not tasks:
        return PreserveChoice((), rho, rho, 0.0, 0.0, exact)
    verdict = preserving_helps(pair[0], pair[1], units[list(tasks)])
    loss = absolute_loss(pair, units[list(tasks)], 1.0)
    return PreserveChoice(tasks, rho, verdict.rho_eff, verdict.rho_eff - rho, loss, exact)
