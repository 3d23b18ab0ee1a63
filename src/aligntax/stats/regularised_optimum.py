"""What the KL-regularised objective is after: its best policy over finitely many responses, and what beta does to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax, xlogy

from aligntax.errors import DataError


@dataclass(frozen=True, eq=False)
class RegularisedOptimum:
    """The maximiser of `E[r] - beta KL`: `policy` (n,), its expected `reward`, its `kl` in nats, and `value`, the maximum."""

    policy: NDArray[np.float64]
    reward: float
    kl: float
    value: float


def regularised_optimum(reward: ArrayLike, reference: ArrayLike, beta: float) -> RegularisedOptimum:
    """`pi* ~ pi_ref exp(r / beta)` over n responses; the maximum is `beta log E_ref exp(r / beta)`.

    As beta grows, reward and KL of the optimum both fall: a larger beta is *less* alignment and less capability lost, the
    reverse of "beta up, alignment up, capability down" ([R] core trade-off, corrected). Raises DataError for beta <= 0, a
    reference that is no distribution, or rewards that are not finite.

    >>> optimum = regularised_optimum([0.0, 1.0], [0.5, 0.5], beta=1.0)
    >>> round(optimum.reward, 4), round(optimum.kl, 4)
    (0.7311, 0.1109)
    """
    gain, base = np.asarray(reward, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if not (np.isfinite(beta) and beta > 0):
        raise DataError(f"beta={beta}; give a finite number above 0")
    if gain.ndim != 1 or gain.shape != base.shape or not np.isfinite(gain).all():
        raise DataError(
            f"reward {gain.shape} and reference {base.shape}; give one finite reward and probability a response"
        )
    if not (base >= 0).all() or abs(base.sum() - 1) > 1e-9:
        raise DataError(
            f"reference sums to {base.sum()} with smallest entry {base.min()}; give probabilities that sum to 1"
        )
    with np.errstate(divide="ignore"):
        policy = softmax(np.log(base) + gain / beta)
    expected = float(policy @ gain)
    kl = float(np.sum(xlogy(policy, policy) - xlogy(policy, np.where(base > 0, base, 1.0))))
    return RegularisedOptimum(policy, expected, kl, expected - beta * kl)
