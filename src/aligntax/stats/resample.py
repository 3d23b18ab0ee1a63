"""Error bars by recomputation: delete-one-group jackknife and the percentile bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aligntax.errors import AligntaxError


@dataclass(frozen=True)
class Estimate:
    """A number with its interval [low, high] and standard error, all in the unit of the value; nan is undefined."""

    value: float
    low: float
    high: float
    se: float


def jackknife(fn: Callable[[NDArray[np.int64]], float], groups: int, level: float = 0.9) -> Estimate:
    """Delete-one-group jackknife of `fn`, which maps the indices of the groups kept to a number.

    `se^2 = (J-1)/J sum_k (theta_(-k) - mean theta_(-k))^2`, interval `fn(all) -+ t_{J-1} se`. The value is `fn` on all
    groups, not bias-corrected. If `fn` is nan with a group left out, se and interval are nan. Needs J >= 2.

    >>> x = np.array([1.0, 2.0, 3.0, 4.0])
    >>> round(jackknife(lambda keep: x[keep].mean(), 4).se, 6)  # the textbook s / sqrt(n)
    0.645497
    """
    if groups < 2:
        raise AligntaxError(f"groups={groups}; the jackknife leaves one out and needs at least 2")
    every = np.arange(groups)
    value = float(fn(every))
    without = np.array([float(fn(np.delete(every, k))) for k in range(groups)])
    se = jackknife_se(without)
    half = t_quantile(level, groups - 1) * float(se)
    return Estimate(value, value - half, value + half, float(se))


def jackknife_se(without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard error from leave-one-out values on the last axis, (..., J) -> (...); nan wherever one of them is."""
    count = without.shape[-1]
    spread = without - without.mean(axis=-1, keepdims=True)
    return np.sqrt((count - 1) / count * (spread**2).sum(axis=-1))


def t_quantile(level: float, freedom: int) -> float:
    """Half-width, in standard errors, of a two-sided `level` interval with `freedom` degrees of freedom."""
    if not 0 < level < 1:
        raise AligntaxError(f"level={level}; give a fraction between 0 and 1, such as 0.9")
    return float(stats.t.ppf(0.5 + level / 2, freedom))


def bootstrap_interval(
    values: NDArray,
    statistic: Callable[[NDArray], float],
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.9,
) -> Estimate:
    """Percentile bootstrap over the first axis of `values` (n, ...): rows are the items resampled with replacement.

    Draws on which the statistic is nan (a resample without spread, say) are left out of se and interval; when they
    exceed 1 in 20, or when the statistic of the data itself is nan, se and interval are nan. Needs n >= 2, draws >= 2.
    """
    values = np.asarray(values)
    if values.ndim < 1 or len(values) < 2 or draws < 2:
        raise AligntaxError(f"values {values.shape}, draws={draws}; the bootstrap needs at least 2 items and 2 draws")
    if not 0 < level < 1:
        raise AligntaxError(f"level={level}; give a fraction between 0 and 1, such as 0.9")
    value = float(statistic(values))
    count = len(values)
    sample = np.array([float(statistic(values[rng.integers(count, size=count)])) for _ in range(draws)])
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or len(defined) < 0.95 * draws:
        return Estimate(value, np.nan, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), float(defined.std(ddof=1)))
