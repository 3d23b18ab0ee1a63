"""How much there is to learn from at a position: recovery information, its gradient bound, and the KL it leads to."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.depth.ranges import Array, closed_fraction, discount, not_negative
from aligntax.errors import DepthError


def recovery_information(mass: Any, weights: Any = None) -> float:
    """`I^R_t = E_Q Var(1[y_t in R] | y_<t) = E_Q[p (1 - p)]` in [0, 1/4] ([S] Def 18).

    `mass` `(n,)` is `pi(R | y_<t)` on prefixes of `Q`, `weights` `(n,)` their probabilities (equal when None; scaled to
    sum to 1). Above 0 as soon as one prefix has `0 < p < 1`, which is generically enough for a gradient ([S] Rem 7).
    """
    p, q = _masses(mass, weights)
    return float(q @ (p * (1.0 - p)))


@dataclass(frozen=True)
class RecoveryGradientBound:
    """`|g^R_t| <= sharp <= loose`: `E_Q sqrt(p (1-p) J_t)` and `sqrt(I^R_t E_Q J_t)`."""

    sharp: float
    loose: float


def recovery_gradient_bound(mass: Any, traces: Any, weights: Any = None) -> RecoveryGradientBound:
    """Bounds on the norm of the recovery gradient `g^R_t = grad E_Q[1 - pi(R | y_<t)]` ([S] Lem 28, sharpened).

    `traces` `(n,)` are `J_t(y_<t)`, the trace of the Fisher matrix of the next token given each prefix, averaged over `Q`.
    """
    p, q = _masses(mass, weights)
    fisher = not_negative(traces, "traces")
    if fisher.shape != p.shape:
        raise DepthError(f"traces has shape {fisher.shape}; expected {p.shape}, one a prefix")
    variance = p * (1.0 - p)
    return RecoveryGradientBound(float(q @ np.sqrt(variance * fisher)), float(math.sqrt((q @ variance) * (q @ fisher))))


def small_penalty_kl(
    harm_gradient: Any, recovery_gradient: Any, fisher: Any, strength: float = 1.0, x: float = 1.0
) -> float:
    """`D_t = (1/2) (lambda g_t + x g^R_t)^T F_t^+ (lambda g_t + x g^R_t)` in nats ([S] Thm 19).

    Leading order in `lambda` and `x = mu gamma^t`, for positions with parameters of their own. `g^R_t` is the gradient of
    the recovery *failure*; gradients `(d,)`, `fisher` `(d, d)`. Reduces to [S] Thm 14 at `x = 0`.
    """
    force = strength * np.asarray(harm_gradient, dtype=float) + float(x) * np.asarray(recovery_gradient, dtype=float)
    matrix = np.asarray(fisher, dtype=float)
    if force.ndim != 1 or matrix.shape != (force.size, force.size):
        raise DepthError(f"gradients of shape {force.shape} do not fit a Fisher matrix of shape {matrix.shape}")
    return float(0.5 * force @ np.linalg.pinv(matrix, rcond=1e-12, hermitian=True) @ force)


def aggregate_recovery_kl(mu: float, gamma: float, information: float, horizon: int = 0) -> float:
    """`I mu^2 gamma^(2(k+1)) / (2 (1 - gamma^2))` nats: total recovery KL beyond the horizon `k` for a small penalty and
    the same information `I` at every position ([S] Rem 6).

    inf at `gamma = 1`: equal depth everywhere has no finite price, unless `mu` or the information is 0.
    """
    level = float(closed_fraction(information, "information"))
    penalty, rate = float(not_negative(mu, "mu")), float(discount(gamma))
    scale = 0.5 * level * penalty**2 * rate ** (2.0 * (float(not_negative(horizon, "horizon")) + 1.0))
    if scale == 0.0:
        return 0.0
    return scale / (1.0 - rate**2) if rate < 1.0 else math.inf


def _masses(mass: Any, weights: Any) -> tuple[Array, Array]:
    p = np.atleast_1d(closed_fraction(mass, "mass"))
    q = np.ones(p.shape) if weights is None else np.atleast_1d(not_negative(weights, "weights"))
    if p.ndim != 1 or q.shape != p.shape:
        raise DepthError(f"mass of shape {p.shape} and weights of shape {q.shape}; expected (n,) each, one a prefix")
    if not q.sum() > 0.0:
        raise DepthError(f"weights sum to {q.sum()}; give at least one prefix some weight")
    return p, q / q.sum()
