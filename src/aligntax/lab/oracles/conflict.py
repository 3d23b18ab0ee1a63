"""Numeric optimisation, exhaustive search and rejection sampling for several safety objectives."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .geometry import in_ball, most_gain

Array = NDArray[np.float64]


def leftovers(objectives: Array, rows: Array) -> Array:
    """What least squares on `rows` leaves of every objective `(k, d)`; any rank."""
    return np.asarray(objectives - np.linalg.lstsq(rows.T, objectives.T, rcond=1e-10)[0].T @ rows)


def partial_correlation(v1: Array, v2: Array, rows: Array) -> float:
    """From the inverse of the Gram matrix of both objectives and all (independent) rows: `-P_12 / sqrt(P_11 P_22)`."""
    every = np.vstack([v1, v2, rows])
    precision = np.linalg.inv(every @ every.T)
    return float(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))


def max_min(objectives: Array, rows: Array, eps: float, scales: Array) -> tuple[float, Array]:
    """`max min_i <v_i, x> / scales_i` subject to `rows x = 0`, `|x| <= eps`: value and `x`, by numeric optimisation."""
    k, d = objectives.shape
    aim, cost = np.append(np.zeros(d), 1.0), np.zeros((d + 1, d + 1))
    cost[:d, :d] = np.eye(d) / eps**2
    least = np.hstack([objectives / scales[:, None], -np.ones((k, 1))])
    still = np.hstack([rows, np.zeros((len(rows), 1))])
    gain, found = most_gain(aim, (still, np.zeros(len(rows))), (least, np.zeros(k)), cost)
    return gain, found[:d]


def own_maxima(objectives: Array, rows: Array, eps: float) -> Array:
    """The most each objective can have on its own with `rows x = 0`, `|x| <= eps`, `(k,)`."""
    return np.array([in_ball(v, rows, np.zeros(len(rows)), eps) for v in objectives])


def best_subset(v1: Array, v2: Array, rows: Array) -> tuple[float, tuple[int, ...]]:
    """Largest cosine of what least squares on a subset of `rows` leaves of both, over all subsets; and the subset."""
    pair = np.stack([v1, v2])
    best = -np.inf
    chosen: tuple[int, ...] = ()
    for size in range(len(rows) + 1):
        for subset in combinations(range(len(rows)), size):
            left = leftovers(pair, rows[list(subset)]) if subset else pair
            value = float(left[0] @ left[1] / np.prod(np.linalg.norm(left, axis=1)))
            if value > best + 1e-12:
                best, chosen = value, subset
    return best, chosen


def feasible_draws(rng: np.random.Generator, count: int) -> Array:
    """`(count, 3)` draws of `(rho, a, b)`, uniform among those that three unit vectors can have (by eigenvalues)."""
    kept: list[Array] = []
    while len(kept) < count:
        rho, a, b = rng.uniform(-1, 1, size=3)
        if np.linalg.eigvalsh([[1, rho, a], [rho, 1, b], [a, b, 1]])[0] > 1e-9:
            kept.append(np.array([rho, a, b]))
    return np.array(kept)


def realised(rho: float, a: float, b: float) -> Array:
    """Three unit vectors `(3, 3)`, two objectives and a capability, with these cosines: a Cholesky factor."""
    return np.asarray(np.linalg.cholesky(np.array([[1, rho, a], [rho, 1, b], [a, b, 1.0]])))
