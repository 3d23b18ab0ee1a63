"""Which penalty would have made this model: the discount and strength whose optimum shifts recovery as alignment did.

The optimum of the recovery objective adds `mu gamma^t` nats to the log-odds of recovery at position `t`, whatever the prefix
(theory 5.2). So `mean(logit p - logit p0) = mu gamma^t` is fitted by least squares over responses and positions, each prefix with
the same weight, which is a weighted fit of the mean by position. A model that was aligned otherwise need
not follow that form: `r2` says.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from aligntax.audit.prompt_draws import DRAWS, LEVEL, Array, PromptDraws
from aligntax.audit.reading import PairReading
from aligntax.errors import AligntaxError
from aligntax.stats import Estimate

_GRID = np.concatenate([np.geomspace(1e-3, 0.5, 100, endpoint=False), np.linspace(0.5, 1.0, 1001)])


@dataclass(frozen=True, eq=False)
class ImpliedPenalty:
    """`mu` in nats and `gamma` in (0, 1], with intervals over prompts; `gamma` is nan where `mu` is 0 (no rise to discount).

    `shift` `(T+1,)`: mean `logit p - logit p0` in nats at positions `1..T+1`, from `count` prefixes each. `r2`: share of the
    weighted square of `shift` that `mu gamma^t` explains, in [0, 1]. `dropped`: prefixes with infinite log-odds, which
    cannot enter.
    """

    mu: Estimate
    gamma: Estimate
    shift: Array
    count: NDArray[np.int64]
    r2: float
    dropped: int


def implied_penalty(
    reading: PairReading, rng: np.random.Generator, draws: int = DRAWS, level: float = LEVEL
) -> ImpliedPenalty:
    """Fit `(mu, gamma)` to the rise of log-odds between the two models of a reading, `mu >= 0`, `gamma <= 1`.

    Raises AligntaxError for a reading without recovery tokens, or with a single position, where the two cannot be told apart.
    """
    if reading.odds_base is None or reading.odds_aligned is None:
        raise AligntaxError("this reading has no recovery tokens; read the pair again with the ids of R")
    with np.errstate(invalid="ignore"):
        shift = reading.odds_aligned - reading.odds_base
    bad = ~np.isfinite(shift)
    dropped = int((bad & ~np.isnan(reading.odds_base)).sum())
    shift = np.where(bad, math.nan, shift)
    if (~np.isnan(shift)).any(axis=0).sum() < 2:
        raise AligntaxError(f"responses of {shift.shape[1] - 1} tokens; mu and gamma need two positions or more")
    resampled = PromptDraws.make(reading.prompts, rng, draws, level)
    mean, drawn = resampled.means(shift)
    counts = resampled.sums(np.where(np.isnan(shift), math.nan, 1.0))
    count = counts.sum(axis=0)
    mu, gamma, r2 = fit_decay(mean, count)
    mus, gammas = _on_grid(drawn, resampled.weights @ counts)[:2]
    return ImpliedPenalty(
        resampled.estimate(mu, mus), resampled.estimate(gamma, gammas), mean, count.astype(np.int64), r2, dropped
    )


def fit_decay(shift: Array, weights: Array) -> tuple[float, float, float]:
    """`(mu, gamma, r2)` of the least `sum_t w_t (shift_t - mu gamma^t)^2`, `t = 1..T`, `mu >= 0`, `0 < gamma <= 1`.

    Positions with weight 0 or a nan shift do not enter. `gamma` is nan where the best `mu` is 0.

    >>> mu, gamma, r2 = fit_decay(3.0 * 0.9 ** np.arange(1, 9), np.ones(8))
    >>> round(mu, 6), round(gamma, 6), round(r2, 6)
    (3.0, 0.9, 1.0)
    """
    row, weight = np.atleast_2d(shift), np.atleast_2d(np.asarray(weights, dtype=float))
    mus, gammas, best = _on_grid(row, weight)
    if not mus[0] > 0:
        return 0.0, math.nan, 0.0
    at = int(np.argmin(np.abs(_GRID - gammas[0])))
    ends = _GRID[max(at - 1, 0)], _GRID[min(at + 1, len(_GRID) - 1)]
    found = scipy.optimize.minimize_scalar(
        lambda gamma: -float(_gain(row, weight, np.array([gamma]))[1][0, 0]),
        bounds=ends,
        method="bounded",
        options={"xatol": 1e-12},
    )
    # The search keeps off its ends, and 1 is an end where the best often lies.
    gamma = float(found.x) if -found.fun > best[0] else float(gammas[0])
    mu, gain = _gain(row, weight, np.array([gamma]))
    whole = float((weight * np.nan_to_num(row) ** 2).sum())
    return float(mu[0, 0]), gamma, float(gain[0, 0]) / whole


def _on_grid(shift: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Best `(mu, gamma)` and what it explains, each `(draws,)`, of curves `(draws, T)`."""
    mu, gain = _gain(shift, weights, _GRID)
    best = np.argmax(gain, axis=1)
    rows = np.arange(len(shift))
    return mu[rows, best], np.where(mu[rows, best] > 0, _GRID[best], math.nan), gain[rows, best]


def _gain(shift: Array, weights: Array, gammas: Array) -> tuple[Array, Array]:
    """For each curve and `gamma`, `(draws, G)`: the best `mu >= 0` and the weighted square it explains."""
    used = np.where(np.isnan(shift), 0.0, weights)
    power = gammas[:, None] ** np.arange(1, shift.shape[1] + 1)
    along = np.maximum((used * np.nan_to_num(shift)) @ power.T, 0.0)
    norm = used @ (power**2).T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm > 0, along / norm, 0.0), np.where(norm > 0, along**2 / norm, 0.0)
