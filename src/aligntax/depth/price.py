"""The price of depth: what a discount and a penalty buy at each depth, and what they cost in total."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.depth.ranges import Array, discount, not_negative, open_fraction
from aligntax.depth.recovery import optimal_recovery
from aligntax.errors import DepthError


@dataclass(frozen=True)
class DepthPrice:
    """`recovery[i, j, k]` is the mass at `depths[k]` and `total_kl[i, j]` the nats over all positions, for `mus[i]` and
    `gammas[j]`.
    """

    mus: Array
    gammas: Array
    depths: tuple[int, ...]
    recovery: Array
    total_kl: Array

    def cheapest(self, delta: float, depth: int) -> tuple[float, float] | None:
        """`(mu, gamma)` of the grid with recovery `>= delta` at `depth` for the fewest nats; None where none has it."""
        if depth not in self.depths:
            raise DepthError(f"depth={depth}: this table holds depths {list(self.depths)}")
        enough = self.recovery[:, :, self.depths.index(depth)] >= float(open_fraction(delta, "delta"))
        if not enough.any():
            return None
        i, j = np.unravel_index(int(np.argmin(np.where(enough, self.total_kl, np.inf))), enough.shape)
        return float(self.mus[i]), float(self.gammas[j])


def price_of_depth(p0: Any, mus: Any, gammas: Any, depths: Sequence[int] = (5, 20, 40)) -> DepthPrice:
    """Recovery at `depths` and total KL of the optimum for every `mu` and `gamma` ([S] Rem 6).

    `p0` `(T,)` is the base's recovery mass at positions `1..T`, in (0, 1); the optimum is that of `optimal_recovery` at
    `x = mu gamma^t`. Raises DepthError for a depth outside `1..T`.
    """
    base = open_fraction(p0, "p0")
    if base.ndim != 1:
        raise DepthError(f"p0 has shape {base.shape}; expected (T,), one mass a position")
    for depth in depths:
        if not 1 <= depth <= base.size:
            raise DepthError(f"depth={depth}: p0 holds positions 1..{base.size}")
    grid = np.atleast_1d(not_negative(mus, "mu")), np.atleast_1d(discount(gammas))
    shift = grid[0][:, None, None] * grid[1][:, None] ** np.arange(1, base.size + 1)
    p, kl = optimal_recovery(base, shift)
    return DepthPrice(*grid, tuple(depths), p[:, :, np.asarray(depths, dtype=int) - 1], kl.sum(-1))
