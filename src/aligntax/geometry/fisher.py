"""Anisotropic budgets: what a shift costs in nats ([G] §4.4).

`KL ~ 1/2 delta^T F delta` with `F` the mean of `g g^T` over draws, kept as its `n x d` factor. Inverse and square
root come from the factor's singular values, so no `d x d` matrix is ever formed.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from aligntax.errors import GeometryError
from aligntax.geometry.arrays import Array, as_array, as_rows, as_vector


def budget_to_norm(nats: float) -> float:
    """`eps = sqrt(2 K)`: the length in whitened coordinates that costs `K` nats, since `KL = eps^2 / 2`."""
    if not (np.isfinite(nats) and nats >= 0.0):
        raise GeometryError(f"budget is {nats} nats; expected a finite number >= 0")
    return float(np.sqrt(2.0 * nats))


@dataclass(frozen=True)
class Fisher:
    """Low-rank Fisher matrix plus scale: `F_reg = A^T A + (rho tr(F)/d + level) I`, in nats per squared shift.

    `factor` `A` `(n, d)`: one row a draw, already divided so that `A^T A = F` (rows `g / sqrt(n)` for a mean over n
    draws). `ridge` rho `>= 0` is relative to the mean eigenvalue of `F`. `level` is an absolute multiple of the
    identity that belongs to `F` itself, used by `isotropic`. Raises GeometryError for an empty or negative setting.
    """

    factor: Array
    ridge: float = 0.0
    level: float = 0.0

    def __post_init__(self) -> None:
        factor = as_array(self.factor, "factor")
        if factor.ndim != 2 or factor.shape[1] == 0:
            raise GeometryError(f"factor has shape {factor.shape}; expected (n, d), one draw a row")
        if not (0.0 <= self.ridge < np.inf and 0.0 <= self.level < np.inf):
            raise GeometryError(f"ridge is {self.ridge} and level {self.level}; both must be finite and >= 0")
        object.__setattr__(self, "factor", factor)
        if self.trace == 0.0:
            raise GeometryError("the Fisher factor is zero; draw gradients that are not all zero")

    @property
    def d_model(self) -> int:
        """Width d."""
        return int(self.factor.shape[1])

    @cached_property
    def trace(self) -> float:
        """`tr F` without the ridge, nats."""
        return float(np.square(self.factor).sum()) + self.level * self.d_model

    @property
    def mean_eigenvalue(self) -> float:
        """`tr(F)/d` without the ridge."""
        return self.trace / self.d_model

    @cached_property
    def _spectrum(self) -> tuple[Array, Array]:
        """Non-zero eigenvalues of `A^T A` `(r,)`, descending, and their eigenvectors as rows `(r, d)`."""
        if self.factor.shape[0] == 0:
            return np.zeros(0), self.factor
        q, short = np.linalg.qr(self.factor.T)
        left, values, _ = np.linalg.svd(short, full_matrices=False)
        keep = values > max(self.factor.shape) * np.finfo(float).eps * values[0]
        return np.square(values[keep]), np.ascontiguousarray((q @ left[:, keep]).T)

    @property
    def rank(self) -> int:
        """Rank reached by the draws: at most `min(n, d)`."""
        return self.d_model if self.level > 0.0 else int(self._spectrum[0].size)

    @property
    def floor(self) -> float:
        """Smallest eigenvalue of `F_reg` outside the span of the draws: `rho tr(F)/d + level`."""
        return self.ridge * self.mean_eigenvalue + self.level

    def quad(self, x: Any) -> Any:
        """`x^T F_reg x` for `x` `(d,)` or each row of `(n, d)`: twice the nats that the shift costs."""
        rows = self._rows(x)
        value = np.square(rows @ self.factor.T).sum(axis=-1) + self.floor * np.square(rows).sum(axis=-1)
        return float(value) if value.ndim == 0 else value

    def solve(self, x: Any) -> Array:
        """`F_reg^-1 x`, for `(d,)` or each row of `(n, d)`. Raises GeometryError where `F_reg` is singular."""
        return self._power(x, -1.0)

    def sqrt_solve(self, x: Any) -> Array:
        """`F_reg^-1/2 x` (symmetric root): a gradient in whitened coordinates. Raises where `F_reg` is singular."""
        return self._power(x, -0.5)

    def sqrt_apply(self, x: Any) -> Array:
        """`F_reg^1/2 x` (symmetric root): a shift in whitened coordinates; its squared length is `quad(x)`."""
        return self._power(x, 0.5)

    def isotropic(self) -> "Fisher":
        """The same total cost spread over all directions: `F` replaced by `tr(F)/d I`, without ridge."""
        return Fisher(np.zeros((0, self.d_model)), level=self.mean_eigenvalue)

    def _rows(self, x: Any) -> Array:
        rows = as_array(x, "x")
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.d_model:
            raise GeometryError(f"x has shape {rows.shape}; expected (d,) or (n, d) with d = {self.d_model}")
        return rows

    def _power(self, x: Any, power: float) -> Array:
        rows = self._rows(x)
        if power < 0.0 and self.floor == 0.0 and self.rank < self.d_model:
            raise GeometryError(
                f"the Fisher matrix has rank {self.rank} of {self.d_model} and no ridge, so some shifts cost nothing; "
                "give ridge > 0"
            )
        values, vectors = self._spectrum
        outside = self.floor**power if self.floor > 0.0 else 0.0
        inside = (values + self.floor) ** power - outside
        return np.asarray(outside * rows + ((rows @ vectors.T) * inside) @ vectors)


def whiten(safety: Any, capabilities: Any, fisher: Fisher) -> tuple[Array, Array]:
    """`F^-1/2 v` `(d,)` and `F^-1/2 u_i` `(m, d)`, norms kept: angles between them are the angles under the
    budget.
    """
    v = as_vector(safety, "safety", fisher.d_model)
    rows = as_rows(capabilities, "capabilities", fisher.d_model)
    return fisher.sqrt_solve(v), fisher.sqrt_solve(rows)
