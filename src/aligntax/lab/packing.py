"""The packing model as a world: related features fixed in a few coordinates, unrelated ones packed at random ([G] Def 5.1).

Only inner products matter, so incidental features are not drawn in all `d` coordinates: behind the few that hold related
features, `m2` normal vectors are rotated to a triangle (Bartlett), which leaves the law of every inner product unchanged
and makes a draw as large as `m2`, not `d`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import LabError

Array = NDArray[np.float64]

MAX_NUMBERS = 100_000_000


def _units(values: Any, name: str) -> Array:
    rows = np.asarray(values, dtype=float)
    if rows.ndim != 2 or not np.isfinite(rows).all() or (np.linalg.norm(rows, axis=1) == 0.0).any():
        raise LabError(f"{name} of shape {rows.shape} must be finite nonzero rows (features, k)")
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@dataclass(frozen=True)
class PackingDraws:
    """Feature rows `(draws, s + m1 + m2, D)`: `objectives` safety rows, then intrinsic, then incidental capabilities.

    Coordinates are those of some rotation; inner products have the exact law in width `d`. `limit` `(s + m, s + m)` is
    the Gram matrix that the world tends to as `d` grows.
    """

    features: Array
    objectives: int
    limit: Array

    @property
    def gram(self) -> Array:
        """Inner products `(draws, s + m, s + m)`."""
        return np.asarray(self.features @ np.swapaxes(self.features, 1, 2))

    @property
    def cosines(self) -> Array:
        """`a = <v, u_i>`, shape `(draws, s, m)`."""
        return self.gram[:, : self.objectives, self.objectives :]

    @property
    def coherence(self) -> Array:
        """Largest residual of each draw `(draws,)`, over all pairs ([G] Def 5.3)."""
        residual = np.abs(self.gram - self.limit)
        residual[:, np.arange(len(self.limit)), np.arange(len(self.limit))] = 0.0
        return np.asarray(residual.max(axis=(1, 2)))

    def _inside(self) -> tuple[Array, Array]:
        """Safety rows `(draws, s, D)` and their projections on the capability span."""
        safety = self.features[:, : self.objectives]
        span = np.linalg.qr(np.swapaxes(self.features[:, self.objectives :], 1, 2))[0]
        return safety, (safety @ span) @ np.swapaxes(span, 1, 2)

    @property
    def tax(self) -> Array:
        """Tax rate of every objective `(draws, s)`, a fraction in [0, 1]."""
        return np.asarray(np.minimum(1.0, np.square(self._inside()[1]).sum(axis=2)))

    @property
    def effective_correlation(self) -> Array:
        """Cosine of the first two objectives outside the capability span, `(draws,)`; raises LabError with one
        objective.
        """
        if self.objectives < 2:
            raise LabError(f"objectives={self.objectives}; a conflict needs at least two")
        safety, inside = self._inside()
        free = safety[:, :2] - inside[:, :2]
        free /= np.linalg.norm(free, axis=2, keepdims=True)
        return np.asarray(np.einsum("nd,nd->n", free[:, 0], free[:, 1]))


@dataclass(frozen=True)
class PackingWorld:
    """Safety `(s, k)` and intrinsically related capabilities `(m1, k)` by their coordinates in the limit of large width.

    `residual` moves every related feature by independent normal steps of size `residual/sqrt(d)` in those `k` coordinates,
    so that intrinsic overlaps carry residuals of order `d^-1/2` ([G] Def 5.2); at 0 they are exact at every width.
    Raises LabError for zero rows and for capabilities that are linearly dependent.
    """

    safety: Any
    intrinsic: Any
    residual: float = 0.0

    def __post_init__(self) -> None:
        safety = _units(self.safety, "safety")
        shape = np.shape(self.intrinsic)
        intrinsic = _units(self.intrinsic, "intrinsic") if shape and shape[0] else np.zeros((0, safety.shape[1]))
        if intrinsic.shape[1] != safety.shape[1]:
            raise LabError(f"safety has {safety.shape[1]} coordinates and intrinsic {intrinsic.shape[1]}; give as many")
        if len(intrinsic) and np.linalg.matrix_rank(intrinsic) < len(intrinsic):
            raise LabError(
                f"intrinsic has {len(intrinsic)} rows of rank {np.linalg.matrix_rank(intrinsic)}; leave out copies"
            )
        if not np.isfinite(self.residual) or self.residual < 0.0:
            raise LabError(f"residual={self.residual}; give a number >= 0")
        object.__setattr__(self, "safety", safety)
        object.__setattr__(self, "intrinsic", intrinsic)

    @classmethod
    def from_gram(cls, gram: Any, objectives: int = 1, residual: float = 0.0) -> "PackingWorld":
        """From intrinsic overlaps `(s + m1, s + m1)`, objectives first; raises LabError where no unit vectors have them."""
        overlaps = np.asarray(gram, dtype=float)
        if overlaps.ndim != 2 or overlaps.shape[0] != overlaps.shape[1] or not np.allclose(np.diag(overlaps), 1.0):
            raise LabError(f"gram of shape {overlaps.shape} must be square with ones on its diagonal")
        values, vectors = np.linalg.eigh(overlaps)
        if values[0] < -1e-9 or not np.allclose(overlaps, overlaps.T):
            raise LabError(f"gram has least eigenvalue {values[0]:.3g}; no unit vectors have these overlaps")
        rows = vectors * np.sqrt(np.maximum(values, 0.0))
        return cls(rows[:objectives], rows[objectives:], residual)

    def limit(self, m_incidental: int) -> Array:
        """Gram matrix in the limit of large width: intrinsic overlaps, and 0 for every incidental pair."""
        related = np.concatenate([self.safety, self.intrinsic])
        full = np.eye(len(related) + m_incidental)
        full[: len(related), : len(related)] = related @ related.T
        return full

    def _related(self, d: int, draws: int, rng: np.random.Generator) -> Array:
        rows = np.concatenate([self.safety, self.intrinsic])
        moved = rows + self.residual / np.sqrt(d) * rng.standard_normal((draws, *rows.shape))
        return np.asarray(moved / np.linalg.norm(moved, axis=2, keepdims=True))

    def draw(self, m_incidental: int, d: int, draws: int, rng: np.random.Generator) -> PackingDraws:
        """`draws` independent packings of `m_incidental` uniform features beside the related ones in width `d`.

        Raises LabError where `d` is below the coordinates of the related features or a draw would not fit in memory.
        """
        k = self.safety.shape[1]
        if m_incidental < 0 or draws < 1 or d < k:
            raise LabError(f"m_incidental={m_incidental}, d={d}, draws={draws}: need m >= 0, draws >= 1 and d >= {k}")
        related, behind = self._related(d, draws, rng), min(m_incidental, d - k)
        count = related.shape[1] + m_incidental
        if draws * count * (k + behind) > MAX_NUMBERS:
            raise LabError(f"{draws} draws of {count} features hold over {MAX_NUMBERS} numbers; draw fewer at a time")
        features = np.zeros((draws, count, k + behind))
        features[:, : related.shape[1], :k] = related
        features[:, related.shape[1] :] = _packed(m_incidental, k, d, draws, rng)
        return PackingDraws(features, len(self.safety), self.limit(m_incidental))


def _packed(m: int, k: int, d: int, draws: int, rng: np.random.Generator) -> Array:
    """Unit rows `(draws, m, k + min(m, d - k))` with the inner products of uniform directions in width `d`."""
    rows = rng.standard_normal((draws, m, k + min(m, d - k)))
    if 0 < m <= d - k:
        diagonal = np.arange(m)
        rows[:, :, k:] = np.tril(rows[:, :, k:], -1)
        rows[:, diagonal, k + diagonal] = np.sqrt(rng.chisquare(d - k - diagonal, (draws, m)))
    return np.asarray(rows / np.linalg.norm(rows, axis=2, keepdims=True))
