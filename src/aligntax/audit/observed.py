"""What a pair of models really paid, from the log-probabilities that both give to the same answers of the same items.

Said of a task: the drop of the margin of gold over the other answers (selective), never the drop that every answer shares.
Items and prompt formats are resampled together; tasks are tested together, so that many of them raise no false alarm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.audit.prefill import share_interval
from aligntax.errors import DataError
from aligntax.stats import (
    Estimate,
    ObservedTax,
    SplitTax,
    adjusted_p_values,
    bootstrap_interval,
    observed_tax,
    split_tax,
)

Array = NDArray[np.float64]
Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""format -> item id -> log-probabilities in nats of the answers, gold first."""


@dataclass(frozen=True)
class WorstItems:
    """Drop of the items that lost most, nats. `seen` picks and scores on the same numbers and so is too large;
    `confirmed` picks each format's items by the other formats (nan with one format). `count` items are picked.
    """

    count: int
    seen: float
    confirmed: Estimate


@dataclass(frozen=True)
class TaskBill:
    """One task: `split` with intervals over items and formats; `margin` and `accuracy` paired by item, means over formats.

    `p_adjusted` is the margin's p after Benjamini-Hochberg over the tasks of the bill.
    """

    split: SplitTax
    margin: ObservedTax
    accuracy: ObservedTax
    p_adjusted: float
    worst: WorstItems


def task_bills(
    scores: Mapping[str, tuple[Scores, Scores]], rng: np.random.Generator, draws: int = 2000, level: float = 0.9
) -> dict[str, TaskBill]:
    """Task -> what it paid, from task -> (scores before, scores after) in at least two prompt formats.

    Raises DataError naming task and item for scores that cannot be paired, are not finite, or come in one format only.
    """
    parts = {}
    for task, (before, after) in scores.items():
        try:
            split = split_tax(before, after, rng, draws, level)
            margin, accuracy = (
                observed_tax(measure(before), measure(after), rng, draws, level)
                for measure in (item_margins, item_accuracy)
            )
        except DataError as error:
            raise DataError(f"task {task!r}: {error}") from error
        parts[task] = (split, margin, accuracy, worst_items(margin_drops(before, after), rng, draws, level))
    adjusted = adjusted_p_values({task: margin for task, (_, margin, _, _) in parts.items()}) if parts else {}
    return {
        task: TaskBill(split, margin, accuracy, adjusted[task], worst)
        for task, (split, margin, accuracy, worst) in parts.items()
    }


def item_margins(scores: Scores) -> dict[str, float]:
    """Item -> log-probability of gold minus the mean of the other answers, nats, mean over formats."""
    return _over_formats(scores, lambda answers: float(answers[0] - np.mean(answers[1:])))


def item_accuracy(scores: Scores) -> dict[str, float]:
    """Item -> share of formats in which gold is above every other answer, in [0, 1]."""
    return _over_formats(scores, lambda answers: float(answers[0] > max(answers[1:])))


def _over_formats(scores: Scores, measure: Callable[[Sequence[float]], float]) -> dict[str, float]:
    first = next(iter(scores.values()))
    return {key: float(np.mean([measure(table[key]) for table in scores.values()])) for key in first}


def margin_drops(before: Scores, after: Scores) -> Array:
    """Drop of the margin by format and item, (formats, items), nats; formats and items sorted."""
    formats = sorted(before)
    sides = [[item_margins({name: side[name]}) for name in formats] for side in (before, after)]
    ids = sorted(sides[0][0])
    old, new = (np.array([[table[key] for key in ids] for table in side]) for side in sides)
    return np.asarray(old - new)


def worst_items(
    drops: ArrayLike, rng: np.random.Generator, draws: int = 2000, level: float = 0.9, share: float = 0.1
) -> WorstItems:
    """Mean drop of the `share` of items that lost most, from drops (formats, items), positive = lost.

    Whoever lost most by the numbers that are then averaged lost partly by luck: with no loss at all and unit noise the worst
    decile of 100 items shows 1.75 standard deviations. Picked in the other formats and scored in this one the luck stays
    behind. The interval resamples items and picks anew. Raises DataError for fewer than 2 items or values not finite.
    """
    values = np.asarray(drops, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all() or not 0 < share <= 1:
        raise DataError(
            f"drops of shape {values.shape}, share={share}; give finite (formats, items >= 2) and 0 < share <= 1"
        )
    count = max(1, round(share * values.shape[1]))
    seen = float(np.sort(values.mean(axis=0))[-count:].mean())
    if len(values) < 2:
        return WorstItems(count, seen, Estimate(np.nan, np.nan, np.nan, np.nan))

    def confirmed(items: Array) -> float:
        others = (items.sum(axis=1, keepdims=True) - items) / (items.shape[1] - 1)
        picked = np.argpartition(others, -count, axis=0)[-count:]
        return float(np.take_along_axis(items, picked, axis=0).mean())

    return WorstItems(count, seen, bootstrap_interval(values.T, confirmed, rng, draws, level))


CELLS = ("answered_right", "answered_wrong", "refused_right", "refused_wrong")


@dataclass(frozen=True)
class AnswerCells:
    """Items by whether the reply refuses and whether the answer is known: `shares` of the `n` judged, with exact intervals.

    `refused_right`: the model knows (scores gold highest) and does not say. `unjudged` items are in no cell.
    """

    n: int
    unjudged: int
    counts: dict[str, int]
    shares: dict[str, Estimate]


def answer_cells(refused: ArrayLike, right: ArrayLike, level: float = 0.9) -> AnswerCells:
    """The four cells from `refused` and `right` (n,), 1, 0 or nan (unjudged). Clopper-Pearson intervals at `level`.

    Raises DataError for unequal lengths, other values, or when no item is judged.
    """
    pair = np.stack(_flags(refused, right))
    known = ~np.isnan(pair).any(axis=0)
    n = int(known.sum())
    if n == 0:
        raise DataError(f"none of {pair.shape[1]} items is judged both ways; a share of none is undefined")
    cells = (2 * pair[0] + 1 - pair[1])[known].astype(int)
    counts = dict(zip(CELLS, np.bincount(cells, minlength=4).tolist(), strict=True))
    return AnswerCells(n, int((~known).sum()), counts, {name: _share(k, n, level) for name, k in counts.items()})


@dataclass(frozen=True)
class CellChange:
    """What became of the items answered rightly before, counts that add up to `held + refused + unknown = before`.

    `held`: still answered rightly; `refused`: refused after, known or not; `unknown`: answered, but wrongly. `lost` is the tax
    on right answers given, paired by item over the items judged both times.
    """

    before: int
    held: int
    refused: int
    unknown: int
    lost: ObservedTax


def cell_change(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    rng: np.random.Generator,
    level: float = 0.9,
) -> CellChange:
    """Whether right answers went to refusal or to error, from (refused, right) of the same items before and after.

    Items unjudged in either are left out of all counts. Raises DataError as `answer_cells`, and for fewer than 2 items left.
    """
    old, new = np.stack(_flags(*before)), np.stack(_flags(*after))
    if old.shape != new.shape:
        raise DataError(f"{old.shape[1]} items before and {new.shape[1]} after; judge the same items both times")
    known = ~np.isnan(np.concatenate([old, new])).any(axis=0)
    good, later = ((side[0] == 0) & (side[1] == 1) for side in (old[:, known], new[:, known]))
    refused = new[0, known] == 1
    given, still = ({str(k): float(v) for k, v in enumerate(side)} for side in (good, later))
    tax = observed_tax(given, still, rng, level=level)
    return CellChange(
        int(good.sum()),
        int((good & later).sum()),
        int((good & refused).sum()),
        int((good & ~later & ~refused).sum()),
        tax,
    )


def _flags(*columns: ArrayLike) -> list[Array]:
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if any(a.ndim != 1 or a.shape != arrays[0].shape for a in arrays):
        raise DataError(f"columns of shapes {[a.shape for a in arrays]}; give one entry an item in each")
    for values in arrays:
        odd = values[~np.isnan(values) & ~np.isin(values, (0.0, 1.0))]
        if odd.size:
            raise DataError(f"an entry is {odd[0]}; give 1, 0, or nan for unjudged")
    return arrays


def _share(hits: int, n: int, level: float) -> Estimate:
    value = hits / n
    return Estimate(value, *share_interval(value, n, level), float(np.sqrt(value * (1 - value) / n)))
