"""A KL coefficient that stiffens as the policy drifts."""

from __future__ import annotations

import math

from aligntax.errors import DataError


def adaptive_beta(kl: float, beta0: float, rate: float, bounds: tuple[float, float]) -> float:
    """`beta_t = beta_0 exp(lambda KL_t)`, clipped to `bounds`, from `kl` = KL(pi_t || pi_ref) in nats and `rate` = lambda
    in 1/nats.

    The rule has no target: beta depends on the KL of the moment alone, starts at `beta0` and never falls below it while
    lambda >= 0, so where the KL comes to rest is decided by the reward, not by the user. Without the upper bound one bad
    batch freezes training. A sampled KL may be a little negative and is taken as it is. Raises DataError unless all numbers are
    finite, `beta0 > 0`, and `0 < low <= high`. ([R] adaptive KL)

    >>> adaptive_beta(0.0, beta0=0.1, rate=0.5, bounds=(0.01, 1.0)), adaptive_beta(50.0, 0.1, 0.5, (0.01, 1.0))
    (0.1, 1.0)
    """
    low, high = bounds
    if not all(map(math.isfinite, (kl, rate, low, high))):
        raise DataError(f"kl={kl}, rate={rate}, bounds={bounds}; give finite numbers")
    if not 0 < beta0 < math.inf or not 0 < low <= high:
        raise DataError(f"beta0={beta0}, bounds={bounds}; give beta0 above 0 and bounds with 0 < low <= high")
    # Clipped in the exponent as well, so that a huge KL cannot overflow.
    exponent = min(rate * kl, math.log(high / beta0) + 1.0)
    return min(max(beta0 * math.exp(exponent), low), high)
