"""The joint tax rate, estimated so that neither noise in `v` nor items shared with the capabilities inflate it.

Estimand: with `C_A` the span of the capabilities estimated from half the groups A, the share of the true `v` inside it,
`|P_{C_A} v|^2 / |v|^2`, averaged over halves. `v` is seen only through the other half B, and always through two
different groups of it, so that noise enters neither numerator nor denominator:

    value = sum_A mean_{b != b' in B} <P_{C_A} v_b, P_{C_A} v_b'> / sum_A mean_{b != b' in B} <v_b, v_b'>

(the mean over pairs of groups equals the mean of `<P v_B1, P v_B2>` over all ways of cutting B into quarters B1, B2).

What is not claimed: `C_A` is itself noisy. A span of rank r holds r/d of any direction by chance, and what noise turns
away from the true span is missed. The floor shows the first; trust the value only where reliabilities are high.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CrossfitTax:
    """Joint tax rate `value`, the `floor` chance alone gives, `corrected = value - floor`; fractions, unclipped.

    All nan when the squared norm of v, estimated without bias, is not positive.
    """

    value: float
    floor: float
    corrected: float


def crossfit_tax(
    v: Array, capabilities: Array, controls: Array | None = None, splits: int = 70, seed: int = 0
) -> CrossfitTax:
    """Cross-fitted joint tax of `v` (J, d) on the span of `capabilities` (m, J, d), all group means of one partition.

    All `C(J, J//2)` halvings are used when they are at most `splits` (70 suffices for J = 8), else `splits` random ones
    from `seed`. Rows are scaled to unit length and the span is rank-revealing, so repeated or zero rows add nothing.

    The floor is the same estimator with the capabilities turned by a uniformly random rotation, which keeps their Gram
    matrix. Its mean over rotations is exact, `<P_R x, P_R y> = (rank/d) <x, y>`, so nothing is drawn. Gradients are not
    isotropic: given `controls` (K, m, J, d), such as the same tasks with answers shuffled K ways, the floor is the mean
    of the estimator over them instead. Raises AligntaxError for J < 4, m < 1 or shapes that disagree.
    """
    v, capabilities = np.asarray(v, dtype=np.float64), np.asarray(capabilities, dtype=np.float64)
    _check(v, capabilities, splits)
    halves = _halves(len(v), splits, seed)
    value, chance = _inside(v, capabilities, halves)
    if controls is None:
        return CrossfitTax(value, chance, value - chance)
    controls = np.asarray(controls, dtype=np.float64)
    if controls.ndim != 4 or controls.shape[1:] != capabilities.shape or not len(controls):
        raise AligntaxError(f"controls {controls.shape}; give (K, m, J, d) = (K, {capabilities.shape}) with K >= 1")
    floor = float(np.mean([_inside(v, control, halves)[0] for control in controls]))
    return CrossfitTax(value, floor, value - floor)


def span(rows: Array) -> Array:
    """Orthonormal basis (rank, d) of the span of `rows` (m, d), each scaled to unit length; zero rows add nothing.

    Rank-revealing: singular values below `max(m, d) * 1e-12` of the largest count as 0.
    """
    norms = np.linalg.norm(rows, axis=1)
    rows = rows[norms > 0] / norms[norms > 0, None]
    if not len(rows):
        return np.zeros((0, rows.shape[1]))
    _, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    return basis[sizes > sizes[0] * max(rows.shape) * 1e-12]


def _check(v: Array, capabilities: Array, splits: int) -> None:
    if v.ndim != 2 or len(v) < 4:
        raise AligntaxError(f"v {v.shape}; give (J, d) with J >= 4 groups: each half needs two")
    if capabilities.ndim != 3 or capabilities.shape[1:] != v.shape or not len(capabilities):
        raise AligntaxError(f"capabilities {capabilities.shape}; give (m, J, d) with m >= 1 and (J, d) = {v.shape}")
    if splits < 1:
        raise AligntaxError(f"splits={splits}; give at least 1")


def _halves(groups: int, splits: int, seed: int) -> NDArray[np.bool_]:
    """Masks (splits, J) of the groups that give C."""
    size = groups // 2
    if comb(groups, size) <= splits:
        chosen = list(combinations(range(groups), size))
    else:
        rng = np.random.default_rng(seed)
        chosen = [tuple(rng.permutation(groups)[:size]) for _ in range(splits)]
    masks = np.zeros((len(chosen), groups), dtype=bool)
    for mask, half in zip(masks, chosen, strict=True):
        mask[list(half)] = True
    return masks


def _inside(v: Array, capabilities: Array, halves: NDArray[np.bool_]) -> tuple[float, float]:
    """The estimator, and its exact mean over random rotations of the capabilities."""
    inside = chance = total = 0.0
    for half in halves:
        basis = span(capabilities[:, half].mean(axis=1))
        norm2 = _cross_pairs(v[~half])
        inside += _cross_pairs(v[~half] @ basis.T)
        chance += norm2 * len(basis) / v.shape[1]
        total += norm2
    if total <= 0:
        return float("nan"), float("nan")
    return inside / total, chance / total


def _cross_pairs(x: Array) -> float:
    """Sum of `<x_a, x_b>` over pairs of different rows of (n, r); every half has the same n, so no division."""
    return float(np.sum(x.sum(axis=0) ** 2) - np.sum(x**2))
