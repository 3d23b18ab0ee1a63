"""How two safety objectives conflict, before and after protecting capabilities, with error bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.cosine import estimate_cosine
from aligntax.stats.crossfit import span
from aligntax.stats.resample import Estimate, jackknife, jackknife_se, t_quantile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConflictInterval:
    """Cosines of two objectives, each with a jackknife interval over groups.

    rho: debiased for noise. rho_plain: of the mean vectors as they are. rho_eff: of the mean vectors after projecting
    out the capabilities, so noise shrinks it as it shrinks rho_plain: compare those two with each other.
    """

    rho: Estimate
    rho_plain: Estimate
    rho_eff: Estimate


def conflict_interval(v1: Array, v2: Array, caps: Array, level: float = 0.9) -> ConflictInterval:
    """Conflict of objectives `v1`, `v2` (J, d) given capabilities `caps` (m, J, d), group means of one partition.

    `rho_eff = (rho - a^T G^+ b)/sqrt((1-tau_1)(1-tau_2))`, the partial correlation ([G] Prop 6.5), computed as the
    cosine of what the two means keep outside the rank-revealing span of the mean capabilities; each jackknife replicate
    estimates v1, v2 and the span anew. nan when an objective lies inside the span. Raises AligntaxError for J < 3 or
    shapes that disagree. m = 0 leaves rho_eff = rho_plain.
    """
    v1, v2, caps = (np.asarray(x, dtype=np.float64) for x in (v1, v2, caps))
    if v1.ndim != 2 or len(v1) < 3 or v2.shape != v1.shape or caps.ndim != 3 or caps.shape[1:] != v1.shape:
        raise AligntaxError(
            f"v1 {v1.shape}, v2 {v2.shape}, caps {caps.shape}; give (J, d), (J, d), (m, J, d) with one J >= 3"
        )

    def plain(keep: NDArray[np.int64]) -> float:
        return _cosine(v1[keep].mean(axis=0), v2[keep].mean(axis=0))

    def effective(keep: NDArray[np.int64]) -> float:
        basis = span(caps[:, keep].mean(axis=1))
        return _cosine(_outside(v1[keep].mean(axis=0), basis), _outside(v2[keep].mean(axis=0), basis))

    rho = estimate_cosine(v1, v2, level)
    return ConflictInterval(
        Estimate(rho.value, rho.low, rho.high, rho.se),
        jackknife(plain, len(v1), level),
        jackknife(effective, len(v1), level),
    )


def jackknife_each(fn: Callable[[NDArray[np.int64]], Array], groups: int, level: float = 0.9) -> list[Estimate]:
    """`jackknife` of several numbers at once: `fn` maps the indices of the groups kept to an array `(q,)`.

    One recomputation per group serves all q numbers, each with its own interval; nan stays with the number it belongs
    to. Raises AligntaxError for fewer than 2 groups.
    """
    if groups < 2:
        raise AligntaxError(f"groups={groups}; the jackknife leaves one out and needs at least 2")
    every = np.arange(groups)
    values = np.asarray(fn(every), dtype=np.float64)
    se = jackknife_se(np.stack([fn(np.delete(every, k)) for k in range(groups)], axis=-1))
    half = t_quantile(level, groups - 1) * se
    return [Estimate(*map(float, each)) for each in zip(values, values - half, values + half, se, strict=True)]


def _outside(x: Array, basis: Array) -> Array:
    """`x` minus its projection on the rows of `basis`; exactly 0 when no more than rounding is left."""
    rest = x - (x @ basis.T) @ basis
    return rest if np.linalg.norm(rest) > 1e-10 * np.linalg.norm(x) else np.zeros_like(x)


def _cosine(x: Array, y: Array) -> float:
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if lengths > 0 else float("nan")
