"""Overlap by chance: the exact law of the tax under random packing, and the anisotropic null (theory of [G] §5,
corrected).

For an intrinsic span of rank `m1` and `m2` independent isotropic incidental directions in `d` dimensions,
`tau = tau_irr + (1 - tau_irr) B` with `B ~ Beta(m2/2, (d - m1 - m2)/2)`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_rows, unit_vector


@dataclass(frozen=True)
class TaxLaw:
    """Law of a tax rate on [0, 1]: `start + (1 - start) Beta(a, b)`, or the single value `start` when `a` or `b` is
    0.
    """

    start: float
    a: float
    b: float

    @property
    def is_point(self) -> bool:
        """True when the tax is certain."""
        return self.a <= 0.0 or self.b <= 0.0

    def _beta(self) -> Any:
        return scipy.stats.beta(self.a, self.b, loc=self.start, scale=1.0 - self.start)

    def mean(self) -> float:
        """Expected tax."""
        return self.start if self.is_point else float(self._beta().mean())

    def var(self) -> float:
        """Variance of the tax."""
        return 0.0 if self.is_point else float(self._beta().var())

    def std(self) -> float:
        """Standard deviation of the tax."""
        return float(np.sqrt(self.var()))

    def cdf(self, x: Any) -> Any:
        """`P(tau <= x)`."""
        return np.where(np.asarray(x) >= self.start, 1.0, 0.0)[()] if self.is_point else self._beta().cdf(x)

    def sf(self, x: Any) -> Any:
        """`P(tau > x)`, accurate in the far tail."""
        return np.where(np.asarray(x) >= self.start, 0.0, 1.0)[()] if self.is_point else self._beta().sf(x)

    def pdf(self, x: Any) -> Any:
        """Density; at a certain value infinite there and 0 elsewhere."""
        return np.where(np.asarray(x) == self.start, np.inf, 0.0)[()] if self.is_point else self._beta().pdf(x)

    def ppf(self, q: Any) -> Any:
        """Quantile; nan outside [0, 1]."""
        if not self.is_point:
            return self._beta().ppf(q)
        level = np.asarray(q, dtype=float)
        return np.where((level >= 0.0) & (level <= 1.0), self.start, np.nan)[()]

    def rvs(self, size: Any = 1, random_state: Any = None) -> Any:
        """Random draws, as scipy's: `random_state` is a seed or a numpy generator."""
        return np.full(size, self.start) if self.is_point else self._beta().rvs(size=size, random_state=random_state)


def packing_law(tau_irreducible: float, m_intrinsic: int, m_incidental: int, d: int) -> TaxLaw:
    """Exact law of the tax rate for `m_intrinsic` independent intrinsic and `m_incidental` isotropic directions
    ([G] Prop 5.5, corrected).

    `tau_irreducible = |P_intrinsic v|^2` in [0, 1]; the mean is `tau_irr + (1 - tau_irr) m2/(d - m1)`. Without
    incidental directions the tax is certainly `tau_irr`. With `m1 + m2 >= d` and `m2 > 0` the directions span
    everything almost surely and the tax is certainly 1. Raises GeometryError for impossible counts: `m1 > d`, `m1 =
    0` with `tau_irr > 0`, `m1 = d` with `tau_irr < 1`.

    >>> packing_law(0.0, 0, 1, 64).mean()
    0.015625
    """
    given = f"tau_irreducible={tau_irreducible}, m_intrinsic={m_intrinsic}, m_incidental={m_incidental}, d={d}"
    for count in (m_intrinsic, m_incidental, d):
        if int(count) != count or count < 0:
            raise GeometryError(f"{given}: counts must be whole numbers >= 0")
    if not 0.0 <= tau_irreducible <= 1.0 or d < 1 or m_intrinsic > d:
        raise GeometryError(f"{given}: need 0 <= tau_irreducible <= 1 and m_intrinsic <= d")
    if (m_intrinsic == 0 and tau_irreducible > 0.0) or (m_intrinsic == d and tau_irreducible < 1.0):
        raise GeometryError(f"{given}: the span of 0 directions has tax 0 and that of d directions has tax 1")
    if m_incidental == 0 or tau_irreducible == 1.0:
        return TaxLaw(float(tau_irreducible), 0.0, 0.0)
    if m_intrinsic + m_incidental >= d:
        return TaxLaw(1.0, 0.0, 0.0)
    return TaxLaw(float(tau_irreducible), m_incidental / 2, (d - m_intrinsic - m_incidental) / 2)


def random_overlap(r: int, d: int) -> TaxLaw:
    """Overlap of an `r`-dimensional update with an isotropic direction: `Beta(r/2, (d-r)/2)`, mean `r/d` ([G]
    §7.2).
    """
    if not 0 <= r <= d:
        raise GeometryError(f"r={r}, d={d}: need 0 <= r <= d")
    return packing_law(0.0, 0, r, d)


def packing_mean_paper(overlaps: Any, m_incidental: int, d: int) -> float:
    """The paper's leading term `sum rho_i^2 + m2/d` for intrinsic overlaps `rho_i` ([G] Prop 5.5).

    An approximation for few, nearly orthogonal directions; it may exceed the truth by far and even 1. `packing_law`
    is exact.
    """
    rho = np.asarray(overlaps, dtype=float)
    return float(np.square(rho).sum() + m_incidental / d)


def anisotropic_null(safety: Any, sigma_factor: Any, draws: int, rng: np.random.Generator) -> Array:
    """Draws `(draws,)` of `cos^2(v, u)`, `u ~ N(0, Sigma)`, `Sigma = A^T A` with factor `A` `(n, d)`.

    The law that "incidental" has when directions share the covariance of gradients; mean about `v^T Sigma v / tr
    Sigma`. Draws live in the span of the factor, so the cost is `n^2 d` once and `n` a draw. Raises GeometryError for
    a zero factor.
    """
    v = unit_vector(safety, "safety")
    factor = as_rows(sigma_factor, "sigma_factor", v.size)
    values, vectors = np.linalg.eigh(factor @ factor.T)
    keep = values > values.max(initial=0.0) * 1e-14
    if not keep.any():
        raise GeometryError("sigma_factor is zero; it has no directions to draw")
    along = vectors[:, keep].T @ (factor @ v)
    normal = rng.standard_normal((draws, int(keep.sum())))
    return np.asarray(np.square(normal @ along) / (np.square(normal) @ values[keep]))
