"""What a capability really paid: scores of the same items before and after, paired.

Net of a control recipe (the same number of steps on harmless data) the tax is `observed_tax(control, after)`: the score
before cancels in `(before - after) - (before - control)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from aligntax.errors import DataError
from aligntax.stats.exact import benjamini_hochberg, empirical_p, mcnemar_exact
from aligntax.stats.pairing import paired_ids
from aligntax.stats.resample import Estimate, bootstrap_interval

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ObservedTax:
    """`tax = before - after` (positive = lost) in the scores' unit, over n items; `relative = tax / before`, a fraction.

    before, after: mean scores. p_value: of no change, two-sided. lost, gained: items right before and wrong after, and the
    reverse; None where scores are graded. method: "mcnemar" for scores that are all 0 or 1, else "bootstrap".
    """

    n: int
    before: float
    after: float
    tax: Estimate
    relative: Estimate
    p_value: float
    lost: int | None
    gained: int | None
    method: Literal["mcnemar", "bootstrap"]


def observed_tax(
    before: Mapping[str, float],
    after: Mapping[str, float],
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.9,
) -> ObservedTax:
    """`mean_i C_i(before) - C_i(after)` over items given as id -> score, with an interval at `level`.

    Scores that are all 0 or 1: exact McNemar p and `mcnemar_interval`. Graded scores: percentile bootstrap over items and
    a sign-flip p. The relative tax has a bootstrap interval over items and is nan unless the mean before is above 0 (a
    share of a log-probability means nothing). Raises DataError naming an id that is not in both or whose score is not
    finite, and for fewer than 2 items. ([R] alignment tax)
    """
    ids = paired_ids(before, after)
    pairs = np.array([[before[key], after[key]] for key in ids], dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(pairs).all(axis=1))
    if wrong.size:
        raise DataError(
            f"item {ids[wrong[0]]!r} has scores {pairs[wrong[0]].tolist()}; give finite numbers or leave it out"
        )
    if len(ids) < 2:
        raise DataError(f"1 item ({ids[0]!r}) has no interval; score at least two")
    binary = bool(np.isin(pairs, (0.0, 1.0)).all())
    lost, gained = (int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum()))
    drop = pairs[:, 0] - pairs[:, 1]
    return ObservedTax(
        n=len(ids),
        before=float(pairs[:, 0].mean()),
        after=float(pairs[:, 1].mean()),
        tax=mcnemar_interval(lost, gained, len(ids), level)
        if binary
        else bootstrap_interval(drop, _mean, rng, draws, level),
        relative=bootstrap_interval(pairs, _relative, rng, draws, level),
        p_value=mcnemar_exact(lost, gained) if binary else sign_flip_p(drop, rng, draws),
        lost=lost if binary else None,
        gained=gained if binary else None,
        method="mcnemar" if binary else "bootstrap",
    )


def mcnemar_interval(lost: int, gained: int, n: int, level: float = 0.9) -> Estimate:
    """Interval for `P(lost) - P(gained)` from paired right/wrong items, in [-1, 1]; it holds 0 wherever the exact McNemar
    test does not reject at `1 - level`.

    The hull of two. Exact and conditional: Clopper-Pearson for the share lost among the discordant items, times their
    number; alone it takes that number for known and covers as little as half the time where all change is one way. And the
    score interval of Tango (1998), which covers about right but may reject where the exact test does not. Measured by
    enumeration (n = 20 to 100, 90%): the hull covers at least .88. It has width even where nothing changed. Raises DataError for
    counts that do not fit. ([R] alignment tax, sharpened)
    """
    if min(lost, gained) < 0 or n < 1 or lost + gained > n:
        raise DataError(f"lost={lost}, gained={gained}, n={n}; give counts of at least 0 that n items can hold")
    if not 0 < level < 1:
        raise DataError(f"level={level}; give a fraction between 0 and 1, such as 0.9")
    value, changed = (lost - gained) / n, lost + gained
    low = _score_limit(lost, gained, n, level)
    high = -_score_limit(gained, lost, n, level)
    if changed:
        share = stats.binomtest(lost, changed).proportion_ci(level, method="exact")
        low, high = min(low, changed * (2 * share.low - 1) / n), max(high, changed * (2 * share.high - 1) / n)
    return Estimate(value, float(low), float(high), float(np.sqrt(max(changed - n * value**2, 0.0)) / n))


def sign_flip_p(drop: Array, rng: np.random.Generator, draws: int = 2000) -> float:
    """Two-sided p-value, in (0, 1], that paired differences (n,) are symmetric about 0: signs are drawn anew `draws` times.

    `(1 + #{|mean of flipped| >= |mean|}) / (1 + draws)`; equal but for rounding counts as equal.
    """
    values = np.asarray(drop, dtype=np.float64)
    null = np.array([abs(_mean(values * rng.choice((-1.0, 1.0), size=len(values)))) for _ in range(draws)])
    return empirical_p(abs(_mean(values)) * (1 - 1e-9), null)


def adjusted_p_values(taxes: Mapping[str, ObservedTax]) -> dict[str, float]:
    """Task -> Benjamini-Hochberg adjusted p: the tasks at or below q hold at most a share q of false alarms on average."""
    adjusted = benjamini_hochberg(np.array([tax.p_value for tax in taxes.values()]))
    return dict(zip(taxes, adjusted.tolist(), strict=True))


def _mean(values: Array) -> float:
    return float(values.mean())


def _relative(pairs: Array) -> float:
    before, after = pairs.mean(axis=0)
    return float(1 - after / before) if before > 0 else float("nan")


def _score_limit(lost: int, gained: int, n: int, level: float) -> float:
    """Lower end of the score interval: the difference at which the score statistic equals the normal quantile."""
    z = float(stats.norm.ppf(0.5 + level / 2))
    value = (lost - gained) / n

    def excess(delta: float) -> float:
        # The likeliest P(gained) among all with P(lost) - P(gained) = delta.
        b = -lost - gained + (2 * n - lost + gained) * delta
        gain = (np.sqrt(max(b * b + 8 * n * gained * delta * (1 - delta), 0.0)) - b) / (4 * n)
        return float(lost - gained - n * delta - z * np.sqrt(max(n * (2 * gain + delta * (1 - delta)), 0.0)))

    top = value - 1e-10  # At the estimate itself the variance may be 0, which would pass for the limit.
    if top <= -1 or excess(-1.0) <= 0:
        return -1.0
    return float(optimize.brentq(excess, -1.0, top)) if excess(top) < 0 else value
