"""How to spend one budget over layers ([G] §9.1).

What decides is `x_l = |g_l| sqrt(1 - tau_l)`, the safety gradient left after protecting the layer's tasks, not
`tau_l` alone. In nats the layers interact: only the joint Fisher matrix gives a cost, per-layer nats never add.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_rows, as_vector, rank_tolerance, unit_rows
from aligntax.geometry.fisher import Fisher, budget_to_norm
from aligntax.geometry.tax import basis, triangle


@dataclass(frozen=True)
class LayerBudget:
    """Best split of one budget: `spend` `(L,)`, its `gain`, the `equal_gain` of equal spending and `ratio >= 1`
    between them.
    """

    spend: Array
    gain: float
    equal_gain: float
    ratio: float


def layer_budget(x: Any, budget: float) -> LayerBudget:
    """Split `sum eps_l^2 = eps^2` over layers with yields `x_l = |g_l| sqrt(1-tau_l) >= 0`, every task protected in
    every layer.

    `eps_l = eps x_l/|x|`, gain `eps |x|`; equal spending gains `eps sum x_l / sqrt(L)`; ratio `sqrt(1 + CV^2(x))`
    (population CV). Raises GeometryError for a negative yield or when no layer yields anything.
    """
    yields = as_vector(x, "x")
    if (yields < 0.0).any() or not yields.any():
        raise GeometryError(f"x is {yields.tolist()}; yields are >= 0 and at least one is positive")
    if not (np.isfinite(budget) and budget >= 0.0):
        raise GeometryError(f"budget is {budget}; expected a finite number >= 0")
    size, equal = float(np.linalg.norm(yields)), float(yields.sum() / np.sqrt(yields.size))
    return LayerBudget(budget * yields / size, budget * size, budget * equal, size / equal)


def _layers(gradients: Any, capabilities: Any) -> int:
    if len(gradients) != len(capabilities) or len(gradients) == 0:
        raise GeometryError(
            f"gradients has {len(gradients)} layers and capabilities {len(capabilities)}; give one each a layer"
        )
    return len(gradients)


def _span_outside(rows: Any, gradient: Array, name: str) -> tuple[Array, Array]:
    """Basis `(d, r)` of a layer's tasks and the part of its gradient outside."""
    units, _ = unit_rows(rows, name, gradient.size)
    span = basis(units, rank_tolerance(rows, units.shape))
    return span, gradient - span @ (span.T @ gradient)


def layer_yields(gradients: Any, capabilities: Any) -> Array:
    """`x_l = |P_C^perp g_l| = |g_l| sqrt(1 - tau_l)`, shape `(L,)`, for `gradients` `(L, d)` with norms and
    `capabilities` `(L, m, d)`.
    """
    found = []
    for layer in range(_layers(gradients, capabilities)):
        gradient = as_vector(gradients[layer], f"layer {layer}: gradient")
        free = _span_outside(capabilities[layer], gradient, f"layer {layer}: capabilities")[1]
        found.append(float(np.linalg.norm(free)))
    return np.asarray(found)


def total_change_gain(gradients: Any, capabilities: Any, budget: float) -> float:
    """Gain when only each task's *total* change over layers is zero: `eps |P_C^perp g|` with gradients joined in
    `R^(L d)`.

    Layers may compensate for one another, so it is never below `layer_budget(...).gain`. `gradients` `(L, d)` and
    `capabilities` `(L, m, d)` keep their norms. Triangles of single layers are stacked, so memory stays at one layer.
    Raises GeometryError for a task that is zero in every layer.
    """
    m, joined = as_array(capabilities[0], "layer 0: capabilities").shape[0], None
    for layer in range(_layers(gradients, capabilities)):
        gradient = as_vector(gradients[layer], f"layer {layer}: gradient")
        rows = as_rows(capabilities[layer], f"layer {layer}: capabilities", gradient.size)
        short = triangle(np.concatenate([rows, gradient[None, :]]))
        joined = short if joined is None else triangle(np.concatenate([joined, short]).T)
    assert joined is not None
    units, _ = unit_rows(joined[:, :m].T, "capabilities (all layers joined)", joined.shape[0])
    free = joined[:, m]
    if m:
        span = basis(units, rank_tolerance(capabilities[0], units.shape))
        free = free - span @ (span.T @ free)
    return float(budget * np.linalg.norm(free))


def joint_layer_gain(
    gradients: Any, capabilities: Any, fisher: Fisher, nats: float, protect: Literal["each", "total"] = "each"
) -> tuple[float, Array]:
    """Most gain for `nats` nats of the *joint* Fisher matrix, and the shifts `(L, d)` that attain it.

    `fisher` lives in `R^(L d)`: its factor is the layers' gradients of the same draws, joined along the last axis.
    `protect`: every task unchanged in `each` layer, or in `total` over layers. With `P` the projector on the allowed
    shifts: `sqrt(2K) sqrt(g^T P (P F P + floor)^-1 P g)`. Metric units of `gradients` `(L, d)`.
    """
    g = np.stack([as_vector(row, "gradients") for row in gradients])
    count, width = g.shape
    if fisher.d_model != g.size:
        raise GeometryError(
            f"the Fisher matrix has width {fisher.d_model}; expected layers x d = {count} x {width} = {g.size}"
        )
    if protect == "total":
        rows = np.concatenate([as_rows(c, "capabilities", width) for c in capabilities], axis=1)
        units, _ = unit_rows(rows, "capabilities (all layers joined)", g.size)
        spans = [(basis(units, rank_tolerance(capabilities, units.shape)), slice(0, g.size))]
    else:
        blocks = [slice(i * width, (i + 1) * width) for i in range(_layers(gradients, capabilities))]
        spans = [(_span_outside(capabilities[i], g[i], f"layer {i}: capabilities")[0], b) for i, b in enumerate(blocks)]

    def allowed(rows: Array) -> Array:
        out = rows.copy()
        for span, block in spans:
            out[..., block] -= (out[..., block] @ span) @ span.T
        return out

    if fisher.floor == 0.0:
        raise GeometryError("the joint Fisher matrix needs ridge > 0: shifts outside its draws would cost nothing")
    free = allowed(g.ravel())
    kept = Fisher(allowed(fisher.factor), level=fisher.floor)
    direction = allowed(kept.solve(free))
    worth = float(np.sqrt(max(float(free @ direction), 0.0)))
    eps = budget_to_norm(nats)
    shift = eps * direction / worth if worth > 0.0 else np.zeros_like(direction)
    return eps * worth, shift.reshape(count, width)


def averaging_ratio(norms: Any, gains: Any) -> float:
    """Advantage of averaging each layer by its own fraction over one common fraction, for a given update; `>= 1`.

    Layer norms `n_l > 0`, safety gains `S_l`, `y_l = S_l/n_l`: `|y| |n| / <y, n>`. Raises GeometryError unless the
    total gain is positive.
    """
    n = as_vector(norms, "norms")
    s = as_vector(gains, "gains", n.size)
    if not (n > 0.0).all() or s.sum() <= 0.0:
        raise GeometryError(
            f"norms reach {n.min()} and gains sum to {s.sum()}; need positive norms and a positive total gain"
        )
    return float(np.linalg.norm(s / n) * np.linalg.norm(n) / s.sum())
