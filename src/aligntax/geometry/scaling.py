"""How the tax changes with width: coherence of a packing, the bound it gives, and the rates ([G] §5 and Prop 6.7,
corrected).

Features are unit vectors. The inner product of two of them tends to an intrinsic overlap `rho_ij` as the width grows
([G] Def 5.1); what is left at a finite width is the residual `r_ij = <phi_i, phi_j> - rho_ij` ([G] Def 5.2).
Coherence is measured here, never assumed.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.stats

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_vector, unit_rows

Growth = Literal["constant", "sublinear", "linear"]

# Rounding allowed in correlations that users give with a few digits less than double precision.
_ROUNDING = 1e-9


def _count(value: Any, name: str, least: int) -> int:
    if not np.isfinite(value) or int(value) != value or value < least:
        raise GeometryError(f"{name}={value}; give a whole number >= {least}")
    return int(value)


def welch_bound(n_features: int, d: int) -> float:
    """`sqrt((N-d)/(d(N-1)))`, the least coherence of `N > d` mutually unrelated features in width `d`, in [0, 1).

    0 for `N <= d`, where orthogonal features exist. It says nothing about features of which some are related
    ([G] Def 5.3).

    >>> round(welch_bound(6, 3) ** 2, 12)  # the six diagonals of the icosahedron
    0.2
    """
    n, width = _count(n_features, "n_features", 1), _count(d, "d", 1)
    return float(np.sqrt((n - width) / (width * (n - 1)))) if n > width else 0.0


def coherence(features: Any, intrinsic: Any = None, unrelated_only: bool = False) -> float:
    """Measured `mu = max_{i != j} |<phi_i, phi_j> - rho_ij|`, in [0, 2] ([G] Def 5.2, Def 5.3).

    `features` `(N, d)`, rows need not be unit; `intrinsic` `(N, N)` holds `rho_ij` (its diagonal is not read), none means
    that all are 0. All pairs count, which is what `coherence_bound` needs; `unrelated_only` keeps the pairs with
    `rho_ij = 0`, which is the paper's definition. Raises GeometryError where no pair is left.
    """
    rows = as_array(features, "features")
    if rows.ndim != 2:
        raise GeometryError(f"features has shape {rows.shape}; expected (N, d), one feature a row")
    units, _ = unit_rows(rows, "features", rows.shape[1])
    rho = np.zeros((len(units), len(units))) if intrinsic is None else as_array(intrinsic, "intrinsic")
    if rho.shape != (len(units), len(units)):
        raise GeometryError(f"intrinsic has shape {rho.shape}; expected ({len(units)}, {len(units)})")
    pairs = ~np.eye(len(units), dtype=bool)
    if unrelated_only:
        pairs &= rho == 0.0
    if not pairs.any():
        raise GeometryError(f"{len(units)} features leave no pair to compare; coherence needs at least one")
    return float(np.abs(units @ units.T - rho)[pairs].max())


def random_coherence(n_features: int, d: int, miss: float = 0.05) -> float:
    """Coherence that `N` independent uniform features in width `d` stay below with probability at least `1 - miss`.

    The quantile of `sqrt(Beta(1/2, (d-1)/2))` at `1 - miss / pairs` (a union over pairs, hence never too small); it grows
    as `sqrt(4 log N / d)`, in [0, 1] ([G] Def 5.3).
    """
    n, width = _count(n_features, "n_features", 2), _count(d, "d", 2)
    if not 0.0 < miss < 1.0:
        raise GeometryError(f"miss={miss}; give a probability between 0 and 1, such as 0.05")
    return float(np.sqrt(scipy.stats.beta.isf(miss / (n * (n - 1) / 2), 0.5, (width - 1) / 2)))


@dataclass(frozen=True)
class CoherenceBound:
    """`|tau - centre| <= bound` where `valid`; otherwise `bound` is inf and nothing is promised.

    `centre` is the irreducible tax, `eta = (m-1) mu`, `smallest` the least eigenvalue of the intrinsic Gram matrix (1 when
    capabilities are intrinsically unrelated). `valid` is `eta < smallest`.
    """

    centre: float
    bound: float
    valid: bool
    eta: float
    smallest: float

    @property
    def low(self) -> float:
        """Least tax allowed, in [0, 1]."""
        return max(0.0, self.centre - self.bound)

    @property
    def high(self) -> float:
        """Largest tax allowed, in [0, 1]."""
        return min(1.0, self.centre + self.bound)


def _intrinsic(overlaps: Array, gram: Any) -> tuple[Array, float]:
    """`x_0 = G_0^+ rho` and the least eigenvalue of `G_0`; raises GeometryError for impossible correlations."""
    m = overlaps.size
    g0 = np.eye(m) if gram is None else as_array(gram, "gram")
    if g0.shape != (m, m):
        raise GeometryError(f"gram has shape {g0.shape}; expected ({m}, {m}), one row per overlap")
    if m == 0:
        return overlaps, 1.0
    if np.abs(g0 - g0.T).max() > _ROUNDING or np.abs(np.diag(g0) - 1.0).max() > _ROUNDING:
        raise GeometryError(f"gram {g0.tolist()} is not symmetric with ones on its diagonal; give cosines")
    full = np.block([[np.ones((1, 1)), overlaps[None, :]], [overlaps[:, None], g0]])
    least = float(np.linalg.eigvalsh(full)[0])
    if least < -_ROUNDING:
        raise GeometryError(
            f"overlaps {overlaps.tolist()} with gram {g0.tolist()} are not jointly feasible (least eigenvalue {least:.3g}); "
            "no unit vectors have these cosines"
        )
    return np.linalg.pinv(g0, hermitian=True) @ overlaps, max(0.0, float(np.linalg.eigvalsh(g0)[0]))


def coherence_bound(
    overlaps: Any, m_incidental: int, mu: float, gram: Any = None, squared_cosines: float | None = None
) -> CoherenceBound:
    """How far the tax can be from the irreducible one when every residual is at most `mu` ([G] Thm 5.4, corrected).

    `|tau - rho^T G_0^-1 rho| <= 2 mu |x_0|_1 + m mu^2/lam + eta |a|^2/(lam (lam - eta))` with `x_0 = G_0^-1 rho`,
    `lam` the least eigenvalue of the intrinsic Gram matrix `G_0`, `m = m1 + m2` and `eta = (m-1) mu`. Without `gram` the
    capabilities are intrinsically unrelated, `G_0 = I`, and the last term is `eta/(1-eta) |a|^2`: equality is reached, and
    the paper's constant 1 in place of `1/(1-eta)` is too small. `mu` bounds the residuals among safety and *all*
    capabilities: use `coherence`.

    `overlaps` `(m1,)` are the intrinsic `rho_i` in [-1, 1], `m_incidental` counts the capabilities without one, `gram`
    `(m1, m1)` has ones on its diagonal. `squared_cosines` is the measured `|a|^2`; without it stands the largest value
    that `rho` and `mu` allow. Holds where `eta < lam` ([G] Rem 5.8), which `valid` reports. Raises GeometryError for
    correlations that are not jointly feasible, negative counts or `mu`, and `|a|^2` that contradicts `mu`.

    >>> round(coherence_bound([0.3], 0, 0.1).bound, 12)  # one capability: 2 mu rho + mu^2
    0.07
    """
    rho = as_vector(overlaps, "overlaps") if np.size(overlaps) else np.zeros(0)
    m = rho.size + _count(m_incidental, "m_incidental", 0)
    if not np.isfinite(mu) or mu < 0.0:
        raise GeometryError(f"mu={mu}; a coherence is a number >= 0")
    x0, smallest = _intrinsic(rho, gram)
    largest = float(np.square(np.abs(rho) + mu).sum() + (m - rho.size) * mu**2)
    a2 = largest if squared_cosines is None else float(squared_cosines)
    if not 0.0 <= a2 <= largest + _ROUNDING:
        raise GeometryError(f"squared_cosines={a2}; residuals of at most mu={mu} allow 0 to {largest:.6g}")
    centre, eta = float(np.clip(rho @ x0, 0.0, 1.0)), max(0, m - 1) * float(mu)
    if eta >= smallest:
        return CoherenceBound(centre, np.inf, False, eta, smallest)
    overlap = 2.0 * mu * float(np.abs(x0).sum()) + m * mu**2 / smallest
    return CoherenceBound(centre, overlap + eta * a2 / (smallest * (smallest - eta)), True, eta, smallest)


@dataclass(frozen=True)
class ScalingRegime:
    """`E tau ~ tau_irr + coefficient d^exponent`, tending to `limit`; the tax of one draw scatters as `d^fluctuation`.

    `exponent` is in [-1, 0]; at 0 scaling does not remove the excess and `limit` is above `tau_irr`.
    """

    name: Growth
    exponent: float
    coefficient: float
    limit: float
    fluctuation: float


def _growth(growth: float) -> float:
    if not 0.0 <= growth <= 1.0:
        raise GeometryError(f"growth={growth}; m2 = c d^a needs a in [0, 1], beyond it the span is everything")
    return float(growth)


def scaling_regime(
    growth: float, coefficient: float, tau_irreducible: float = 0.0, residuals: bool = False
) -> ScalingRegime:
    """Rate of the mean tax for `m2 = c d^a` incidental capabilities, intrinsic subspace exact at every `d`
    ([G] Cor 5.6, sharpened).

    `growth` is `a` in [0, 1], `coefficient` is `c > 0`: exponent `a - 1`, coefficient `(1 - tau_irr) c`. At `a = 1` the
    limit is `tau_irr + (1 - tau_irr) c` (`c <= 1`). `residuals` says that intrinsic overlaps themselves are off by
    `O(d^-1/2)`: the mean then keeps its rate (they add `O(1/d)`), while single draws scatter as `d^-1/2` rather than
    `d^(a/2 - 1)`.
    """
    a = _growth(growth)
    if not (np.isfinite(coefficient) and coefficient > 0.0) or (a == 1.0 and coefficient > 1.0):
        raise GeometryError(f"coefficient={coefficient} at growth={growth}; give c > 0, at most 1 for linear growth")
    if not 0.0 <= tau_irreducible <= 1.0:
        raise GeometryError(f"tau_irreducible={tau_irreducible}; a tax rate is in [0, 1]")
    name: Growth = "constant" if a == 0.0 else "linear" if a == 1.0 else "sublinear"
    lifted = (1.0 - tau_irreducible) * float(coefficient)
    limit = tau_irreducible + lifted if name == "linear" else float(tau_irreducible)
    return ScalingRegime(name, a - 1.0, lifted, limit, -0.5 if residuals else a / 2.0 - 1.0)


def conflict_spread(rho_irreducible: float, m_intrinsic: int, m_incidental: int, d: int) -> float:
    """Root mean square error of `rho_eff` about its irreducible value ([G] Prop 6.7, corrected).

    About `(1 - rho_irr^2) sqrt(m2/(n(n-m2)))`, `n = d - m1`, to leading order in `1/(n - m2)`; `rho_irr` is the effective
    correlation given the intrinsic capabilities alone. Raises GeometryError unless `|rho_irr| <= 1` and
    `n - m2 >= 2`: with less room the projected objectives are collinear.
    """
    n = _count(d, "d", 1) - _count(m_intrinsic, "m_intrinsic", 0)
    m2 = _count(m_incidental, "m_incidental", 0)
    if not -1.0 <= rho_irreducible <= 1.0:
        raise GeometryError(f"rho_irreducible={rho_irreducible}; a correlation is in [-1, 1]")
    if n - m2 < 2:
        raise GeometryError(
            f"d={d} leaves {n - m2} dimensions beside {m_intrinsic} + {m2} capabilities; need at least 2"
        )
    return float((1.0 - rho_irreducible**2) * np.sqrt(m2 / (n * (n - m2))))


def conflict_exponent(growth: float, residuals: bool = False) -> float:
    """Log-log slope of `conflict_spread` in `d` for `m2 ~ d^a`: `(a-2)/2`, in [-1, -1/2] ([G] Prop 6.7, corrected).

    -1 for constant `m2`; -1/2 only for `m2 ~ d`, or when intrinsic overlaps carry `O(d^-1/2)` residuals.
    """
    a = _growth(growth)
    return -0.5 if residuals else (a - 2.0) / 2.0
