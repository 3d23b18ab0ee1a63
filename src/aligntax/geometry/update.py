"""Where an update writes, against where capabilities are read: overlap beside what chance gives ([G] §7.2).

The output subspace of an update `dW` `(d, n)` is the span of its left singular vectors. Full-rank updates touch every direction a
little, so the subspace is cut at the share of the squared length that it holds, and the rank at that cut is what chance is asked
about.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, unit_rows
from aligntax.geometry.packing import TaxLaw, random_overlap


@dataclass(frozen=True)
class OutputOverlap:
    """`squared` `(m,)`: `|P u_i|^2` in [0, 1] of each direction with the `rank`-dimensional output subspace; `law` is chance."""

    rank: int
    width: int
    squared: Array
    law: TaxLaw

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Central interval of the overlap with an isotropic direction."""
        low, high = self.law.ppf([(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def output_overlap(update: Any, directions: Any, energy: float = 0.99) -> OutputOverlap:
    """Squared overlap of the output subspace of `update` `(d, n)` with each row of `directions` `(m, d)`.

    The subspace is spanned by the leading left singular vectors that hold `energy` of `|dW|_F^2`. For an isotropic direction the
    overlap is `Beta(r/2, (d-r)/2)` with mean `r/d` ([G] §7.2). Raises GeometryError for an update of zero, a zero direction, or an
    energy outside (0, 1].

    >>> output_overlap([[1.0], [0.0]], [[1.0, 0.0], [1.0, 1.0]]).squared.round(3).tolist()
    [1.0, 0.5]
    """
    matrix = as_array(update, "update")
    if matrix.ndim != 2:
        raise GeometryError(f"update has shape {matrix.shape}; expected (d, n), outputs by inputs")
    if not 0.0 < energy <= 1.0:
        raise GeometryError(f"energy is {energy}; the share of the update's squared length lies in (0, 1]")
    width = matrix.shape[0]
    units, _ = unit_rows(directions, "directions", width)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
    if not values[0] > 0.0:
        raise GeometryError("the update is zero, so it has no output subspace; compare weights that differ")
    real = int((values > values[0] * width * np.finfo(float).eps).sum())
    rank = min(int((np.cumsum(values) / values.sum() < energy - 1e-12).sum()) + 1, real)
    squared = np.square(units @ vectors[:, :rank]).sum(axis=1)
    return OutputOverlap(rank, width, np.minimum(squared, 1.0), random_overlap(rank, width))
