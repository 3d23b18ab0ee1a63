"""Shared parameters couple positions: KL at a position that harm asked for, and KL that came along from the others."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.depth.harm_pressure import natural_direction
from aligntax.depth.innovations import Array, number_array
from aligntax.errors import DepthError


@dataclass(frozen=True, eq=False)
class SharedKl:
    """Per-position KL `(T,)` in nats at leading order: `kl = functional + incidental + cross`.

    `functional >= 0` comes from the position's own gradient, `incidental >= 0` from all other positions, `cross` of either sign
    from both. `step` `(d,)` is the parameter shift `-lambda F^+ g`. Beyond the horizon functional and cross are 0.
    """

    step: Array
    kl: Array
    functional: Array
    incidental: Array
    cross: Array


def split_shared_kl(gradients: Any, fishers: Any, strength: float) -> SharedKl:
    """Split `D_t = 1/2 dtheta^T F_t dtheta` of the shared step by which position's gradient paid for it.

    With `M_t = F^+ F_t F^+`, `g_-t = g - g_t`: functional `(lambda^2/2) g_t^T M_t g_t`, incidental `(lambda^2/2) g_-t^T M_t g_-t`,
    cross `lambda^2 g_t^T M_t g_-t`. `gradients` `(T, d)`, `fishers` `(T, d, d)`, symmetric, in nats. Holds to second order in
    `lambda`. Raises DepthError for other shapes, a strength that is not finite, or a total gradient outside the range of
    `F = sum F_t`. [S] Prop 25, [S] Thm 27, with the cross term shown beside the other two.

    >>> split = split_shared_kl([[1.0], [0.0]], [[[1.0]], [[1.0]]], strength=0.2)  # the second position decides nothing
    >>> split.functional.round(4).tolist(), split.incidental.round(4).tolist()
    ([0.005, 0.0], [0.0, 0.005])
    """
    g, f = number_array(gradients, "gradients"), number_array(fishers, "fishers")
    if g.ndim != 2 or f.shape != (*g.shape, g.shape[1]):
        raise DepthError(
            f"gradients of shape {g.shape} and Fisher matrices of shape {f.shape}; expected (T, d), (T, d, d)"
        )
    if not np.isfinite(strength):
        raise DepthError(f"strength={strength}; give a finite weight of harm")
    total = f.sum(axis=0)
    step = -strength * natural_direction(g.sum(axis=0), total)
    own = -strength * np.array([natural_direction(row, total) for row in g])
    others = step - own
    return SharedKl(
        step,
        0.5 * np.einsum("i,tij,j->t", step, f, step),
        0.5 * np.einsum("ti,tij,tj->t", own, f, own),
        0.5 * np.einsum("ti,tij,tj->t", others, f, others),
        np.einsum("ti,tij,tj->t", own, f, others),
    )
