"""Weighted least squares on few points, with bootstrap intervals that know how few they are.

Resampled pairs fail on a grid of five or six points (a resample may hold two), so residuals are resampled, studentised by
leverage and with random signs, and every refit is scaled by its own residual spread: a bootstrap-t. With normal errors
this is the t interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.resample import Estimate, t_quantile

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LineFit:
    """`coefficients` (p,) of the fit, `draws` (n, p) of them that stand for what is not known, `freedom = points - p`."""

    coefficients: Array
    draws: Array
    freedom: int

    def estimate(self, quantity: Callable[[Array], Array], level: float) -> Estimate:
        """A quantity (..., p) -> (...) of the coefficients with its interval, quantiles over the draws.

        se is half the interval in units of the t quantile: the draws are too heavy-tailed for a standard deviation.
        """
        low, high = np.quantile(quantity(self.draws), [(1 - level) / 2, (1 + level) / 2], method="nearest")
        width = high - low if np.isfinite([low, high]).all() else np.inf
        value, se = float(quantity(self.coefficients)), float(width / (2 * t_quantile(level, self.freedom)))
        return Estimate(value, float(low), float(high), se)


def line_fit(design: Array, y: Array, weights: Array, rng: np.random.Generator, draws: int) -> LineFit:
    """Minimise `sum w (y - X c)^2` for `design` X (n, p), y (n,), weights (n,) (1/variance up to a factor).

    Raises AligntaxError where the columns do not determine the coefficients or no point is left over for the spread.
    """
    count, width = design.shape
    root = np.sqrt(weights)
    x, z = design * root[:, None], y * root
    if np.linalg.matrix_rank(x) < width or count <= width:
        raise AligntaxError(
            f"{count} points do not determine {width} coefficients with one to spare; give more distinct ones"
        )
    inverse = np.linalg.pinv(x)
    coefficients = inverse @ z
    rest = z - x @ coefficients
    leverage = np.einsum("ij,ji->i", x, inverse)
    spread = float(np.sqrt(rest @ rest / (count - width)))
    if spread <= 1e-13 * float(np.abs(z).max(initial=0.0)):
        return LineFit(coefficients, np.tile(coefficients, (draws, 1)), count - width)
    student = rest / np.sqrt(np.maximum(1 - leverage, 1e-12))
    noise = student[rng.integers(count, size=(draws, count))] * rng.choice((-1.0, 1.0), size=(draws, count))
    shift = noise @ inverse.T
    spreads = np.sqrt(((noise - shift @ x.T) ** 2).sum(axis=1) / (count - width))
    usable = spreads > 1e-9 * spread
    return LineFit(coefficients, coefficients + shift[usable] * (spread / spreads[usable])[:, None], count - width)
