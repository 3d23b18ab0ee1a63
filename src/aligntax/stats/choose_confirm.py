"""Many predictors, one outcome, and no credit for luck: chosen on some families of tasks, scored on others.

The estimand: the mean over recipes of the rank correlation between a predictor and the observed tax over tasks. Tasks of one
family (grammar paradigms, widths of one arithmetic) go up and down together, so families are the unit: whole families
are chosen on or confirmed on, whole families are drawn anew in a bootstrap, and a permutation moves the means of
families between families and the rest within its own. Nothing that picks predictor, layer or sign is scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import DataError
from aligntax.stats.exact import empirical_p
from aligntax.stats.partition import split_hash
from aligntax.stats.rank_correlation import Array, spearman, unit_ranks
from aligntax.stats.resample import Estimate

DRAWS = 2000
LEVEL = 0.9


@dataclass(frozen=True)
class Halves:
    """Which tasks `(m,)` and recipes `(R,)` choose; the others confirm."""

    tasks: NDArray[np.bool_]
    recipes: NDArray[np.bool_]


def split_halves(families: Sequence[str], recipes: Sequence[str]) -> Halves:
    """Half of the families choose, by rank of their names' hash, and the recipes whose own hash begins below a half.

    A family never straddles. A recipe's side is its own: recipes that are trained later move none of the others. Raises DataError
    for fewer than four families and where all recipes fall on one side: a half must be able to vary.
    """
    if len(set(families)) < 4:
        raise DataError(f"{len(set(families))} families; choosing and confirming on different ones takes at least 4")
    runs = np.array([hashlib.sha256(name.encode()).digest()[0] < 128 for name in recipes], dtype=bool)
    if runs.all() or not runs.any():
        raise DataError(
            f"the recipes {', '.join(sorted(set(recipes)))} all {'choose' if runs.any() else 'confirm'}, by the hash of their "
            "names; add one that falls on the other side"
        )
    return Halves(split_hash(list(families), (0.5, 0.5)) == 0, runs)


@dataclass(frozen=True)
class Observed:
    """What was paid: for each of m tasks the drops `(R, n_i)` of its items under R recipes, and the task's family."""

    drops: tuple[Array, ...]
    families: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.drops) != len(self.families) or len(self.drops) < 3:
            raise DataError(f"{len(self.drops)} tasks and {len(self.families)} families; give one each, at least three")
        runs = {np.shape(d)[0] for d in self.drops if np.ndim(d) == 2}
        if len(runs) != 1 or not all(np.ndim(d) == 2 and np.shape(d)[1] and np.isfinite(d).all() for d in self.drops):
            raise DataError("drops must be finite (recipes, items) for each task, with the same recipes in all")

    @property
    def tax(self) -> Array:
        """Mean drop `(R, m)`."""
        return np.stack([d.mean(axis=1) for d in self.drops], axis=1)

    def part(self, tasks: NDArray[np.bool_], recipes: NDArray[np.bool_]) -> Observed:
        """Only these tasks and recipes."""
        kept = np.flatnonzero(tasks)
        return Observed(tuple(self.drops[k][recipes] for k in kept), tuple(self.families[k] for k in kept))

    def drawn(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Families, the items in their tasks and recipes drawn anew: `(task indices, recipe indices, tax)`."""
        names = np.array(self.families)
        distinct = sorted(set(self.families))
        picked = rng.choice(distinct, size=len(distinct))
        tasks = np.concatenate([np.flatnonzero(names == family) for family in picked])
        runs = rng.integers(len(self.drops[0]), size=len(self.drops[0]))
        columns = []
        for task in tasks:
            own = self.drops[task][runs]
            columns.append(own[:, rng.integers(own.shape[1], size=own.shape[1])].mean(axis=1))
        return tasks, runs, np.stack(columns, axis=1)


@dataclass(frozen=True)
class Choice:
    """The candidate that did best where choosing was allowed: its number, sign and correlation there.

    `p`: that the best of all `tried` candidates, either sign, reaches as much when families are exchangeable.
    """

    index: int
    sign: int
    correlation: float
    p: float
    tried: int


@dataclass(frozen=True)
class Confirmed:
    """The one number: `correlation` of the chosen predictor on tasks and recipes that chose nothing, with its interval.

    `p`: one-sided, families exchangeable. `baselines` with theirs; `best` is the strongest *here*, which favours it;
    `ahead` is the predictor minus that one, paired in every draw.
    """

    correlation: Estimate
    p: float
    baselines: dict[str, Estimate]
    best: str
    ahead: Estimate
    families: int
    tasks: int
    recipes: int


def mean_correlation(predicted: ArrayLike, tax: ArrayLike) -> Array:
    """Spearman of `predicted` `(..., m)` and `tax` `(R, m)`, mean over recipes: `(...)`; nan for a constant prediction."""
    return np.asarray(spearman(np.asarray(predicted, dtype=np.float64)[..., None, :], tax).mean(axis=-1))


def choose(candidates: ArrayLike, observed: Observed, rng: np.random.Generator, draws: int = DRAWS) -> Choice:
    """Best of `candidates` `(K, m)` by absolute mean correlation with the tax; the sign is part of the choice.

    Raises DataError where no candidate varies over tasks, or shapes disagree.
    """
    table = _table(candidates, observed)
    found = mean_correlation(table, observed.tax)
    if np.isnan(found).all():
        raise DataError(f"none of {len(table)} predictors differs between tasks; there is nothing to choose from")
    index = int(np.nanargmax(np.abs(found)))
    ranked = unit_ranks(table)
    null = np.empty(draws)
    for k in range(draws):
        shuffled = unit_ranks(shuffle_families(observed.tax, observed.families, rng)).mean(axis=0)
        null[k] = np.nanmax(np.abs(ranked @ shuffled))
    value = float(abs(found[index]))
    sign = 1 if found[index] >= 0 else -1
    return Choice(index, sign, float(found[index]), empirical_p(value - 1e-12, null), int((~np.isnan(found)).sum()))


def shuffle_families(tax: ArrayLike, families: Sequence[str], rng: np.random.Generator) -> Array:
    """`tax` `(R, m)` as if families were exchangeable: their means change places, the rest is shuffled within each.

    All recipes move together. Shuffling tasks one by one would call a family of ten paradigms ten witnesses.
    """
    values = np.asarray(tax, dtype=np.float64)
    distinct, index = np.unique(np.array(families), return_inverse=True)
    counts = np.bincount(index)
    means = np.stack([np.bincount(index, weights=row) / counts for row in values])
    rest = values - means[:, index]
    order = np.arange(len(index))
    for family in range(len(distinct)):
        own = np.flatnonzero(index == family)
        order[own] = rng.permutation(own)
    return np.asarray(means[:, rng.permutation(len(distinct))][:, index] + rest[:, order])


def confirm(
    predicted: ArrayLike,
    baselines: Mapping[str, ArrayLike],
    observed: Observed,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Confirmed:
    """Score one prediction `(m,)` against `baselines` name -> `(m,)`, signs already chosen, on tasks that chose neither.

    Draws take families, items and recipes anew, so item noise enters twice: wide rather than narrow. Raises DataError
    without baselines or for shapes that disagree.
    """
    if not baselines:
        raise DataError("no baselines; a correlation alone says nothing, give gradient norm and base score at least")
    names = list(baselines)
    table = _table(np.stack([np.asarray(predicted), *(np.asarray(baselines[name]) for name in names)]), observed)
    values = mean_correlation(table, observed.tax)
    sample = np.empty((draws, len(table)))
    for k in range(draws):
        tasks, _, tax = observed.drawn(rng)
        sample[k] = mean_correlation(table[:, tasks], tax)
    null = np.array(
        [mean_correlation(table[0], shuffle_families(observed.tax, observed.families, rng)) for _ in range(draws)]
    )
    best = int(np.nanargmax(values[1:])) + 1 if not np.isnan(values[1:]).all() else 1
    return Confirmed(
        interval(float(values[0]), sample[:, 0]),
        empirical_p(float(values[0]) - 1e-12, null),
        {name: interval(float(values[k]), sample[:, k]) for k, name in enumerate(names, 1)},
        names[best - 1],
        interval(float(values[0] - values[best]), sample[:, 0] - sample[:, best]),
        len(set(observed.families)),
        len(observed.families),
        len(observed.tax),
    )


def interval(value: float, sample: Array, level: float = LEVEL) -> Estimate:
    """Percentile interval of a bootstrap `sample` about `value`; undefined where more than 1 draw in 20 is."""
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or len(defined) < 0.95 * len(sample):
        return Estimate(value, np.nan, np.nan, np.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), float(defined.std(ddof=1)))


def _table(rows: ArrayLike, observed: Observed) -> Array:
    table = np.asarray(rows, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(observed.families) or not np.isfinite(table).all():
        raise DataError(
            f"predictions of shape {table.shape} for {len(observed.families)} tasks; give finite numbers, one a task"
        )
    return table
