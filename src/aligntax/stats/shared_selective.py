"""A gold answer may lose probability because every answer does, or because the model tells right from wrong less well.

Per item, with scores in nats: *shared* = the drop that the other answers undergo too (distractors; for free answers, the
answers of other items), *selective* = the drop of the margin of gold over them. They add up to the drop of gold. Only the
selective part is a loss of capability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import DataError
from aligntax.stats.pairing import paired_ids
from aligntax.stats.resample import Estimate

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""format -> item id -> log-probabilities in nats of the answers, gold first."""


@dataclass(frozen=True)
class SplitTax:
    """Drops from before to after, positive = lost: `gold = shared + selective` in nats, `accuracy` as a fraction.

    Means over `items` and `formats`; intervals over both. An item counts as right where gold is above every other answer.
    """

    gold: Estimate
    shared: Estimate
    selective: Estimate
    accuracy: Estimate
    items: int
    formats: int


def split_tax(
    before: Scores, after: Scores, rng: np.random.Generator, draws: int = 2000, level: float = 0.9
) -> SplitTax:
    """Split the drop of the gold answers' scores, from the same items in the same prompt formats before and after.

    Percentile bootstrap over items and formats at once. One format fewer is drawn than there are, which makes the variance
    between formats right where they are few (with all of them drawn, two formats would show half of it). Raises DataError
    for fewer than 2 formats or items, naming the format or id that is unpaired, or the id whose answers are fewer than
    two, differ in number, or are not finite. ([R] alignment tax, sharpened)
    """
    formats = paired_ids(before, after, "format")
    if len(formats) < 2:
        raise DataError(f"only the format {formats[0]!r}; score every item in at least two prompt formats")
    ids = paired_ids(before[formats[0]], after[formats[0]])
    for name in formats:
        paired_ids(before[name], after[name])
        paired_ids(before[formats[0]], before[name])
    if len(ids) < 2:
        raise DataError(f"1 item ({ids[0]!r}) has no interval; score at least two")
    drops = np.array([[_drops(key, before[name][key], after[name][key]) for key in ids] for name in formats])
    sample = _crossed_means(drops, rng, draws)
    low, high = np.quantile(sample, [(1 - level) / 2, (1 + level) / 2], axis=0)
    columns = zip(drops.mean(axis=(0, 1)), low, high, sample.std(axis=0, ddof=1), strict=True)
    gold, shared, selective, accuracy = (Estimate(*map(float, column)) for column in columns)
    return SplitTax(gold, shared, selective, accuracy, len(ids), len(formats))


def _drops(key: str, before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float, float]:
    """Drop of gold, of the others' mean, of the margin, and of being right."""
    scores = [np.asarray(values, dtype=np.float64) for values in (before, after)]
    if scores[0].ndim != 1 or scores[0].shape != scores[1].shape or len(scores[0]) < 2:
        raise DataError(
            f"item {key!r} has {np.size(before)} answers before and {np.size(after)} after; "
            "give the same answers both times, gold first and at least one other"
        )
    if not np.isfinite(scores).all():
        raise DataError(f"item {key!r} has an answer without a finite score; give nats or leave the item out")
    gold = scores[0][0] - scores[1][0]
    shared = scores[0][1:].mean() - scores[1][1:].mean()
    right = [float(values[0] > values[1:].max()) for values in scores]
    return gold, shared, gold - shared, right[0] - right[1]


def _crossed_means(drops: NDArray[np.float64], rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
    """Means (draws, 4) of `drops` (formats, items, 4) with formats and items drawn anew, each by multinomial counts."""
    formats, items, _ = drops.shape
    item_weights = rng.multinomial(items, np.full(items, 1 / items), size=draws) / items
    format_weights = rng.multinomial(formats - 1, np.full(formats, 1 / formats), size=draws) / (formats - 1)
    by_format = np.einsum("di,fik->dfk", item_weights, drops, optimize=True)
    return np.asarray(np.einsum("df,dfk->dk", format_weights, by_format))
