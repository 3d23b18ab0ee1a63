"""Brute force for the scaling section: frames, enumeration of residuals, packings in all coordinates, planted families."""

from collections.abc import Iterator
from itertools import permutations

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

Array = NDArray[np.float64]


def largest_cosine(rows: Array) -> float:
    """Largest absolute cosine between two different rows."""
    n = len(rows)
    return max(
        float(abs(rows[i] @ rows[j]) / np.linalg.norm(rows[i]) / np.linalg.norm(rows[j]))
        for i in range(n)
        for j in range(i)
    )


def equiangular_frames() -> list[Array]:
    """Known optimal packings of lines: triangle in the plane, icosahedron, and 28 lines in 7 dimensions."""
    angles = np.arange(3) * 2 * np.pi / 3
    golden = (1 + np.sqrt(5)) / 2
    icosahedron = np.array([[0, 1, s * golden] for s in (1, -1)])
    signs = np.array(sorted(set(permutations([-3.0, -3.0, 1, 1, 1, 1, 1, 1]))))
    inside = np.linalg.svd(np.ones((1, 8)))[2][1:]
    turned = np.concatenate([np.roll(icosahedron, shift, axis=1) for shift in range(3)])
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1), turned, signs @ inside.T]


def least_coherence(n: int, d: int, starts: int, rng: np.random.Generator) -> float:
    """Least coherence of `n` lines in `d` dimensions that descent on a smooth maximum finds from random starts."""
    best = 1.0
    upper = np.triu_indices(n, 1)
    for _ in range(starts):
        flat = rng.standard_normal(n * d)
        for sharpness in (20.0, 100.0, 500.0):

            def smooth(x: Array, beta: float = sharpness) -> float:
                rows = x.reshape(n, d) / np.linalg.norm(x.reshape(n, d), axis=1, keepdims=True)
                cosines = np.square((rows @ rows.T)[upper])
                top = cosines.max()
                return float(top + np.log(np.exp(beta * (cosines - top)).sum()) / beta)

            flat = scipy.optimize.minimize(smooth, flat, method="L-BFGS-B").x
        best = min(best, largest_cosine(flat.reshape(n, d)))
    return best


def extreme_worlds(overlaps: Array, gram: Array, mu: float) -> Iterator[tuple[float, float]]:
    """`(tax, |a|^2)` for every choice of residuals `+-mu` that unit vectors can have.

    `overlaps` `(m,)` and `gram` `(m, m)` are intrinsic, zeros standing for incidental capabilities.
    """
    m = len(overlaps)
    upper = np.triu_indices(m + 1, 1)
    base = np.eye(m + 1)
    base[0, 1:] = base[1:, 0] = overlaps
    base[1:, 1:] = gram
    for code in range(2 ** len(upper[0])):
        full = base.copy()
        full[upper] += mu * (2.0 * ((code >> np.arange(len(upper[0]))) & 1) - 1.0)
        full.T[upper] = full[upper]
        if np.linalg.eigvalsh(full)[0] > 1e-12:
            vectors = np.linalg.cholesky(full)
            inside = np.linalg.lstsq(vectors[1:].T, vectors[0], rcond=None)[0] @ vectors[1:]
            yield float(inside @ inside), float(np.square(full[0, 1:]).sum())


def _turned(small: Array, d: int, step: float, draws: int, rng: np.random.Generator) -> Array:
    """Rows `(r, k)` in the first coordinates of width `d`, each moved by normal steps of size `step` in those `k`."""
    rows = np.zeros((draws, len(small), d))
    rows[:, :, : small.shape[1]] = small + step * rng.standard_normal((draws, *small.shape))
    return np.asarray(rows / np.linalg.norm(rows, axis=2, keepdims=True))


def packed_parts(
    related: Array, objectives: int, m2: int, d: int, draws: int, rng: np.random.Generator, residual: float = 0.0
) -> Array:
    """Parts of the objectives outside the capability span, `(draws, objectives, d)`, every coordinate drawn.

    `related` `(s + m1, k)`: objectives first. Normal equations, one small system a draw.
    """
    rows = _turned(related, d, residual / np.sqrt(d), draws, rng)
    safety = rows[:, :objectives]
    capabilities = np.concatenate([rows[:, objectives:], rng.standard_normal((draws, m2, d)) / np.sqrt(d)], axis=1)
    across = np.swapaxes(capabilities, 1, 2)
    weights = np.linalg.solve(capabilities @ across, capabilities @ np.swapaxes(safety, 1, 2))
    return np.asarray(safety - np.swapaxes(across @ weights, 1, 2))


def packed_taxes(related: Array, m2: int, d: int, draws: int, rng: np.random.Generator, residual: float = 0.0) -> Array:
    """Taxes `(draws,)` of one objective by brute force: one minus what is left outside the span."""
    return np.asarray(1.0 - np.square(packed_parts(related, 1, m2, d, draws, rng, residual)[:, 0]).sum(axis=1))


def packed_correlations(
    related: Array, m2: int, d: int, draws: int, rng: np.random.Generator, residual: float = 0.0
) -> Array:
    """Cosines `(draws,)` of two objectives outside the span, by brute force."""
    parts = packed_parts(related, 2, m2, d, draws, rng, residual)
    parts /= np.linalg.norm(parts, axis=2, keepdims=True)
    return np.asarray(np.einsum("nd,nd->n", parts[:, 0], parts[:, 1]))


def log_slope(x: Array, y: Array) -> float:
    """Slope of `log y` on `log x`."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def plateau_by_descent(widths: Array, taxes: Array, errors: Array) -> tuple[float, float]:
    """`t >= 0` and `b` of the weighted fit of `t + b/d` by bounded trust-region descent."""
    x = widths.min() / widths
    found = scipy.optimize.least_squares(
        lambda z: (z[0] + z[1] * x - taxes) / errors,
        [max(1e-3, float(taxes.min())), float(np.ptp(taxes))],
        bounds=([0.0, -np.inf], np.inf),
        xtol=1e-15,
        ftol=1e-15,
        gtol=1e-15,
    )
    return float(found.x[0]), float(found.x[1] * widths.min())


def planted_families(
    t: float, b: float, widths: Array, noise: float, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """`count` families `(count, n)` of taxes `t + b/d` with relative noise, and their standard errors `(n,)`."""
    truth = t + b / widths
    return truth * (1.0 + noise * rng.standard_normal((count, widths.size))), noise * truth
