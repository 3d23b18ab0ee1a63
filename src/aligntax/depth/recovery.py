"""What the recovery objective buys beyond the harm horizon, in closed form ([S] §9, App. B).

A penalty of `x = mu gamma^t` nats adds `x` to the log-odds of recovery at position `t`. Everything here follows from
that: how likely recovery is after a prefill of any length, what it costs in nats, and which prefill is long enough to
beat it. Positions count from 1, so a prefill of `n` tokens is followed by position `n + 1`. Exact when KL is averaged
over the same prefixes as the penalty (`rho = Q`); it speaks of *mass* on recovery tokens, not of what the model goes on
to say. No finite penalty creates recovery where the base has none ([S] Rem 10), so `p0 = 0` is an error.
"""

import math
from typing import Any

import numpy as np
import scipy.special

from aligntax.depth.ranges import Array, closed_fraction, discount, not_negative, open_fraction

SERIES_BELOW = 1e-2
"""Nats under which the closed form of the KL loses digits (relative error `1e-16/x`) and its series takes over."""


def optimal_recovery(p0: Any, x: Any) -> tuple[Any, Any]:
    """Mass of recovery tokens at the optimum and its KL in nats: `p* = sigmoid(logit p0 + x)`, `KL = x p* - log Z`,
    `Z = 1 - p0 + p0 e^x` ([S] Thm 20; the shift of the log-odds is [S] Rem 8).

    The optimal law is `pi_0 exp(x 1[R])/Z`. `p0` in (0, 1) and `x >= 0` broadcast; both results have that shape, `p*` in
    (0, 1], KL `>= 0`, full precision from `p0 = 1e-300` on. Raises DepthError outside these ranges.

    >>> p, nats = optimal_recovery(0.5, 1.0)
    >>> round(float(p), 6), round(float(nats), 6)
    (0.731059, 0.110944)
    """
    base, shift = np.broadcast_arrays(open_fraction(p0, "p0"), not_negative(x, "x"))
    p = scipy.special.expit(_logit(base) + shift)
    kl = np.where(shift < SERIES_BELOW, _kl_series(base, shift), _kl_closed(base, shift))
    return p[()], np.maximum(kl, 0.0)[()]


def log_form_recovery(p0: Any, x: Any) -> tuple[Any, Any]:
    """Optimum of the log form `KL + x (-log pi(R))`: mass and KL in nats, with `logit p* - logit p0 = x/p*`.

    The effective shift is `x + omega(log x - logit p0 - x)` with Wright's omega, so never below the linear form's. Shapes
    and ranges as in `optimal_recovery`.
    """
    base, penalty = np.broadcast_arrays(open_fraction(p0, "p0"), not_negative(x, "x"))
    with np.errstate(divide="ignore"):
        extra = scipy.special.wrightomega(np.log(penalty) - _logit(base) - penalty)
    return optimal_recovery(base, penalty + np.where(penalty > 0.0, extra, 0.0))


def recovery_pressure(p: Any, x: Any, form: str = "linear") -> Any:
    """Pull of the penalty on the log-odds of recovery at mass `p`: `x p (1 - p)`, or `x (1 - p)` in the log form.

    At `p = 1e-4` the linear form pulls 1e4 times less: it starts slowly exactly where it is needed.
    """
    mass = closed_fraction(p, "p")
    return (not_negative(x, "x") * (1.0 - mass) * (1.0 if form == "log" else mass))[()]


def recovery_kl_bound(p0: Any, x: Any) -> Any:
    """`min(x (p* - p0), x^2/8, -log p0)` in nats, never below the KL of `optimal_recovery` ([S] Thm 22, sharpened)."""
    base, shift = open_fraction(p0, "p0"), not_negative(x, "x")
    gained = optimal_recovery(base, shift)[0] - base
    return np.minimum(np.minimum(shift * gained, shift**2 / 8.0), -np.log(base))[()]


def total_kl_bound(mu: float, gamma: float, horizon: int, depth: int | None = None) -> float:
    """Most nats that recovery can cost at positions `horizon + 1 .. depth`: `sum mu gamma^t` ([S] Thm 22).

    `mu gamma^(k+1)/(1-gamma)` when `depth` is None (no end), inf there at `gamma = 1`; `mu (T - k)` at `gamma = 1`.
    """
    penalty, rate = float(not_negative(mu, "mu")), float(discount(gamma))
    first, last = float(not_negative(horizon, "horizon")), math.inf
    if depth is not None:
        last = max(first, float(not_negative(depth, "depth")))
    if penalty == 0.0:
        return 0.0
    if rate == 1.0:
        return penalty * (last - first)
    return float(penalty * rate ** (first + 1.0) * -np.expm1((last - first) * math.log(rate)) / (1.0 - rate))


def recoverability(p_min: Any, mu: float, gamma: float, depth: Any) -> Any:
    """`delta = sigmoid(logit p_min + mu gamma^T)`: least recovery mass at every position up to `depth` ([S] Def 21,
    Thm 22).

    `p_min` is the least base mass over all prefixes up to there. A fraction, attained by the worst prefix at `T`.
    """
    shift = not_negative(mu, "mu") * discount(gamma) ** not_negative(depth, "depth")
    return optimal_recovery(open_fraction(p_min, "p_min"), shift)[0]


def required_penalty(p_min: float, delta: float, gamma: float, depth: float) -> float:
    """Least `mu` in nats with recovery `>= delta` down to `depth`: `max(0, logit delta - logit p_min) gamma^-T`
    ([S] Rem 10).

    inf where that exceeds a double; 0 where the base recovers anyway.
    """
    wanted = float(_logit(open_fraction(delta, "delta")) - _logit(open_fraction(p_min, "p_min")))
    exponent = -float(not_negative(depth, "depth")) * math.log(float(discount(gamma)))
    if wanted <= 0.0:
        return 0.0
    return wanted * math.exp(exponent) if exponent < 700.0 else math.inf


def attack_length(p0: float, delta: float, mu: float, gamma: float) -> float:
    """`t*`: recovery is below `delta` exactly at positions `t > t*` ([S] Cor 23, corrected).

    `log(mu/Lam)/log(1/gamma)` with `Lam = logit delta - logit p0`, in tokens, negative where even position 1 is below. inf
    where no position is (`Lam <= 0`, or `gamma = 1` and `mu >= Lam`); -inf where all are (`mu = 0`, or `gamma = 1`).
    """
    base, wanted = float(open_fraction(p0, "p0")), float(open_fraction(delta, "delta"))
    penalty, rate = float(not_negative(mu, "mu")), float(discount(gamma))
    needed = float(scipy.special.logit(wanted) - scipy.special.logit(base))
    if needed <= 0.0:
        return math.inf
    if penalty == 0.0:
        return -math.inf
    if rate == 1.0:
        return math.inf if penalty >= needed else -math.inf
    return (math.log(penalty) - math.log(needed)) / -math.log(rate)  # the ratio itself may underflow


def least_prefill(p0: float, delta: float, mu: float, gamma: float) -> int | None:
    """Tokens an attacker must write before recovery falls below `delta`: `max(0, floor(t*))`; None where no finite
    prefix suffices ([S] Cor 23, corrected).

    At a whole `t*` recovery equals `delta`, which is not below; 1e-9 is the rounding allowed for that.
    """
    last = attack_length(p0, delta, mu, gamma)
    if last == math.inf:
        return None
    return math.floor(last * (1.0 + 1e-9) + 1e-9) if last > 0.0 else 0


def _logit(p: Array) -> Array:
    return np.asarray(np.log(p) - np.log1p(-p))


def _kl_series(p0: Array, x: Array) -> Array:
    """`sum_n k_n x^n (n-1)/n!` to sixth order, `k_n` the cumulants of the base's Bernoulli: `x K' - K` for `K = log Z`."""
    q, skew = p0 * (1.0 - p0), 1.0 - 2.0 * p0
    high = x * (skew * (1 - 12 * q) / 30.0 + x * (1 - 30 * q + 120 * q**2) / 144.0)
    return np.asarray(q * x**2 * (0.5 + x * (skew / 3.0 + x * ((1 - 6 * q) / 8.0 + high))))


def _kl_closed(p0: Array, x: Array) -> Array:
    """`x p* - log Z`, or the same with recovery and its complement swapped where `p* > 1/2`, so that nothing cancels."""
    odds = _logit(p0) + x
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        tilt = np.where(x < 1.0, p0 * np.expm1(x), np.exp(np.minimum(x + np.log(p0), 1.0)) - p0)
        below = x * scipy.special.expit(odds) - np.log1p(tilt)
        lost = np.where(p0 > 0.5, np.log1p((1.0 - p0) * np.expm1(-x)), np.log(p0 + (1.0 - p0) * np.exp(-x)))
        above = -x * scipy.special.expit(-odds) - lost
    return np.where(odds <= 0.0, below, above)
