"""How true (gold) reward rises and then falls as a policy is pushed against a proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from aligntax.errors import DataError
from aligntax.stats.line_fit import line_fit
from aligntax.stats.resample import Estimate

Array = NDArray[np.float64]
Form = Literal["best-of-n", "policy"]


@dataclass(frozen=True)
class OverOptimisation:
    """Gold reward over its start as a function of `d = sqrt(KL)`: `d (alpha - beta d)` or `d (alpha - beta log d)`.

    alpha, beta in reward per sqrt(nat). peak_kl: nats where gold is highest, inf where it never turns (beta <= 0), 0 where
    it never rises; peak_gold: its height there, over the start.
    """

    form: Form
    alpha: Estimate
    beta: Estimate
    peak_kl: Estimate
    peak_gold: Estimate

    def gold(self, kl: ArrayLike) -> Array:
        """Fitted gold reward over its start at `kl` nats, any shape."""
        return np.asarray(_design(np.asarray(kl, dtype=np.float64), self.form) @ [self.alpha.value, self.beta.value])


def best_of_n_kl(n: ArrayLike) -> Array:
    """`log n - (n-1)/n` nats: KL of the best of n samples from the policy it samples; exact when no two rewards tie, else
    a bound from above. Raises DataError for n < 1. ([R] reward over-optimisation)

    >>> best_of_n_kl([1, 4]).round(4).tolist()
    [0.0, 0.6363]
    """
    count = np.asarray(n, dtype=np.float64)
    if not (count >= 1).all():
        raise DataError(f"n={np.asarray(n).tolist()}; give at least 1 sample")
    return np.asarray(np.log(count) - (count - 1) / count)


def fit_overoptimisation(
    kl: ArrayLike, gold: ArrayLike, form: Form, rng: np.random.Generator, draws: int = 2000, level: float = 0.9
) -> OverOptimisation:
    """Least-squares fit of `gold` (n,), *measured from its value at KL = 0*, on `kl` (n,) in nats; linear in both coefficients.

    Peaks: `d = alpha/(2 beta)` with height `alpha^2/(4 beta)` (best of n), `d = exp(alpha/beta - 1)` with height `beta d`
    (policy). Intervals are bootstrap-t over residuals. Points at KL = 0 carry nothing and are dropped. Raises DataError
    for fewer than 4 distinct KL above 0, negative KL, or numbers that are not finite. ([R] reward over-optimisation)
    """
    nats, rise = np.asarray(kl, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if form not in ("best-of-n", "policy"):
        raise DataError(f"form={form!r}; give 'best-of-n' or 'policy'")
    if nats.ndim != 1 or nats.shape != rise.shape or not np.isfinite([nats, rise]).all() or (nats < 0).any():
        raise DataError(
            f"kl {nats.shape} and gold {rise.shape}; give finite numbers, KL of at least 0, one gold for each"
        )
    nats, rise = nats[nats > 0], rise[nats > 0]
    if len(np.unique(nats)) < 4:
        raise DataError(f"{len(np.unique(nats))} distinct KL above 0; a curve of two coefficients needs at least 4")
    fit = line_fit(_design(nats, form), rise, np.ones(len(nats)), rng, draws)
    return OverOptimisation(
        form,
        alpha=fit.estimate(lambda c: c[..., 0], level),
        beta=fit.estimate(lambda c: c[..., 1], level),
        peak_kl=fit.estimate(lambda c: peak_distance(c, form) ** 2, level),
        peak_gold=fit.estimate(lambda c: _height(c, form), level),
    )


def peak_distance(coefficients: ArrayLike, form: Form) -> Array:
    """`d = sqrt(KL)` of the highest gold for (alpha, beta) on the last axis, (..., 2) -> (...); inf where it never turns."""
    alpha, beta = np.moveaxis(np.asarray(coefficients, dtype=np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        turn = np.maximum(alpha, 0) / (2 * beta) if form == "best-of-n" else np.exp(alpha / beta - 1)
    return np.where(beta > 0, turn, np.inf)


def _height(coefficients: Array, form: Form) -> Array:
    alpha, beta = np.moveaxis(coefficients, -1, 0)
    distance = peak_distance(coefficients, form)
    with np.errstate(invalid="ignore"):
        height = np.maximum(alpha, 0) * distance / 2 if form == "best-of-n" else beta * distance
    return np.where(np.isfinite(distance), height, np.inf)


def _design(kl: Array, form: Form) -> Array:
    """Columns (..., 2) that multiply alpha and beta."""
    distance = np.sqrt(kl)
    return np.stack([distance, -kl if form == "best-of-n" else -xlogy(distance, distance)], axis=-1)
