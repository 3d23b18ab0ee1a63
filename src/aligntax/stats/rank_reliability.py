"""How far a second measurement of the same taxes agrees: no predictor can correlate with them better than that allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from aligntax.errors import DataError
from aligntax.stats.rank_correlation import Array, spearman

HALVINGS = 200


@dataclass(frozen=True)
class RankReliability:
    """Rank correlations over tasks: `seeds`, of two trainings scored on the same items; `items`, of two halves of the items of
    one training, stepped up to all of them (Spearman-Brown); `cap`, the most that a perfect forecast of the lasting part
    can correlate with one training on these items. nan where there is no second seed.
    """

    seeds: float
    items: float
    cap: float


def half_agreement(drops: Sequence[ArrayLike], rng: np.random.Generator, halvings: int = HALVINGS) -> float:
    """Mean rank correlation over tasks between random halves of their items, from drops `(n_i,)` per task, stepped up.

    `2r/(1+r)` for the mean `r` of the halvings. Raises DataError for tasks of fewer than two items.
    """
    values = [np.asarray(d, dtype=np.float64) for d in drops]
    if min(len(d) for d in values) < 2:
        raise DataError("a task has fewer than two items; halves need one each")
    found = np.empty(halvings)
    for k in range(halvings):
        orders = [rng.permutation(len(d)) for d in values]
        halves = [
            np.array([d[order[start::2]].mean() for d, order in zip(values, orders, strict=True)]) for start in (0, 1)
        ]
        found[k] = float(spearman(*halves))
    r = float(np.mean(found))
    return 2 * r / (1 + r) if r > -1 else float("nan")


def rank_reliability(
    drops: Sequence[Sequence[ArrayLike]], pairs: Sequence[tuple[int, int]], rng: np.random.Generator
) -> RankReliability:
    """From drops of each training, tasks, items, and `pairs` of trainings that differ in the seed alone.

    With independent parts lasting T, of the seed S, of the items I: `seeds = (T+I)/all`, `items = (T+S)/all`, so the lasting
    share is `seeds + items - 1` and its root caps any correlation (0 at least). Without pairs `cap` is the root of `items`,
    which is too generous.
    """
    items = float(np.mean([half_agreement(own, rng) for own in drops]))
    taxes: list[Array] = [np.array([np.asarray(d, dtype=np.float64).mean() for d in own]) for own in drops]
    seeds = float(np.mean([float(spearman(taxes[a], taxes[b])) for a, b in pairs])) if pairs else float("nan")
    lasting = items if np.isnan(seeds) else seeds + items - 1.0
    return RankReliability(seeds, items, float(np.sqrt(max(lasting, 0.0))))
