"""The angle between two directions that are both estimated from samples.

Noise lengthens a vector and so shrinks a cosine, and items used for both vectors add a product of their noises. Both
troubles sit in the terms where a group meets itself. Keep `J` disjoint groups of items, one partition for both vectors,
with group means `v_a`, `u_b` (groups weigh equally: unequal sizes leave every sum unbiased, only a little noisier):

    N_v = mean_{a != b} <v_a, v_b>            unbiased for |v|^2
    cos = mean_{a != b} <v_a, u_b> / sqrt(N_v N_u)
    tax = mean_{a,b,c,d distinct} <v_a, u_b> <v_c, u_d> / (N_v N_u)     unbiased numerator for <v, u>^2

What is not claimed. Numerators and `N` are unbiased; their ratio is so only where the reliabilities are well above 0.
For a direction that is pure noise `N` scatters about 0: about half the time it is negative and the result is nan, and
otherwise the ratio has tails too heavy for a mean. Average `debiased_squared_inner`, or do not rank such tasks.
Measured (J = 8, d = 12 and 64, cosines -.6 to .8, 3000 draws each): at reliability .8 or more 90% intervals of the
cosine cover 90-95% and its bias is at most .022; at .5 the bias reaches .27 and up to .38 of the results are nan.
No value is clipped: `cos` may leave [-1, 1] and `tax` may be negative, by noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import AligntaxError
from aligntax.stats.resample import jackknife_se, t_quantile

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CosineEstimate:
    """A debiased cosine and squared cosine (fractions), with t_{J-1} jackknife intervals; nan is undefined.

    value, low, high, se: the cosine. reliability_v, reliability_u: `N/|mean|^2`, at most 1, the share of the mean
    vector's squared length that is signal; at or below 0 nothing is known. tax, tax_low, tax_high: the squared cosine.
    """

    value: float
    low: float
    high: float
    se: float
    reliability_v: float
    reliability_u: float
    tax: float
    tax_low: float
    tax_high: float


@dataclass(frozen=True, eq=False)
class CosineTable:
    """The fields of `CosineEstimate` as arrays of one leading shape, such as (layers, tasks)."""

    value: Array
    low: Array
    high: Array
    se: Array
    reliability_v: Array
    reliability_u: Array
    tax: Array
    tax_low: Array
    tax_high: Array

    def at(self, *index: int) -> CosineEstimate:
        """The entry at `index`, one integer for each leading axis."""
        return CosineEstimate(**{name: float(column[index]) for name, column in vars(self).items()})


def debiased_norm2(groups: Array) -> float:
    """`mean_{a != b} <x_a, x_b>` over group means (J, d): unbiased for the squared length of the true mean.

    Computed through sums in O(J d): `(|sum x|^2 - sum |x_a|^2)/(J(J-1))`. May be negative, by noise. Needs J >= 2.
    """
    x = _matrix(groups, 2)
    return float((_square(x.sum(axis=0)) - _square(x)) / (len(x) * (len(x) - 1)))


def reliability(groups: Array) -> float:
    """`N / |mean|^2` for group means (J, d): 1 without noise, about 0 (either sign) without signal, nan for zeros."""
    x = _matrix(groups, 2)
    length2 = _square(x.mean(axis=0))
    return debiased_norm2(x) / length2 if length2 > 0 else float("nan")


def debiased_squared_inner(vu: Array) -> Array:
    """`mean M_ab M_cd` over a,b,c,d distinct, (..., J, J) -> (...): unbiased for `<v,u>^2`, `M_ab = <v_a, u_b>`.

    Closed form by inclusion-exclusion with `S = M + M^T`, its diagonal set to 0:
    `[(sum S)^2/4 - sum_a (sum_b S_ab)^2 + (sum S^2)/2] / (J(J-1)(J-2)(J-3))`. nan for J < 4. May be negative.
    """
    vu = np.asarray(vu, dtype=np.float64)
    cross = _without_diagonal(vu)
    symmetric = cross + np.swapaxes(cross, -1, -2)
    rows = symmetric.sum(axis=-1)
    return _distinct(rows.sum(axis=-1), (rows**2).sum(axis=-1), (symmetric**2).sum(axis=(-1, -2)), vu.shape[-1])


def estimate_cosine(v: Array, u: Array, level: float = 0.9) -> CosineEstimate:
    """Debiased cosine of two directions from their group means (J, d), one partition of items for both.

    Right also when v and u share items. See the module for formulas and limits. Needs J >= 3 (J >= 4 for the tax,
    J >= 5 for its interval, else nan); `J >= 8` is meant.

    >>> est = estimate_cosine(np.tile([1.0, 0.0], (8, 1)), np.tile([3.0, 4.0], (8, 1)))
    >>> round(est.value, 12), round(est.tax, 12), est.reliability_v
    (0.6, 0.36, 1.0)
    """
    v, u = _matrix(v, 3), _matrix(u, 3)
    if v.shape != u.shape:
        raise AligntaxError(f"v {v.shape} and u {u.shape} differ; use one partition and one width for both")
    return estimate_cosine_from_grams(v @ v.T, v @ u.T, u @ u.T, level)


def estimate_cosine_from_grams(vv: Array, vu: Array, uu: Array, level: float = 0.9) -> CosineEstimate:
    """`estimate_cosine` from the J x J inner products `<v_a,v_b>`, `<v_a,u_b>`, `<u_a,u_b>` of the group means."""
    if not np.ndim(vv) == np.ndim(vu) == np.ndim(uu) == 2:
        raise AligntaxError(
            f"Gram matrices {np.shape(vv)}, {np.shape(vu)}, {np.shape(uu)}; give (J, J) each, "
            "or use estimate_cosines_from_grams for a stack of them"
        )
    return estimate_cosines_from_grams(vv, vu, uu, level).at()


def estimate_cosines_from_grams(vv: Array, vu: Array, uu: Array, level: float = 0.9) -> CosineTable:
    """Many cosines at once: Gram matrices (..., J, J) whose leading axes broadcast (layers x tasks x controls)."""
    vv, vu, uu = _broadcast(vv, vu, uu)
    count = vv.shape[-1]
    full, full_norms = _ratios(_offdiagonal_sums(vv, vu, uu), count)
    full_tax = _divide(debiased_squared_inner(vu), full_norms)
    without, without_norms = _ratios(_offdiagonal_sums_without(vv, vu, uu), count - 1)
    without_tax = _divide(_squared_inner_without(vu), without_norms)
    se, tax_se = jackknife_se(without), jackknife_se(without_tax)
    t = t_quantile(level, count - 1)
    n_v, _, n_u = (part / (count * (count - 1)) for part in _offdiagonal_sums(vv, vu, uu))
    return CosineTable(
        value=full,
        low=full - t * se,
        high=full + t * se,
        se=se,
        reliability_v=_divide(n_v, vv.mean(axis=(-1, -2))),
        reliability_u=_divide(n_u, uu.mean(axis=(-1, -2))),
        tax=full_tax,
        tax_low=full_tax - t * tax_se,
        tax_high=full_tax + t * tax_se,
    )


def _matrix(x: Array, minimum: int) -> Array:
    """Group means as float64 (J, d), refusing too few groups."""
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != 2 or len(x) < minimum:
        raise AligntaxError(f"group means {x.shape}; give (J, d) with at least {minimum} groups")
    return x


def _broadcast(*grams: Array) -> tuple[Array, Array, Array]:
    """The three Gram stacks at one common shape, refusing what is not square or has fewer than 3 groups."""
    vv, vu, uu = (np.asarray(g, dtype=np.float64) for g in grams)
    sizes = {size for g in (vv, vu, uu) for size in (g.shape[-2:] if g.ndim >= 2 else (0, 0))}
    if len(sizes) != 1 or min(sizes) < 3:
        raise AligntaxError(f"Gram matrices {vv.shape}, {vu.shape}, {uu.shape}; give (..., J, J) with one J >= 3")
    try:
        vv, vu, uu = np.broadcast_arrays(vv, vu, uu)
    except ValueError:
        raise AligntaxError(f"leading axes of {vv.shape}, {vu.shape}, {uu.shape} do not broadcast") from None
    return vv, vu, uu


def _square(x: Array) -> float:
    return float(np.vdot(x, x))


def _without_diagonal(gram: Array) -> Array:
    return np.where(np.eye(gram.shape[-1], dtype=bool), 0.0, gram)


def _divide(numerator: Array, denominator: Array) -> Array:
    """The ratio where the denominator is positive, nan elsewhere."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=denominator > 0)


def _ratios(sums: tuple[Array, Array, Array], count: int) -> tuple[Array, Array]:
    """Cosine and `N_v N_u` from off-diagonal sums over `count` groups; both nan unless both norms are positive."""
    n_v, cross, n_u = (part / (count * (count - 1)) for part in sums)
    norms = np.where((n_v > 0) & (n_u > 0), n_v * n_u, np.nan)
    return cross / np.sqrt(norms), norms


def _offdiagonal_sums(*grams: Array) -> tuple[Array, Array, Array]:
    vv, vu, uu = (_without_diagonal(gram).sum(axis=(-1, -2)) for gram in grams)
    return vv, vu, uu


def _offdiagonal_sums_without(*grams: Array) -> tuple[Array, Array, Array]:
    """Off-diagonal sums with each group left out in turn, (..., J)."""
    vv, vu, uu = (_sums_without(_without_diagonal(gram)) for gram in grams)
    return vv, vu, uu


def _sums_without(hollow: Array) -> Array:
    return hollow.sum(axis=(-1, -2))[..., None] - hollow.sum(axis=-1) - hollow.sum(axis=-2)


def _squared_inner_without(vu: Array) -> Array:
    """`debiased_squared_inner` with each group left out in turn, (..., J), without forming J smaller matrices."""
    cross = _without_diagonal(vu)
    symmetric = cross + np.swapaxes(cross, -1, -2)
    rows = symmetric.sum(axis=-1)
    kept_rows2 = ((rows[..., :, None] - symmetric) ** 2).sum(axis=-2) - rows**2
    squares = symmetric**2
    return _distinct(_sums_without(symmetric), kept_rows2, _sums_without(squares), vu.shape[-1] - 1)


def _distinct(total: Array, rows2: Array, squares: Array, count: int) -> Array:
    """Mean over quadruples of distinct groups from sums of S, of squared row sums of S, and of S squared."""
    if count < 4:
        return np.full(np.shape(total), np.nan)
    return (total**2 / 4 - rows2 + squares / 2) / (count * (count - 1) * (count - 2) * (count - 3))
