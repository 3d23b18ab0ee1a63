"""Does KL lie where harm is decided? Profiles by position as shares, beside profiles that know nothing of harm (theory P5).

A profile is turned into shares that sum to 1; the agreement of two is what they have in common, `sum_t min(a_t, b_t)` in [0, 1],
one less their total variation distance. Unlike a rank correlation it is not moved by the order of positions where little lies.
Units are trained worlds; they are resampled within the deciding positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import AligntaxError
from ..geometry.arrays import Array
from ..stats import Estimate

Verdict = Literal["supported", "contradicted", "undecided"]
DRAWS, LEVEL = 2000, 0.9


@dataclass(frozen=True)
class DepthScore:
    """`estimate` of a prediction, each baseline's, and `ahead` of the best of them (positive is better); 90% intervals."""

    measure: str
    estimate: Estimate
    baselines: Mapping[str, Estimate]
    best: str
    ahead: Estimate
    verdict: Verdict
    reason: str
    units: int


def shares(profile: Array) -> Array:
    """A profile `(T,)` as shares that sum to 1, negative estimates counted as 0; nan where nothing is positive.

    >>> shares(np.array([1.0, -0.2, 3.0])).tolist()
    [0.25, 0.0, 0.75]
    """
    held = np.maximum(np.asarray(profile, dtype=float), 0.0)
    total = held.sum()
    return held / total if total > 0 else np.full(held.shape, np.nan)


def agreement(first: Array, second: Array) -> float:
    """`sum_t min(a_t, b_t)` of the shares of two profiles `(T,)`: 1 where they are proportional, 0 where they never meet.

    >>> agreement(np.array([1.0, 1.0]), np.array([0.0, 5.0]))
    0.5
    """
    return float(np.minimum(shares(first), shares(second)).sum())


def score_profiles(kl: Sequence[Array], predictors: Mapping[str, Sequence[Array]], strata: Sequence[int]) -> DepthScore:
    """P5 over units: KL profiles, and for each predictor one profile a unit; the first predictor is the theory's.

    `strata` `(n,)` is the deciding position of each unit. Raises AligntaxError for fewer than two units or lists that differ.
    """
    table = {
        name: np.array([agreement(a, b) for a, b in zip(kl, found, strict=True)]) for name, found in predictors.items()
    }
    return score_table("share of KL that lies where the predictor says", table, strata)


def score_table(measure: str, table: Mapping[str, Array], strata: Sequence[int]) -> DepthScore:
    """The first row of `table` (name -> `(n,)`, larger is better) against the best of the others, resampling within strata."""
    name, *others = table
    units = len(table[name])
    if units < 2 or not others or any(len(row) != len(strata) for row in table.values()):
        raise AligntaxError(
            f"{units} units, {len(others)} baselines, {len(strata)} strata; give two units and one baseline"
        )
    drawn = _resampled(np.asarray(strata), np.random.default_rng(0))
    best = max(others, key=lambda other: float(np.mean(table[other])))
    # The best baseline is chosen again in every draw, so that choosing it is part of the uncertainty.
    rivals = np.max([table[other][drawn].mean(axis=1) for other in others], axis=0)
    gap = _estimate(float(table[name].mean() - table[best].mean()), table[name][drawn].mean(axis=1) - rivals)
    estimates = {other: _estimate(float(table[other].mean()), table[other][drawn].mean(axis=1)) for other in table}
    verdict: Verdict = "supported" if gap.low > 0 else "contradicted" if gap.high < 0 else "undecided"
    reason = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] beyond the best baseline ({best})"
    return DepthScore(measure, estimates.pop(name), estimates, best, gap, verdict, reason, units)


def _resampled(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices `(draws, n)` drawn with replacement within each stratum."""
    found = np.zeros((DRAWS, len(strata)), dtype=np.int64)
    for value in np.unique(strata):
        where = np.flatnonzero(strata == value)
        found[:, where] = where[rng.integers(len(where), size=(DRAWS, len(where)))]
    return found


def _estimate(value: float, draws: Array) -> Estimate:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high), float(draws.std(ddof=1)))
