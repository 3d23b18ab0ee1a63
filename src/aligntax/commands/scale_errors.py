"""What the standard error of a tax at one width is made of: the spread between models where there are several, else items.

Seeds are the unit. Two models of one width that differ in their seed alone have taxes that differ by more than the items' noise,
because which capability shares a direction with safety is partly chance: an incidental cosine has a standard deviation of
`d^-1/2`, its square one of `1.4/d`. Three seeds a width say little about their own spread, so one law is fitted to all widths,
`sd(d) = s d^-q` with q of 0, 1/2 or 1 by likelihood.
"""

from dataclasses import dataclass

import numpy as np

from ..geometry.arrays import Array

RATES = (0.0, 0.5, 1.0)
# Below any tax that a survey can tell from 0: noise-free directions, as in a planted family, still need a weight.
LEAST_ERROR = 1e-9


@dataclass(frozen=True)
class WidthMeans:
    """Distinct widths `(n,)` in rising order, mean taxes, standard errors of the means, and how many models are behind each."""

    widths: Array
    taxes: Array
    standard_errors: Array
    counts: np.ndarray


def between_seed_law(widths: Array, taxes: Array) -> tuple[float, float] | None:
    """`(s, q)` of `sd = s d^-q` between models of one width, from `widths` and `taxes` `(n,)`; None where no width has two.

    Maximum likelihood over q in {0, 1/2, 1} of deviations from the width's mean, `s^2` without bias.
    """
    _, where, counts = np.unique(widths, return_inverse=True, return_counts=True)
    freedom = int((counts - 1).sum())
    if not freedom:
        return None
    means = np.bincount(where, taxes) / counts
    deviations = taxes - means[where]
    logs = float(((counts - 1) * np.log(np.unique(widths))).sum())
    found = []
    for q in RATES:
        s2 = float((np.square(deviations) * widths ** (2 * q)).sum()) / freedom
        found.append((q * logs - freedom / 2 * np.log(max(s2, np.finfo(float).tiny)), np.sqrt(s2), q))
    _, s, q = max(found)
    return float(s), float(q)


def width_means(widths: Array, taxes: Array, standard_errors: Array) -> WidthMeans:
    """Means by width of taxes `(n,)` with the items' standard errors `(n,)`.

    The variance of one model's tax is the larger of what models of a width differ by and what the items leave open.
    """
    distinct, where, counts = np.unique(widths, return_inverse=True, return_counts=True)
    items = np.bincount(where, np.square(standard_errors)) / counts
    law = between_seed_law(widths, taxes)
    between = np.zeros(len(distinct)) if law is None else np.square(law[0] * distinct ** -law[1])
    errors = np.sqrt(np.maximum(items, between) / counts)
    return WidthMeans(distinct, np.bincount(where, taxes) / counts, np.maximum(errors, LEAST_ERROR), counts)
