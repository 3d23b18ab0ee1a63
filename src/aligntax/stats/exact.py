"""Tests whose p-values need no approximation, and the false discovery rate over many of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aligntax.errors import AligntaxError


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact McNemar p-value from the discordant pairs: items right before and wrong after, and the reverse.

    Under no change each discordant item is a fair coin: `min(1, 2 P(Binomial(lost+gained, 1/2) <= min))`. Items right
    or wrong both times carry no information; without discordant items p is 1. Raises AligntaxError on negative counts.
    """
    if lost < 0 or gained < 0:
        raise AligntaxError(f"lost={lost}, gained={gained}; counts of items cannot be negative")
    return min(1.0, 2.0 * float(stats.binom.cdf(min(lost, gained), lost + gained, 0.5)))


def benjamini_hochberg(p: NDArray) -> NDArray[np.float64]:
    """Adjusted p-values, (n,): rejecting those <= q keeps the false discovery rate at q (independent or positively
    dependent tests).

    Sorted ascending, `adjusted_(i) = min_{j >= i} n p_(j) / j`, at most 1; returned in input order. A nan (a test that
    is undefined) stays nan and is not counted in n. Raises AligntaxError outside [0, 1].
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or (p < 0).any() or (p > 1).any():
        raise AligntaxError(f"p of shape {p.shape}; give a list of p-values in [0, 1]")
    adjusted = np.full(len(p), np.nan)
    defined = np.flatnonzero(~np.isnan(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    steps = p[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0)
    return adjusted


def empirical_p(value: float, null: NDArray) -> float:
    """One-sided p-value against draws of a null, in (0, 1]: `(1 + #{null >= value}) / (1 + n)`; never 0.

    nan draws are undefined, not small, and are not counted in n. nan when the value is nan or no draw is defined.
    """
    draws = np.asarray(null, dtype=np.float64).ravel()
    draws = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(draws):
        return float("nan")
    return float((1 + np.count_nonzero(draws >= value)) / (1 + len(draws)))
