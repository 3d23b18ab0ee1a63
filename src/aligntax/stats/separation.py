"""Refusing the right requests: how well a score tells two classes apart, and what decisions make of it.

Over-refusal has two causes. A model may not tell harmful requests from harmless ones, or tell them apart and decide
badly: greedy decoding says the likeliest single opening, and refusals share a few openings where answers have many, so a
prompt is refused that is more likely to be answered.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.association import area_under_curve
from aligntax.stats.resample import Estimate

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """`auc` of the scores in [0, 1]; `ranked`, share of negatives above the threshold that as many positives pass as were chosen.

    `excess`: share of negatives that were chosen, less `ranked`. Intervals (90%) resample either class; nan where no
    positive was chosen.
    """

    auc: Estimate
    ranked: Estimate
    excess: Estimate


def separation(
    positive: tuple[ArrayLike, ArrayLike],
    negative: tuple[ArrayLike, ArrayLike],
    rng: np.random.Generator,
    draws: int = 1000,
) -> Separation:
    """Scores `(n,)` and choices `(n,)`, 0 or 1, of the positives, the same `(m,)` of the negatives.

    Raises AligntaxError for unequal lengths, nan, or fewer than 2 of a class.
    """
    up, down = _class(positive, "positive"), _class(negative, "negative")
    value = _numbers(up, down)
    sample = np.array([_numbers(_resampled(up, rng), _resampled(down, rng)) for _ in range(draws)])
    return Separation(*(_estimate(v, sample[:, k]) for k, v in enumerate(value)))


def _class(given: tuple[ArrayLike, ArrayLike], name: str) -> Array:
    """Scores and choices as `(2, n)`."""
    score, chosen = (np.asarray(part, dtype=np.float64) for part in given)
    if score.ndim != 1 or score.shape != chosen.shape or len(score) < 2:
        raise AligntaxError(
            f"{name}: scores {score.shape}, choices {chosen.shape}; give two equally long lists, 2 or more"
        )
    if np.isnan(score).any() or not np.isin(chosen, (0.0, 1.0)).all():
        raise AligntaxError(f"{name}: scores hold nan, or choices other numbers than 0 and 1; leave those prompts out")
    return np.stack([score, chosen])


def _resampled(part: Array, rng: np.random.Generator) -> Array:
    return part[:, rng.integers(part.shape[1], size=part.shape[1])]


def _numbers(up: Array, down: Array) -> tuple[float, float, float]:
    label = np.r_[np.ones(up.shape[1]), np.zeros(down.shape[1])]
    auc = area_under_curve(np.r_[up[0], down[0]], label)
    count = int(up[1].sum())
    if not count:
        return auc, float("nan"), float("nan")
    ordered = np.sort(up[0])[::-1]
    threshold = ordered[count - 1 : count + 1].mean()  # half way to the first that was not chosen
    ranked = float((down[0] >= threshold).mean())
    return auc, ranked, float(down[1].mean()) - ranked


def _estimate(value: float, sample: Array) -> Estimate:
    """With the interval of its draws; draws in which nothing was chosen are left out, and beyond 1 in 20 there is none."""
    defined = sample[~np.isnan(sample)]
    if np.isnan(value) or len(defined) < 0.95 * len(sample):
        return Estimate(value, float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.05, 0.95])
    return Estimate(value, float(low), float(high), float(defined.std(ddof=1)))
