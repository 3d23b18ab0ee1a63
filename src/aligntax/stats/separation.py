"""Does a score tell two classes apart, and what would deciding by it cost: whom a model refuses, and whom it could.

Intervals do not collapse where the classes are told apart without a mistake: few prompts never show that there will be none.
"""

from dataclasses import dataclass

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from aligntax.errors import AligntaxError
from aligntax.stats.association import area_under_curve
from aligntax.stats.resample import Estimate

Array = NDArray[np.float64]
LEVEL = 0.9


@dataclass(frozen=True)
class Separation:
    """`auc` of the scores in [0, 1]; `ranked`, share of negatives above the threshold that as many positives pass as were chosen.

    Intervals 90%; `ranked` is nan where all or none of the positives were chosen, since then any threshold beyond them fits.
    """

    auc: Estimate
    ranked: Estimate


def separation(positive: ArrayLike, negative: ArrayLike, chosen: ArrayLike) -> Separation:
    """Scores `(n,)` of positives and `(m,)` of negatives; `chosen` `(n,)`, 0 or 1, says which positives were decided for.

    The area's interval is DeLong's on the logit scale, that of a perfect area from `min(n, m)` pairs without a mistake; that of
    `ranked` joins the exact intervals of the share chosen and of the negatives above its thresholds, so it is rather
    too wide. Raises AligntaxError for unequal lengths, scores that are nan or infinite, or fewer than 2 of a class.
    """
    up, down, hits = (np.asarray(part, dtype=np.float64) for part in (positive, negative, chosen))
    if up.ndim != 1 or down.ndim != 1 or min(len(up), len(down)) < 2 or hits.shape != up.shape:
        raise AligntaxError(f"scores {up.shape} and {down.shape}, choices {hits.shape}; give two of each class or more")
    if not (np.isfinite(up).all() and np.isfinite(down).all() and np.isin(hits, (0.0, 1.0)).all()):
        raise AligntaxError(
            "scores hold nan or infinity, or choices other numbers than 0 and 1; leave those prompts out"
        )
    return Separation(area(up, down), _ranked(np.sort(up)[::-1], down, int(hits.sum())))


def area(up: Array, down: Array) -> Estimate:
    """Area under the curve with its interval, see `separation`; `se` is DeLong's."""
    n, m = len(up), len(down)
    value = area_under_curve(np.r_[up, down], np.r_[np.ones(n), np.zeros(m)])
    beats = (np.sign(up[:, None] - down[None]) + 1) / 2
    se = float(np.sqrt(beats.mean(1).var(ddof=1) / n + beats.mean(0).var(ddof=1) / m))
    if not 0 < value < 1:
        few = float(((1 - LEVEL) / 2) ** (1 / min(n, m)))
        return Estimate(value, few if value == 1 else 0.0, 1.0 if value == 1 else 1 - few, se)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * se / (value * (1 - value))
    low, high = scipy.special.expit(scipy.special.logit(value) + np.array([-half, half]))
    return Estimate(value, float(low), float(high), se)


def _ranked(ordered: Array, down: Array, count: int) -> Estimate:
    """Negatives above the threshold that `count` of the positives pass, those in descending order."""
    n = len(ordered)
    if not 0 < count < n:
        return Estimate(*[float("nan")] * 4)
    value = float((down >= ordered[count - 1 : count + 1].mean()).mean())
    shares = _exact(count, n)
    passed = [int((down >= np.quantile(ordered, 1 - share)).sum()) for share in shares]
    low, high = _exact(passed[0], len(down))[0], _exact(passed[1], len(down))[1]
    return Estimate(value, min(low, value), max(high, value), float("nan"))


def _exact(count: int, n: int) -> tuple[float, float]:
    """Clopper-Pearson interval of a share."""
    found = stats.binomtest(count, n).proportion_ci(LEVEL, "exact")
    return float(found.low), float(found.high)
