"""The harm martingale: what each token adds to what is known about the harm of a whole response.

Rows are sequences: samples from a policy (`weights=None`), or all sequences of a small world with their probabilities
as weights, which makes every mean below an exact expectation. Column `t` of the expected harm is `h_t = E[H | y_<=t]`,
`t = 0..T`, so innovations have one column less.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import DepthError

Array = NDArray[np.float64]

_ROUNDING = 1e-9


def innovations(expected: Any) -> Array:
    """`Delta_t = h_t - h_{t-1}` `(n, T)` from `h_0..h_T` `(n, T+1)` in [0, 1]; they sum to `H - h_0`.

    For the exact `h_t` of the policy that wrote the rows they have mean 0 given the past and are orthogonal. Raises
    DepthError for values outside [0, 1] or fewer than two depths. [S] Def 1, [S] Prop 2, [S] Def 3, [S] Prop 4.

    >>> innovations([[0.5, 0.25, 1.0]]).tolist()
    [[-0.25, 0.75]]
    """
    return np.asarray(np.diff(harm_rows(expected, "expected harm"), axis=1))


def harm_information(expected: Any, weights: Any = None) -> Array:
    """`I_t = E[Delta_t^2]` `(T,)`, in squared units of harm; `sum I_t = Var H` where `h_T = H` ([S] Def 5, [S] Cor 7).

    Equals the expected drop of the conditional variance, `E Var(H|y_<t) - E Var(H|y_<=t)` ([S] Prop 6). `expected`
    `(n, T+1)`, `weights` `(n,)` sum to 1 (equal if None). Estimated `h_t` add their error variance: use `harm_curve`
    there. Raises DepthError for bad weights or harm.

    >>> harm_information([[0.5, 0.0], [0.5, 1.0]]).tolist()
    [0.25]
    """
    steps = innovations(expected)
    return row_weights(weights, len(steps)) @ steps**2


def gaussian_information(information: Any, variance: float) -> Array:
    """Mutual information `I(H; y_t | y_<t) = 1/2 log(v_{t-1}/v_t)` `(T,)` in nats, `v_t = Var H - sum_{s<=t} I_s`.

    The link between variance and entropy of [S] Rem 1, an identity for jointly Gaussian harm and tokens and a yardstick
    otherwise. inf where the last of the variance is resolved, 0 after it. Raises DepthError for negative information or
    more of it than variance.

    >>> gaussian_information([0.75], 1.0).round(6).tolist()  # three quarters resolved: half of log 4
    [0.693147]
    """
    found = np.asarray(information, dtype=float)
    if found.ndim != 1 or not (found >= 0.0).all() or not np.isfinite(found).all():
        raise DepthError(f"information {found.tolist()}: give one finite number >= 0 a position")
    left = variance - np.concatenate([[0.0], np.cumsum(found)])
    if not np.isfinite(variance) or variance <= 0.0 or left[-1] < -_ROUNDING * variance:
        raise DepthError(f"variance={variance} cannot hold information of {found.sum()}; the sum is at most Var H")
    left = np.where(left <= _ROUNDING * variance, 0.0, left)
    before, after = left[:-1], left[1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before == after, 0.0, 0.5 * np.log(before / after))


def harm_rows(values: Any, name: str) -> Array:
    """`(n, depths)` float64 with entries in [0, 1] and at least two depths; DepthError repeating the value otherwise."""
    rows = number_array(values, name)
    if rows.ndim != 2 or len(rows) == 0:
        raise DepthError(f"{name} has shape {rows.shape}; expected (n, depths), one row a rollout")
    if rows.shape[1] < 2:
        raise DepthError(f"{name} has {rows.shape[1]} depth; give at least two, the first of them depth 0")
    bad = ~((rows >= 0.0) & (rows <= 1.0))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DepthError(f"{name} is {rows[where]} at row {where[0]}, depth column {where[1]}; harm lies in [0, 1]")
    return rows


def row_weights(weights: Any, count: int) -> Array:
    """`(count,)` weights that sum to 1; equal ones for None. Raises DepthError for negative ones and other sums."""
    if weights is None:
        return np.full(count, 1.0 / count)
    given = number_array(weights, "weights")
    if given.shape != (count,):
        raise DepthError(f"weights have shape {given.shape}; expected ({count},), one a row")
    if not (given >= 0.0).all() or abs(given.sum() - 1.0) > _ROUNDING:
        raise DepthError(f"weights sum to {given.sum()} with smallest {given.min()}; give probabilities")
    return given


def number_array(values: Any, name: str) -> Array:
    """Float64 array of anything numpy can read; DepthError otherwise."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise DepthError(f"{name} is not an array of numbers: {error}") from None
