"""Does a predictor go with an outcome? Correlation, a slope through the origin, and how well a score tells two classes apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.resample import Estimate, bootstrap_interval


def pearson(x: NDArray, y: NDArray, rng: np.random.Generator, draws: int = 2000, level: float = 0.9) -> Estimate:
    """Pearson correlation in [-1, 1] of paired `x` (n,) and `y` (n,), percentile bootstrap interval over pairs.

    nan when x or y does not vary. Raises AligntaxError on unequal lengths, nan, or fewer than 3 pairs: any two points
    correlate perfectly.
    """
    return bootstrap_interval(_pairs(x, y, 3), _correlation, rng, draws, level)


def slope_through_origin(
    x: NDArray, y: NDArray, rng: np.random.Generator, draws: int = 2000, level: float = 0.9
) -> Estimate:
    """Least-squares slope without intercept, `<x,y>/<x,x>`, in units of y per x, bootstrap interval over pairs.

    nan when all x are 0. Raises AligntaxError on unequal lengths, nan, or fewer than 2 pairs.
    """
    return bootstrap_interval(_pairs(x, y, 2), _slope, rng, draws, level)


def area_under_curve(score: ArrayLike, share: ArrayLike, weights: ArrayLike | None = None) -> float:
    """AUC in [0, 1]: chance that a positive scores above a negative, ties one half (Mann-Whitney); nan where all are alike.

    `score` (n,); `share` (n,) in [0, 1], how much of each entry is positive: 0 or 1 for labels, between them for an entry that
    stands for several outcomes; `weights` (n,), how often each entry counts.

    >>> area_under_curve([0.1, 0.4, 0.9], [0.0, 0.5, 1.0])
    0.9444444444444444
    """
    part = np.asarray(share, dtype=np.float64)
    count = np.ones(len(part)) if weights is None else np.asarray(weights, dtype=np.float64)
    _, rank = np.unique(score, return_inverse=True)
    positive = np.bincount(rank, weights=count * part)
    negative = np.bincount(rank, weights=count * (1 - part))
    pairs = positive.sum() * negative.sum()
    if not pairs > 0:
        return float("nan")
    return float((positive * (np.cumsum(negative) - negative / 2)).sum() / pairs)


def _pairs(x: NDArray, y: NDArray, minimum: int) -> NDArray[np.float64]:
    """Stack to (n, 2), refusing what has no answer."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < minimum:
        raise AligntaxError(f"x {x.shape} and y {y.shape}; give two equally long lists of at least {minimum} numbers")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise AligntaxError("x or y holds nan or infinity; leave those pairs out and say how many")
    return np.stack([x, y], axis=1)


def _correlation(pairs: NDArray[np.float64]) -> float:
    # A constant column leaves residue of the order of rounding, which must not be read as spread.
    centred = pairs - pairs.mean(axis=0)
    norms = np.sqrt((centred**2).sum(axis=0))
    if (norms <= 1e-12 * np.sqrt((pairs**2).sum(axis=0))).any():
        return float("nan")
    return float(np.clip(centred[:, 0] @ centred[:, 1] / norms.prod(), -1.0, 1.0))


def _slope(pairs: NDArray[np.float64]) -> float:
    square = float(pairs[:, 0] @ pairs[:, 0])
    return float(pairs[:, 0] @ pairs[:, 1]) / square if square > 0 else float("nan")
