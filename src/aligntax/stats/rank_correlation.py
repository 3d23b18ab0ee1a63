"""Rank correlation of many rows at once, and what the best of many unrelated ones reaches by luck."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from aligntax.errors import AligntaxError

Array = NDArray[np.float64]


def unit_ranks(values: ArrayLike) -> Array:
    """Centred ranks along the last axis `(..., n)`, scaled to length 1, mean ranks for ties; nan for a row that does not vary.

    The inner product of two such rows is Spearman's correlation.
    """
    ranks = rankdata(np.asarray(values, dtype=np.float64), axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.where(length > 0, length, np.nan))


def spearman(x: ArrayLike, y: ArrayLike) -> Array:
    """Rank correlation in [-1, 1] along the last axis, other axes broadcast; nan where x or y does not vary.

    Raises AligntaxError for fewer than three values, unequal lengths or numbers that are not finite.

    >>> float(spearman([1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 40.0, 30.0]))
    0.8
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-1] or a.shape[-1] < 3:
        raise AligntaxError(f"x {a.shape} and y {b.shape}; give at least three pairs along the last axis")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise AligntaxError("x or y holds nan or infinity; leave those pairs out and say how many")
    return np.round((unit_ranks(a) * unit_ranks(b)).sum(axis=-1), 12)


def best_of_unrelated(
    predictors: int, tasks: int, reached: float, rng: np.random.Generator, draws: int = 4000
) -> float:
    """Share of null draws in which the best of `predictors` unrelated rankings of `tasks` tasks correlates at least `reached`.

    Why a predictor is chosen on some tasks and scored on others: with 48 of them and ten tasks, .71 is no surprise.
    """
    order = unit_ranks(np.arange(tasks, dtype=np.float64))
    found = 0
    for _ in range(draws):
        guesses = rng.permuted(np.tile(order, (predictors, 1)), axis=1)
        found += bool((guesses @ order).max() >= reached - 1e-9)
    return found / draws
