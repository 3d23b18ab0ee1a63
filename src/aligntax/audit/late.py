"""Is late KL functional or incidental? KL beyond the horizon that buys no recovery is the price of shared parameters.

Theory 4.7: beyond the harm horizon the functional part of KL is 0 and what is left is incidental. On a real pair that is a claim
of *no effect*, which a test that fails to find one does not support. So late KL is called incidental only where two one-sided tests
show the rise of recovery to lie within a stated margin of 0; functional where it lies beyond the margin; else undecided.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats import Estimate

Array = NDArray[np.float64]
Verdict = Literal["none", "functional", "incidental", "undecided"]

MARGIN = 0.05
LEAST_KL = 1e-3


@dataclass(frozen=True)
class LateKl:
    """Late KL and what it buys, over prompts. `kl`: nats per late position; `rise`: of recovery, a fraction; both with the
    interval of level `1 - 2 alpha` that decides.

    `verdict`: "none" where late KL lies below `least_kl`, "functional" where the rise lies above `margin`, "incidental" where it
    lies within `-margin..margin`, else "undecided"; `p_value` is that of the equivalence test. `unseen`: the share of prompts that
    may behave otherwise without one having been drawn, with chance `alpha`.
    """

    verdict: Verdict
    kl: Estimate
    rise: Estimate
    p_value: float
    margin: float
    least_kl: float
    alpha: float
    prompts: int
    unseen: float


def late_kl(kl: Any, rise: Any, margin: float = MARGIN, least_kl: float = LEAST_KL, alpha: float = 0.05) -> LateKl:
    """Verdict from one number a prompt: `kl` `(P,)` its mean late KL, `rise` `(P,)` its mean late recovery, aligned less base.

    `late_numbers` gives both from a reading of harmful continuations; `rise` may as well be a difference of judged shares. A prompt
    where either is nan has no late positions and does not enter. With fewer than two prompts everything is undecided. t tests over
    prompts: exact for normal differences. Raises AligntaxError for lengths that differ or a margin or alpha out of range.
    """
    nats, gain = np.asarray(kl, dtype=float), np.asarray(rise, dtype=float)
    if nats.shape != gain.shape or nats.ndim != 1:
        raise AligntaxError(f"kl {nats.shape} and rise {gain.shape}; give one number of each a prompt")
    if not (0 < margin < 1 and least_kl >= 0 and 0 < alpha < 0.5):
        raise AligntaxError(f"margin={margin}, least_kl={least_kl}, alpha={alpha}; margin in (0, 1), alpha in (0, 1/2)")
    known = ~(np.isnan(nats) | np.isnan(gain))
    cost, bought = _interval(nats[known], alpha), _interval(gain[known], alpha)
    count = int(known.sum())
    return LateKl(
        _verdict(cost, bought, margin, least_kl),
        cost,
        bought,
        equivalence_p(gain[known], margin),
        margin,
        least_kl,
        alpha,
        count,
        1.0 - alpha ** (1.0 / count) if count else 1.0,
    )


def equivalence_p(values: Array, margin: float) -> float:
    """p of the two one-sided t tests that the mean of `values` `(n,)` lies outside `-margin..margin`; nan for n < 2.

    The larger of the two, so that p <= alpha exactly where the `1 - 2 alpha` interval lies inside the margin.
    """
    if len(values) < 2:
        return math.nan
    mean, se = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    room = margin - abs(mean)
    if se == 0.0:
        return 0.0 if room > 0 else 1.0
    return float(scipy.stats.t.sf(room / se, len(values) - 1))


def late_numbers(kl: Array, rise: Array, prompts: NDArray[np.int64], horizon: int) -> tuple[Array, Array]:
    """`(P,)` mean late KL in nats and mean late rise of recovery of each prompt, nan where it has no late positions.

    `kl` `(n, T)` at positions `1..T` and `rise` `(n, T+1)` after prefixes of `0..T` tokens; late are the positions past `horizon`,
    so prefixes of at least `horizon` tokens. Raises AligntaxError for a negative horizon or shapes that do not fit.
    """
    if horizon < 0 or rise.shape != (kl.shape[0], kl.shape[1] + 1) or len(prompts) != len(kl):
        raise AligntaxError(
            f"kl {kl.shape}, rise {rise.shape}, {len(prompts)} prompts, horizon={horizon}; "
            "give (n, T), (n, T+1), n and a depth >= 0"
        )
    late = np.where(np.isnan(kl), math.nan, rise[:, :-1])[:, horizon:]
    index = np.unique(prompts, return_inverse=True)[1]
    return _by_prompt(kl[:, horizon:], index), _by_prompt(late, index)


def _by_prompt(values: Array, index: NDArray[np.int64]) -> Array:
    total = np.bincount(index, weights=np.nansum(values, axis=1))
    count = np.bincount(index, weights=(~np.isnan(values)).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, math.nan)


def _interval(values: Array, alpha: float) -> Estimate:
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else math.nan, math.nan, math.nan, math.nan)
    mean, se = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    half = float(scipy.stats.t.ppf(1 - alpha, len(values) - 1)) * se
    return Estimate(mean, mean - half, mean + half, se)


def _verdict(cost: Estimate, bought: Estimate, margin: float, least_kl: float) -> Verdict:
    if cost.high < least_kl:
        return "none"
    if not cost.low >= least_kl:
        return "undecided"
    if bought.low > margin:
        return "functional"
    return "incidental" if -margin < bought.low and bought.high < margin else "undecided"
