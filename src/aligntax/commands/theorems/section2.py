"""Section 2, scaling: coherence, its bound, the law of random packing, rates, the fit over a family, and convergence."""

import numpy as np

from aligntax.commands.theorems.check import Check, Row
from aligntax.geometry import packing_law, packing_mean_paper
from aligntax.geometry.family import fit_scaling
from aligntax.geometry.scaling import (
    coherence,
    coherence_bound,
    conflict_exponent,
    conflict_spread,
    scaling_regime,
    welch_bound,
)
from aligntax.lab.oracles import scaling as oracle

WIDTHS = np.array([64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0])


def row_2_1() -> Check:
    """Welch bound: attained by known frames, reached by descent where one exists, never beaten."""
    rng = np.random.default_rng(21)
    error = 0.0
    for frame in oracle.equiangular_frames():
        found = oracle.largest_cosine(frame)
        error = max(error, abs(coherence(3.0 * frame) - found), abs(welch_bound(*frame.shape) - found))
    for n, d in ((4, 3), (5, 4), (6, 3)):
        error = max(error, abs(oracle.least_coherence(n, d, 2, rng) - welch_bound(n, d)))
    for n, d in ((5, 3), (7, 3)):
        error = max(error, welch_bound(n, d) - oracle.least_coherence(n, d, 1, rng))
    return Check(
        "2.1",
        "no packing is less coherent than Welch's bound",
        "coherence, welch_bound on 8 packings",
        "equiangular frames; descent on the coherence of free lines",
        error,
        1e-5,
    )


def _bound_error(overlaps: np.ndarray, gram: np.ndarray, related: int, mu: float, attained: bool) -> float:
    """Excess of the worst tax over its bound, or any gap between the two where equality is claimed."""
    small = None if np.array_equal(gram, np.eye(len(overlaps))) else gram[:related, :related]
    excess, gap = -np.inf, np.inf
    for tax, squared in oracle.extreme_worlds(overlaps, gram, mu):
        own = coherence_bound(overlaps[:related], len(overlaps) - related, mu, small, squared)
        over = abs(tax - own.centre) - own.bound
        excess, gap = max(excess, over), min(gap, abs(over))
    return max(excess, gap if attained else 0.0)


def row_2_2() -> Check:
    """Bound for intrinsically unrelated capabilities, and where equality holds."""
    rng = np.random.default_rng(22)
    error = 0.0
    for _ in range(12):
        rho = np.array([*rng.uniform(-0.5, 0.5, 2), 0.0])
        error = max(error, _bound_error(rho, np.eye(3), 2, float(rng.uniform(0.02, 0.3)), attained=False))
    for m, mu in ((1, 0.3), (2, 0.25), (3, 0.1)):
        error = max(error, _bound_error(np.full(m, 0.35), np.eye(m), m, mu, attained=True))
    return Check(
        "2.2",
        "residuals of at most mu move the tax by at most the corrected bound, which is attained",
        "coherence_bound on 15 worlds",
        "every choice of residuals +-mu that unit vectors can have",
        error,
        1e-9,
    )


def row_2_2_correlated() -> Check:
    """Bound for a correlated intrinsic Gram matrix, attained by equal negative correlations."""
    rng = np.random.default_rng(23)
    error = 0.0
    for _ in range(12):
        gram = np.eye(3)
        gram[0, 1] = gram[1, 0] = rng.uniform(-0.6, 0.6)
        rho = np.array([*rng.uniform(-0.4, 0.4, 2), 0.0])
        error = max(error, _bound_error(rho, gram, 2, float(rng.uniform(0.02, 0.2)), attained=False))
    for m, link, mu in ((2, -0.3, 0.1), (3, -0.2, 0.05), (3, -0.1, 0.1)):
        gram = (1 - link) * np.eye(m) + link
        error = max(error, _bound_error(np.full(m, 0.3), gram, m, mu, attained=True))
    return Check(
        "2.2",
        "the same with capabilities that are related to each other",
        "coherence_bound with a Gram matrix on 15 worlds",
        "every choice of residuals +-mu that unit vectors can have",
        error,
        1e-9,
    )


def row_2_3() -> Check:
    """The crowded example: the exact mean is right and the paper's term is what the theory says it is."""
    overlap, link, d, m2 = 0.415, 0.15, 64, 40
    gram = np.array([[1, overlap, overlap], [overlap, 1, link], [overlap, link, 1]])
    related = np.linalg.cholesky(gram)
    taxes = oracle.packed_taxes(related, m2, d, 1500, np.random.default_rng(24))
    irreducible = float(oracle.packed_taxes(related, 0, d, 1, np.random.default_rng(0))[0])
    standard_error = taxes.std() / np.sqrt(taxes.size)
    error = abs(packing_law(irreducible, 2, m2, d).mean() - taxes.mean()) / standard_error
    if abs(packing_mean_paper([overlap, overlap], m2, d) - 0.97) > 0.005:
        error = np.inf
    return Check(
        "2.3",
        f"crowded packing (d=64, m2=40): the truth is {taxes.mean():.2f}, the paper's leading term 0.97",
        "packing_law, packing_mean_paper",
        "1500 packings drawn in all coordinates (standard errors)",
        float(error),
        4.0,
    )


def row_2_4() -> Check:
    """Exact law of the tax against the empirical distribution: largest distance times sqrt(draws)."""
    error = 0.0
    for seed, (m1, m2, d) in enumerate(((0, 1, 12), (2, 5, 16), (3, 9, 13), (1, 6, 64))):
        rng = np.random.default_rng(240 + seed)
        related = rng.standard_normal((1 + m1, 4))
        taxes = np.sort(oracle.packed_taxes(related, m2, d, 2500, rng))
        start = float(oracle.packed_taxes(related, 0, d, 1, rng)[0]) if m1 else 0.0
        below = packing_law(start, m1, m2, d).cdf(taxes)
        steps = np.arange(taxes.size + 1) / taxes.size
        distance = max(float(np.max(steps[1:] - below)), float(np.max(below - steps[:-1])))
        error = max(error, distance * np.sqrt(taxes.size))
    return Check(
        "2.4",
        "the tax of a random packing is tau_irr + (1 - tau_irr) Beta",
        "packing_law on 4 packings",
        "2500 draws in all coordinates each (Kolmogorov's distance x sqrt(n); 2 is p = .0007)",
        error,
        2.0,
    )


def row_2_5() -> Check:
    """Exponents of the mean's excess and of the scatter, and the limit that linear growth leaves."""
    overlap = 0.5
    related = np.array([[1.0, 0.0], [overlap, np.sqrt(1 - overlap**2)]])
    widths = np.array([36, 144, 400])
    error = 0.0
    for growth, c, residual in ((0.0, 4.0, 0.0), (0.5, 2.0, 0.0), (1.0, 0.25, 0.0), (0.0, 4.0, 1.0)):
        rng = np.random.default_rng(25)
        counts = np.rint(c * widths**growth).astype(int)
        draws = [2000, 1000, 150]
        taxes = [
            oracle.packed_taxes(related, m, d, n, rng, residual) for m, d, n in zip(counts, widths, draws, strict=True)
        ]
        expected = scaling_regime(growth, c, overlap**2, residuals=residual > 0.0)
        scatter = oracle.log_slope(widths, np.array([t.std() for t in taxes]))
        error = max(error, abs(scatter - expected.fluctuation) / 2.0)
        if residual == 0.0:
            excess = np.array([t.mean() for t in taxes]) - overlap**2
            error = max(error, abs(oracle.log_slope(widths, excess) - expected.exponent))
            far = (
                expected.limit if growth == 1.0 else overlap**2 + expected.coefficient * widths[-1] ** expected.exponent
            )
            error = max(error, abs(taxes[-1].mean() - far))
    return Check(
        "2.5",
        "mean excess falls as d^(a-1) for m2 ~ d^a and stays for m2 ~ d; residuals scatter as d^-1/2",
        "scaling_regime in 4 regimes",
        "log-log slopes and limits of packings drawn in all coordinates",
        error,
        0.07,
    )


def row_2_6() -> Check:
    """The weighted fit with `t >= 0`, relative to the tax at the smallest width."""
    rng = np.random.default_rng(26)
    error = 0.0
    for _ in range(20):
        truth = rng.choice([0.0, 0.02, 0.1]) + rng.uniform(0.5, 20.0) / WIDTHS
        errors = truth * rng.uniform(0.02, 0.2, WIDTHS.size)
        taxes = truth + errors * rng.standard_normal(WIDTHS.size)
        fit = fit_scaling(WIDTHS, taxes, errors)
        t, b = oracle.plateau_by_descent(WIDTHS, taxes, errors)
        error = max(error, abs(fit.t - t) / truth[0], abs(fit.b - b) / WIDTHS[0] / truth[0])
    return Check(
        "2.6",
        "the fit t + b/d with t >= 0 is the weighted optimum",
        "fit_scaling on 20 families",
        "bounded trust-region descent",
        error,
        1e-5,
    )


def row_2_6_calls() -> Check:
    """Wrong calls, and undecided ones at a quarter of their price, over planted families with 10% noise."""
    rng = np.random.default_rng(27)
    error = 0.0
    for t, b in ((0.0, 1.0), (0.0, 20.0), (0.1, 1.0), (0.1, 20.0)):
        families, errors = oracle.planted_families(t, b, WIDTHS, 0.1, 40, rng)
        calls = [fit_scaling(WIDTHS, taxes, errors, seed=i).call for i, taxes in enumerate(families)]
        wrong = calls.count("intrinsic" if t == 0.0 else "incidental")
        error = max(error, wrong / len(calls), calls.count("undecided") / len(calls) / 4.0)
    return Check(
        "2.6",
        "planted families are called right: at most 5% wrong and 20% undecided",
        "fit_scaling on 160 families, widths 64 to 2048, 10% noise",
        "planted plateaus of 0 and .1",
        error,
        0.05,
    )


def _pair_and_task() -> tuple[np.ndarray, float]:
    """Two objectives and one intrinsic capability, and the correlation that is left outside it."""
    gram = np.array([[1, 0.5, 0.3], [0.5, 1, -0.2], [0.3, -0.2, 1]])
    related = np.linalg.cholesky(gram)
    return related, float(oracle.packed_correlations(related, 0, 3, 1, np.random.default_rng(0))[0])


def row_2_7() -> Check:
    """Level of the spread of `rho_eff`, relative."""
    related, limit = _pair_and_task()
    rng = np.random.default_rng(28)
    error = 0.0
    for m2, d, draws in ((1, 64, 8000), (12, 96, 3000), (40, 112, 1200)):
        found = oracle.packed_correlations(related, m2, d, draws, rng)
        spread = float(np.sqrt(np.mean(np.square(found - limit))))
        error = max(error, abs(spread / conflict_spread(limit, 1, m2, d) - 1.0))
    return Check(
        "2.7",
        "spread of the conflict angle about its limit",
        "conflict_spread on 3 packings",
        "packings drawn in all coordinates (relative)",
        error,
        0.06,
    )


def row_2_7_rates() -> Check:
    """Log-log slopes of the spread."""
    related, limit = _pair_and_task()
    widths = np.array([64, 144, 400])
    error = 0.0
    for growth, c, residual in ((0.0, 3.0, 0.0), (0.5, 1.0, 0.0), (1.0, 0.125, 0.0), (0.0, 1.0, 1.0)):
        rng = np.random.default_rng(29)
        spreads = []
        for d, draws in zip(widths, (2000, 1000, 300), strict=True):
            found = oracle.packed_correlations(related, int(c * d**growth), int(d), draws, rng, residual)
            spreads.append(np.sqrt(np.mean(np.square(found - limit))))
        error = max(error, abs(oracle.log_slope(widths, np.array(spreads)) - conflict_exponent(growth, residual > 0.0)))
    return Check(
        "2.7",
        "that spread falls as 1/d for constant m2, d^((a-2)/2) for m2 ~ d^a, d^-1/2 with residuals",
        "conflict_exponent in 4 regimes",
        "log-log slopes of packings drawn in all coordinates",
        error,
        0.1,
    )


ROWS: tuple[Row, ...] = (
    row_2_1,
    row_2_2,
    row_2_2_correlated,
    row_2_3,
    row_2_4,
    row_2_5,
    row_2_6,
    row_2_6_calls,
    row_2_7,
    row_2_7_rates,
)
