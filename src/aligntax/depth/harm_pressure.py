"""Where the gradient of expected harm acts, how large it can be, and the KL that it buys.

Rows are sequences with weights, as in `innovations`; scores `s_t = grad log pi(y_t | y_<t)` have mean 0 given the past.
"""

import math
from typing import Any

import numpy as np
import scipy.linalg

from aligntax.depth.innovations import Array, number_array, row_weights
from aligntax.errors import DepthError


def gradient_by_position(steps: Any, scores: Any, weights: Any = None) -> Array:
    """`g_t = E[Delta_t s_t] = E Cov(h_t, s_t | y_<t)` `(T, d)`; `sum_t g_t = grad E[H]`. [S] Thm 8, [S] Thm 10.

    `steps` are innovations `(n, T)`, `scores` `(n, T, d)`, `weights` `(n,)` (equal if None). 0 at positions whose innovations are
    0. With sampled rows this is the policy gradient with the baseline `h_{t-1}` and the reward `h_t`, unbiased if `h_t` is
    exact. Raises DepthError for shapes that differ.
    """
    delta, s = number_array(steps, "innovations"), number_array(scores, "scores")
    if delta.ndim != 2 or s.ndim != 3 or s.shape[:2] != delta.shape:
        raise DepthError(
            f"innovations of shape {delta.shape} and scores of shape {s.shape}; expected (n, T) and (n, T, d)"
        )
    return np.asarray(np.einsum("n,nt,ntd->td", row_weights(weights, len(delta)), delta, s))


def gradient_bounds(variances: Any, fisher_traces: Any, weights: Any = None) -> tuple[Array, Array]:
    """`E sqrt(Var(h_t|y_<t) J_t(y_<t))` and `sqrt(I_t E J_t)`, each `(T,)`: `|g_t| <= first <= second`.

    [S] Lem 12, [S] Thm 13, sharpened: no uniform bound on `J_t`, the trace of the conditional Fisher matrix, is needed. The first
    is attained where score and innovation are proportional with one sign ([S] Rem 5). `variances` and `fisher_traces` `(n, T)`,
    by row, of the prefix before position `t`. Raises DepthError for negative entries or shapes that differ.
    """
    v, j = number_array(variances, "variances"), number_array(fisher_traces, "fisher_traces")
    if v.ndim != 2 or v.shape != j.shape:
        raise DepthError(f"variances of shape {v.shape} and Fisher traces of shape {j.shape}; expected (n, T) for both")
    for name, values in (("variances", v), ("fisher_traces", j)):
        if not (values >= 0.0).all():
            raise DepthError(f"{name} hold {values.min()}; they are >= 0")
    chance = row_weights(weights, len(v))
    return chance @ np.sqrt(v * j), np.sqrt((chance @ v) * (chance @ j))


def gibbs_conditionals(log_probs: Any, moments: Any) -> Array:
    """`log pi*(y_t|y_<t)` of the minimiser of `lambda E[H] + KL(pi|pi_0)`: `pi_0(y_t|y_<t) Z(y_<=t)/Z(y_<t)`.

    [S] Thm 14, sharpened: exact for every `lambda` over all policies. `log_probs` `(.., V)` of the base, in nats; `moments`
    `(.., V)` hold `Z(y_<=t) = E_0[exp(-lambda H) | y_<=t]` of each next token; beyond the horizon they do not depend on it and
    nothing moves. Raises DepthError for moments that are not positive.
    """
    base, z = number_array(log_probs, "log_probs"), number_array(moments, "moments")
    if base.shape != z.shape:
        raise DepthError(f"log_probs of shape {base.shape} and moments of shape {z.shape} differ")
    if not ((z > 0.0) & np.isfinite(z)).all():
        raise DepthError(f"moments hold {z[~((z > 0.0) & np.isfinite(z))][0]}; E[exp(-lambda H)] is finite and > 0")
    tilted = base + np.log(z)
    top = tilted.max(axis=-1, keepdims=True)
    return np.asarray(tilted - top - np.log(np.exp(tilted - top).sum(axis=-1, keepdims=True)))


def leading_order_kl(information: Any, strength: float) -> Array:
    """`D_t = (lambda^2/2) I_t + O(lambda^3)` `(T,)` nats at the equilibrium over all policies. [S] Cor 15, sharpened.

    An equality at leading order and not only a bound; exactly 0 beyond the horizon. Raises DepthError for a strength that is
    not finite.
    """
    return np.asarray(0.5 * _strength(strength) ** 2 * number_array(information, "information"))


def decoupled_kl(gradient: Any, fisher: Any, strength: float) -> float:
    """`D_t = (lambda^2/2) g_t^T F_t^+ g_t` nats for a position with parameters of its own. [S] Thm 14.

    `gradient` `(d,)`, `fisher` `(d, d)` of that position. Raises DepthError where the gradient leaves the range of the Fisher
    matrix, because then no quadratic holds it back.
    """
    g, f = number_array(gradient, "gradient"), number_array(fisher, "fisher")
    if g.ndim != 1 or f.shape != (g.size, g.size):
        raise DepthError(f"gradient of shape {g.shape} and Fisher matrix of shape {f.shape}; expected (d,) and (d, d)")
    return float(0.5 * _strength(strength) ** 2 * (g @ natural_direction(g, f)))


def natural_direction(gradient: Array, fisher: Array) -> Array:
    """`F^+ g`. Raises DepthError where `g` is not in the range of `F` to a part in a million.

    A gradient of harm is at most `sqrt(tr F)/2`, so what is below a trillionth of that is rounding and no direction.
    """
    solved = scipy.linalg.pinvh(fisher, rtol=1e-11) @ gradient
    size, left = float(np.linalg.norm(gradient)), float(np.linalg.norm(fisher @ solved - gradient))
    if left > 1e-6 * size and left > 1e-12 * math.sqrt(max(float(np.trace(fisher)), 0.0)):
        raise DepthError(
            f"{left / size:.3g} of the gradient lies outside the range of the Fisher matrix; regularise the matrix"
        )
    return np.asarray(solved)


def _strength(strength: float) -> float:
    if not np.isfinite(strength):
        raise DepthError(f"strength={strength}; give a finite weight of harm")
    return float(strength)
