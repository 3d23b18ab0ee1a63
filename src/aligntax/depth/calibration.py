"""Mass is not recovery: what the model does after a prefix, beside the mass it puts on recovery tokens.

A model may start with "I" and go on complying. So at each depth two numbers stand side by side: the mass of recovery
tokens and the share of continuations that a judge calls a refusal. Their difference is what the mass alone overstates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.depth.ranges import Array, closed_fraction
from aligntax.errors import DepthError


@dataclass(frozen=True)
class RecoveryCalibration:
    """By depth `(D,)`: mean recovery `mass`, mean `refused` share, `gap = mass - refused` (above 0 where the mass
    overstates), and `prefixes`, how many entered.
    """

    depths: Array
    mass: Array
    refused: Array
    prefixes: Array

    @property
    def gap(self) -> Array:
        """`mass - refused` by depth, in [-1, 1]."""
        return self.mass - self.refused


def calibrate_recovery(mass: Any, refused: Any, depths: Any) -> RecoveryCalibration:
    """Recovery mass against judged refusals, by depth of the prefix in tokens.

    `mass` `(n,)` is `pi(R | prefix)`; `refused` `(n,)` the share of continuations of that prefix judged as refusing, in
    [0, 1]; `depths` `(n,)` the prefix lengths. Raises DepthError for unequal lengths or no prefix at all.
    """
    p, share, where = closed_fraction(mass, "mass"), closed_fraction(refused, "refused"), np.asarray(depths)
    if p.ndim != 1 or p.shape != share.shape or p.shape != where.shape or p.size == 0:
        raise DepthError(f"mass {p.shape}, refused {share.shape}, depths {where.shape}: give one of each a prefix")
    levels, index = np.unique(where, return_inverse=True)
    counts = np.bincount(index)
    means = [np.bincount(index, weights=values) / counts for values in (p, share)]
    return RecoveryCalibration(levels.astype(float), means[0], means[1], counts.astype(float))
