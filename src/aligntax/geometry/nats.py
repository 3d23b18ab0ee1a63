"""The frontier under a budget in nats, in the metrics' own units.

Whitened, the problem is the one with a round budget; gradients keep their norms, so gains come back as metric units
and prices as safety per metric unit of task i and safety per nat. Pass `fisher.isotropic()` for the round budget of
equal mean cost.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_vector, to_numpy
from aligntax.geometry.fisher import Fisher, budget_to_norm, whiten
from aligntax.geometry.frontier import max_safety
from aligntax.geometry.tolerances import ToleranceSolution, max_safety_with_tolerances


def _norms(safety: Array, rows: Array) -> tuple[float, Array]:
    sizes = np.linalg.norm(rows, axis=1)
    if (sizes == 0.0).any():
        raise GeometryError(
            f"capabilities row {int(np.flatnonzero(sizes == 0.0)[0])} is zero and has no direction; leave it out"
        )
    return float(np.linalg.norm(safety)), sizes


def max_gain_per_nats(
    safety: Any, capabilities: Any, tolerances: Any, fisher: Fisher, nats: float, names: Sequence[str] | None = None
) -> ToleranceSolution:
    """Most safety gain for `nats` nats when task i may lose at most `tolerances[i]` metric units.

    `max <g, delta>  s.t.  <g_i, delta> >= -t_i,  1/2 delta^T F_reg delta <= K`, with `safety` g `(d,)` and
    `capabilities` g_i `(m, d)` gradients that keep their norms. Gain and tolerances in metric units; shift in
    original coordinates; `prices` safety units per unit of task i; `budget_price` safety units per nat. Raises as
    `max_safety_with_tolerances` and `Fisher.solve`. Source: [G] §4.4.
    """
    if not nats > 0.0:
        raise GeometryError(f"budget is {nats} nats; expected a number > 0")
    v, rows = whiten(safety, capabilities, fisher)
    size, sizes = _norms(v, rows)
    eps = budget_to_norm(nats)
    unit = max_safety_with_tolerances(v, rows, np.asarray(to_numpy(tolerances), dtype=np.float64) / sizes, eps, names)
    scale = size / sizes
    return ToleranceSolution(
        gain=size * unit.gain,
        shift=fisher.sqrt_solve(unit.shift),
        active=unit.active,
        prices=scale * unit.prices,
        budget_price=size * unit.budget_price / eps,
        price_low=scale * unit.price_low,
        price_high=scale * unit.price_high,
    )


def max_gain_at_changes(
    safety: Any, capabilities: Any, changes: Any, fisher: Fisher, nats: float, names: Sequence[str] | None = None
) -> tuple[float, Array]:
    """Most safety gain for `nats` nats when task i changes by exactly `changes[i]` metric units; gain and shift
    `(d,)`.

    The equality form ([G] Thm 4.3 under §4.4) of `max_gain_per_nats`; same units, same errors as `max_safety`.
    """
    v, rows = whiten(safety, capabilities, fisher)
    size, sizes = _norms(v, rows)
    b = as_vector(changes, "changes", len(rows)) / sizes
    gain, shift = max_safety(v, rows, b, budget_to_norm(nats), names)
    return size * gain, fisher.sqrt_solve(shift)
