"""Did the survey foretell what was paid? Rank correlation over tasks, against what needs no geometry (theory, P1).

The verdict is fixed before looking: *supported* needs a positive interval, a permutation p of at most .05, and a better rank
correlation than every baseline, with an interval; few tasks cannot give that, and then it is *undecided*.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import DataError
from aligntax.stats import Estimate, empirical_p, spearman

Array = NDArray[np.float64]
Verdict = Literal["supported", "contradicted", "undecided"]
FEWEST, SMALL, LEVEL = 4, 10, 0.9


@dataclass(frozen=True)
class ForecastScore:
    """Spearman `correlation` of predicted and observed tax over `tasks`, 90% interval over tasks and items.

    `p_value`: one-sided, that tasks are exchangeable. `baselines`: name -> their own correlation; `ahead`: name -> correlation
    minus the baseline's. `random_p`: share of random directions that rank at least as well, nan without any. `note` says
    where n is small.
    """

    correlation: Estimate
    p_value: float
    baselines: dict[str, Estimate]
    ahead: dict[str, Estimate]
    random_p: float
    tasks: int
    verdict: Verdict
    note: str


def score_forecast(
    predicted: ArrayLike,
    item_drops: Sequence[ArrayLike],
    baselines: Mapping[str, ArrayLike],
    rng: np.random.Generator,
    random: ArrayLike | None = None,
    draws: int = 2000,
) -> ForecastScore:
    """Score `predicted` tax (m,) against the drops of each task's items, m arrays of any length, positive = lost.

    `baselines`: name -> (m,) other predictions of tax, such as gradient norm and base score; `random`: (K, m) predictions from
    random directions. Draws resample tasks and, within them, items, so the noise of few items enters twice: intervals are wide
    rather than narrow. Raises DataError for fewer than 4 tasks, lengths that disagree, or numbers that are not finite.
    """
    drops = [np.asarray(d, dtype=np.float64) for d in item_drops]
    names = list(baselines)
    rivals = [np.asarray(baselines[name], dtype=np.float64) for name in names]
    table = (
        np.array([np.asarray(predicted, dtype=np.float64), *rivals]) if _same(predicted, rivals) else np.empty((0, 0))
    )
    _check(table, drops)
    observed = np.array([d.mean() for d in drops])
    values = spearman(table, observed)
    sample = np.array([_draw(table, drops, rng) for _ in range(draws)])
    mine = _interval(values[0], sample[:, 0])
    others = {name: _interval(values[k], sample[:, k]) for k, name in enumerate(names, 1)}
    ahead = {name: _interval(values[0] - values[k], sample[:, 0] - sample[:, k]) for k, name in enumerate(names, 1)}
    p_value = permutation_p(table[0], observed, rng, draws)
    null = np.empty((0, len(drops))) if random is None else np.asarray(random, dtype=np.float64)
    note = f"{len(drops)} tasks: few for a rank correlation" if len(drops) < SMALL else ""
    return ForecastScore(
        mine,
        p_value,
        others,
        ahead,
        empirical_p(values[0], spearman(null[np.isfinite(null).all(axis=1)], observed)),
        len(drops),
        _verdict(mine, p_value, ahead),
        note,
    )


def _same(predicted: ArrayLike, rivals: Sequence[Array]) -> bool:
    return np.ndim(predicted) == 1 and all(rival.shape == np.shape(predicted) for rival in rivals)


def _check(table: Array, drops: Sequence[Array]) -> None:
    if table.ndim != 2 or table.shape[1:] != (len(drops),) or len(drops) < FEWEST:
        raise DataError(
            f"{len(drops)} tasks observed and predictions of shape {table.shape[1:]}; "
            f"give one prediction a task, also in every baseline, and at least {FEWEST} tasks"
        )
    if not np.isfinite(table).all():
        raise DataError("a prediction is not finite; leave its task out and say so")
    for task, values in enumerate(drops):
        if values.ndim != 1 or len(values) < 1 or not np.isfinite(values).all():
            raise DataError(
                f"task {task} has drops of shape {values.shape} or not finite; give the finite drops of its items"
            )


def _draw(table: Array, drops: Sequence[Array], rng: np.random.Generator) -> Array:
    """Correlations on tasks drawn anew, each with its items drawn anew."""
    tasks = rng.integers(len(drops), size=len(drops))
    observed = np.array([drops[t][rng.integers(len(drops[t]), size=len(drops[t]))].mean() for t in tasks])
    return spearman(table[:, tasks], observed)


def _interval(value: float, sample: Array) -> Estimate:
    """Percentile interval; draws without spread are left out, and more than 1 in 20 of them make it undefined."""
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or len(defined) < 0.95 * len(sample):
        return Estimate(float(value), np.nan, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(value), float(low), float(high), float(defined.std(ddof=1)))


def permutation_p(x: Array, y: Array, rng: np.random.Generator, draws: int = 2000) -> float:
    """One-sided p, in (0, 1], that pairs are matched at random: exact up to 7 tasks, else `draws` permutations."""
    value = float(spearman(x, y)) - 1e-9  # equal but for rounding counts as equal
    if len(x) <= 7:
        every = spearman(x, y[np.array(list(permutations(range(len(x)))))])
        return float(np.mean(every >= value)) if not np.isnan(value) else float("nan")
    return empirical_p(value, spearman(x, np.array([rng.permutation(y) for _ in range(draws)])))


def _verdict(mine: Estimate, p_value: float, ahead: Mapping[str, Estimate]) -> Verdict:
    if mine.high < 0 or any(gap.high < 0 for gap in ahead.values()):
        return "contradicted"
    if mine.low > 0 and p_value <= 0.05 and all(gap.low > 0 for gap in ahead.values()):
        return "supported"
    return "undecided"
