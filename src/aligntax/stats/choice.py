"""Picking one candidate when capability and alignment both count.

Scores are "more is better" and nothing is rescaled behind the user's back: a weighted sum of unlike units is the user's.
"""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from aligntax.errors import DataError

Array = NDArray[np.float64]


def weighted_choice(capability: ArrayLike, alignment: ArrayLike, weight: float) -> int:
    """Index of the largest `alpha C + (1 - alpha) A`, alpha = `weight` of capability in [0, 1].

    Among equals the one with the larger C + A, then the first, so that the choice is never dominated. No weight reaches a
    candidate below the upper convex hull; `constrained_choice` does. Raises DataError for a weight outside [0, 1], unequal
    lengths, no candidates, or scores that are not finite. ([R] multi-objective optimisation)
    """
    if not 0 <= weight <= 1:
        raise DataError(f"weight={weight}; give a fraction in [0, 1], the share of capability")
    scores = _candidates(np.stack(_both(capability, alignment), axis=1))
    return _largest(scores @ [weight, 1 - weight], scores.sum(axis=1))


def constrained_choice(capability: ArrayLike, alignment: ArrayLike, minimum: float) -> int:
    """Index of the best C among candidates with `A >= A_min`; among equals the larger A, then the first.

    Raises DataError when no candidate reaches the minimum, and as `weighted_choice` does. ([R] constrained optimisation)
    """
    scores = _candidates(np.stack(_both(capability, alignment), axis=1))
    enough = scores[:, 1] >= minimum
    if not enough.any():
        raise DataError(
            f"minimum={minimum} but the most aligned of {len(scores)} candidates has {scores[:, 1].max()}; lower it"
        )
    return _largest(np.where(enough, scores[:, 0], -np.inf), scores[:, 1])


def pareto_set(scores: ArrayLike) -> NDArray[np.int64]:
    """Indices, ascending, of the candidates (n, k) that no other beats in one score without losing in another; equals all stay.

    Raises DataError for no candidates or scores that are not finite. ([R] Pareto optimisation)
    """
    return np.flatnonzero(moocore.is_nondominated(_candidates(scores), maximise=True, keep_weakly=True))


def hypervolume(scores: ArrayLike, reference: ArrayLike) -> float:
    """Volume that candidates (n, k) dominate above `reference` (k,), in the product of the scores' units, at least 0.

    Only comparable between sets that use one reference, such as the base model's scores; a candidate below it in any score
    adds nothing. Raises DataError as `pareto_set` does or for a reference of another length. ([R] Pareto optimisation)

    >>> hypervolume([[2.0, 1.0], [1.0, 2.0]], [0.0, 0.0])
    3.0
    """
    points, corner = _candidates(scores), np.asarray(reference, dtype=np.float64)
    if corner.shape != points.shape[1:] or not np.isfinite(corner).all():
        raise DataError(f"reference {corner.tolist()}; give {points.shape[1]} finite numbers, one for each score")
    above = points[(points > corner).all(axis=1)]
    return float(moocore.hypervolume(above, ref=corner, maximise=True)) if len(above) else 0.0


def _both(capability: ArrayLike, alignment: ArrayLike) -> tuple[Array, Array]:
    c, a = np.asarray(capability, dtype=np.float64), np.asarray(alignment, dtype=np.float64)
    if c.ndim != 1 or c.shape != a.shape:
        raise DataError(f"capability {c.shape} and alignment {a.shape}; give one of each for every candidate")
    return c, a


def _candidates(scores: ArrayLike) -> Array:
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise DataError(f"scores {table.shape}; give (candidates, scores) with at least one of each")
    wrong = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if wrong.size:
        raise DataError(
            f"candidate {wrong[0]} has scores {table[wrong[0]].tolist()}; give finite numbers or leave it out"
        )
    return table


def _largest(first: Array, second: Array) -> int:
    """Index of the largest `first`, ties by the largest `second`, then by order."""
    best = np.flatnonzero(first == first.max())
    return int(best[np.argmax(second[best])])
