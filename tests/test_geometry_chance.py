"""Chance laws, layers and conflicts against simulation, exhaustive search and joined dense problems."""

from itertools import combinations

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from aligntax.errors import GeometryError
from aligntax.geometry import (
    Fisher,
    absolute_loss,
    anisotropic_null,
    averaging_ratio,
    conflict_frontier,
    decompose_gains,
    effective_correlation,
    equal_absolute_gain,
    equal_normalised_gain,
    joint_layer_gain,
    layer_budget,
    layer_yields,
    packing_law,
    packing_mean_paper,
    preserving_helps,
    random_overlap,
    tax_rate,
    total_change_gain,
    which_to_preserve,
)

quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(("m1", "m2", "d"), [(0, 1, 12), (2, 5, 16), (3, 9, 13), (1, 3, 8)])
def test_packing_law_against_simulation(m1: int, m2: int, d: int) -> None:
    rng = np.random.default_rng(m1 + 10 * m2)
    v, fixed = rng.normal(size=d), rng.normal(size=(m1, d))
    law = packing_law(tax_rate(v, fixed), m1, m2, d)
    taxes = [tax_rate(v, np.vstack([fixed, rng.normal(size=(m2, d))])) for _ in range(1500)]
    assert scipy.stats.kstest(taxes, law.cdf).pvalue > 1e-3
    assert np.mean(taxes) == pytest.approx(law.mean(), abs=4 * law.std() / np.sqrt(1500))
    start = tax_rate(v, fixed)
    assert law.mean() == pytest.approx(start + (1 - start) * m2 / (d - m1))
    assert scipy.stats.kstest(law.rvs(size=1000, random_state=1), law.cdf).pvalue > 1e-3
    assert law.cdf(law.ppf(0.3)) == pytest.approx(0.3) and law.sf(law.ppf(0.3)) == pytest.approx(0.7)
    grid = np.linspace(start, 1, 4001)[1:-1]
    middle = (grid > law.ppf(0.2)) & (grid < law.ppf(0.8))
    assert np.trapezoid(law.pdf(grid[middle]), grid[middle]) == pytest.approx(0.6, abs=0.02)


def test_packing_law_edges() -> None:
    certain = packing_law(0.4, 2, 0, 10)
    assert certain.mean() == 0.4 and certain.var() == 0 and certain.ppf(0.9) == 0.4
    assert (certain.cdf([0.39, 0.4]) == [0, 1]).all() and (certain.rvs(size=(2, 3)) == 0.4).all()
    rng = np.random.default_rng(0)
    for m1, m2 in ((2, 8), (2, 11), (0, 10)):
        v, rows = rng.normal(size=10), rng.normal(size=(m1 + m2, 10))
        assert tax_rate(v, rows) == pytest.approx(1.0)  # the span is everything, whatever the draw
        assert packing_law(0.4 if m1 else 0.0, m1, m2, 10).mean() == 1.0
    for bad in ((0.1, 0, 3, 8), (0.5, 8, 0, 8), (1.2, 1, 1, 8), (0.1, 9, 1, 8), (0.1, 1, -1, 8)):
        with pytest.raises(GeometryError):
            packing_law(*bad)
    assert random_overlap(6, 24).mean() == pytest.approx(0.25)
    assert random_overlap(0, 24).mean() == 0 and random_overlap(24, 24).mean() == 1
    with pytest.raises(GeometryError):
        random_overlap(25, 24)


def test_paper_term_is_far_from_the_truth_when_crowded() -> None:
    overlap, link, d, m2 = 0.415, 0.15, 64, 40
    intrinsic = np.zeros((2, d))
    intrinsic[0, :2] = [overlap, np.sqrt(1 - overlap**2)]
    intrinsic[1, 0] = overlap
    intrinsic[1, 1] = (link - overlap**2) / intrinsic[0, 1]
    intrinsic[1, 2] = np.sqrt(1 - np.sum(intrinsic[1] ** 2))
    v = np.eye(d)[0]
    rng = np.random.default_rng(0)
    truth = np.mean([tax_rate(v, np.vstack([intrinsic, rng.normal(size=(m2, d))])) for _ in range(300)])
    assert packing_mean_paper([overlap, overlap], m2, d) == pytest.approx(0.97, abs=0.005)
    assert packing_law(tax_rate(v, intrinsic), 2, m2, d).mean() == pytest.approx(0.75, abs=0.005)
    assert truth == pytest.approx(0.75, abs=0.015)


@pytest.mark.parametrize("n", [3, 30])
def test_anisotropic_null_follows_dense_draws(n: int) -> None:
    rng = np.random.default_rng(n)
    factor, v = rng.normal(size=(n, 12)) * np.geomspace(0.05, 2, 12), rng.normal(size=12)
    fast = anisotropic_null(v, torch.tensor(factor), 3000, rng)
    u = rng.standard_normal((3000, n)) @ factor
    slow = (unit(u) @ unit(v)) ** 2
    assert scipy.stats.ks_2samp(fast, slow).pvalue > 1e-3
    assert ((fast >= 0) & (fast <= 1 + 1e-12)).all()
    with pytest.raises(GeometryError, match="zero"):
        anisotropic_null(v, np.zeros((2, 12)), 5, rng)


@quick
@given(seeds)
def test_layer_budget_is_optimal_and_the_total_variant_never_smaller(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, rows = rng.normal(size=(4, 6)) * rng.lognormal(size=(4, 1)), rng.normal(size=(4, 2, 6))
    x = layer_yields(g, rows)
    np.testing.assert_allclose(
        x, [np.linalg.norm(a) * np.sqrt(1 - tax_rate(a, b)) for a, b in zip(g, rows, strict=True)]
    )
    split = layer_budget(x, 1.4)
    assert np.linalg.norm(split.spend) == pytest.approx(1.4) and split.gain == pytest.approx(split.spend @ x)
    assert (1.4 * unit(rng.normal(size=(200, 4))) @ x).max() <= split.gain
    assert split.equal_gain == pytest.approx(1.4 * np.full(4, 0.5) @ x)
    assert split.ratio == pytest.approx(np.sqrt(1 + np.var(x) / np.mean(x) ** 2))
    total = total_change_gain(g, rows, 1.4)
    joined, flat = np.concatenate(list(rows), axis=1), g.ravel()
    free = flat - np.linalg.pinv(joined) @ (joined @ flat)
    assert total == pytest.approx(1.4 * np.linalg.norm(free)) and total >= split.gain - 1e-9


@quick
@given(seeds)
def test_joint_fisher_gain_is_the_dense_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g, rows = rng.normal(size=(3, 4)), rng.normal(size=(3, 2, 4))
    fisher = Fisher(rng.normal(size=(5, 12)), 0.1)
    dense = fisher.factor.T @ fisher.factor + fisher.floor * np.eye(12)
    each = np.zeros((6, 12))
    for layer in range(3):
        each[2 * layer : 2 * layer + 2, 4 * layer : 4 * layer + 4] = rows[layer]
    gains = []
    for protect, constraint in (("each", each), ("total", np.concatenate(list(rows), axis=1))):
        free = np.linalg.svd(constraint)[2][constraint.shape[0] :].T
        inner = free.T @ g.ravel()
        best = np.sqrt(2 * 0.3 * inner @ np.linalg.solve(free.T @ dense @ free, inner))
        gain, shift = joint_layer_gain(g, rows, fisher, 0.3, protect)
        assert gain == pytest.approx(best) and np.sum(shift * g) == pytest.approx(best)
        np.testing.assert_allclose(constraint @ shift.ravel(), 0, atol=1e-9)
        assert fisher.quad(shift.ravel()) / 2 == pytest.approx(0.3)
        gains.append(gain)
    assert gains[1] >= gains[0] - 1e-9


def test_averaging_ratio_against_search_and_bad_layers() -> None:
    n, s = np.array([1.0, 2.0, 0.5]), np.array([0.3, 0.1, 0.4])
    # Fractions a_l with sum (a_l n_l)^2 fixed: uniform against the best.
    y = s / n
    spend = unit(np.abs(np.random.default_rng(0).normal(size=(200000, 3))))
    uniform = y @ n / np.linalg.norm(n)
    assert averaging_ratio(n, s) == pytest.approx((spend @ y).max() / uniform, rel=1e-4)
    assert averaging_ratio(n, 2 * n**2) == pytest.approx(1.0)
    for call in (
        lambda: averaging_ratio(n, -s),
        lambda: layer_budget([0.0, 0.0], 1),
        lambda: layer_budget([-1.0, 2], 1),
    ):
        with pytest.raises(GeometryError):
            call()


def pair(seed: int, m: int = 3, d: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=d), rng.normal(size=d), rng.normal(size=(m, d))


@quick
@given(seeds)
def test_effective_correlation_is_the_partial_correlation(seed: int) -> None:
    v1, v2, rows = pair(seed)
    u, x, y = unit(rows), unit(v1), unit(v2)
    g, a, b = np.linalg.pinv(u @ u.T), unit(rows) @ unit(v1), unit(rows) @ unit(v2)
    expected = (x @ y - a @ g @ b) / np.sqrt((1 - a @ g @ a) * (1 - b @ g @ b))
    rho = effective_correlation(v1, v2, np.vstack([rows, rows[0]]))
    assert rho == pytest.approx(expected, abs=1e-9)
    verdict = preserving_helps(v1, v2, rows)
    assert verdict.helps == (expected > x @ y) and verdict.mediated == pytest.approx(a @ g @ b)
    assert verdict.case == ("worsened" if not verdict.helps else "conflict removed" if a @ g @ b < 0 else "suppressor")
    parts = decompose_gains(v1, v2, rows, 1.5)
    np.testing.assert_allclose(parts.gains, 1.5 * np.sqrt([1 - a @ g @ a, 1 - b @ g @ b]) * np.sqrt((1 + expected) / 2))
    top = equal_normalised_gain(rho)
    assert conflict_frontier(rho, top) == pytest.approx(top)


def realise(a: float, b: float, rho: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    v1 = np.array([a, np.sqrt(1 - a * a), 0.0])
    second = (rho - a * b) / v1[1]
    return v1, np.array([b, second, np.sqrt(max(1 - b * b - second**2, 0.0))]), np.eye(3)[:1]


def test_opposite_signs_do_not_always_help() -> None:
    verdict = preserving_helps(*realise(0.1, -0.9, -0.5))
    assert verdict.rho_eff == pytest.approx(-0.945, abs=1e-3)
    assert not verdict.helps and verdict.case == "worsened" and verdict.mediated == pytest.approx(-0.09)
    assert preserving_helps(*realise(0.5, -0.5, -0.5)).case == "conflict removed"
    assert preserving_helps(*realise(0.1, 0.8, 0.5)).case == "suppressor"
    assert preserving_helps(*realise(0.5, 0.5, 0.5)).case == "worsened"
    assert preserving_helps(*realise(0.0, 0.0, 0.5)).case == "unchanged"
    rng, failed, total = np.random.default_rng(0), 0, 0
    while total < 1500:
        a, b, rho = rng.uniform(-1, 1, size=3)
        if a * b < 0 and (rho - a * b) ** 2 < (1 - a * a) * (1 - b * b):
            total += 1
            failed += not preserving_helps(*realise(a, b, rho)).helps
    assert failed / total == pytest.approx(0.18, abs=0.04)


def test_tax_one_leaves_the_conflict_undefined() -> None:
    with pytest.raises(GeometryError, match=r"v2.*undefined"):
        effective_correlation([1.0, 1, 0], [0, 1.0, 0], [[0, 2.0, 0]])


@quick
@given(seeds, st.integers(1, 5))
def test_equal_absolute_gain_is_max_min(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows = rng.normal(size=(k, 7)) + 0.5, rng.normal(size=(2, 7))
    best = equal_absolute_gain(v, rows, 1.2)
    assert np.linalg.norm(rows @ best.shift) < 1e-8 and np.linalg.norm(best.shift) <= 1.2 + 1e-9
    assume(best.gain > 1e-3)
    assert (unit(v) @ best.shift).min() == pytest.approx(best.gain, abs=1e-8)
    p = unit(v) - unit(v) @ np.linalg.pinv(rows) @ rows

    def distance(w: np.ndarray) -> float:
        return float(np.sum((p.T @ w) ** 2))

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(distance, np.full(k, 1 / k), bounds=[(0, 1)] * k, constraints=simplex, options={"ftol": 1e-14})
    assert best.gain == pytest.approx(1.2 * np.sqrt(found.fun), abs=1e-5)
    assert absolute_loss(v, rows, 1.2) >= 0
    assert absolute_loss(v, np.zeros((0, 7)), 1.2) == 0


def test_opposed_objectives_gain_nothing() -> None:
    none = equal_absolute_gain([[1.0, 0, 0], [-1.0, 0, 0]], np.zeros((0, 3)), 1.0)
    assert none.gain == 0 and not none.shift.any() and none.weights == pytest.approx([0.5, 0.5])


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_choice_of_tasks_is_the_exhaustive_best(seed: int) -> None:
    v1, v2, rows = pair(seed, m=4, d=9)
    choice = which_to_preserve(v1, v2, rows)
    best = unit(v1) @ unit(v2)
    for size in range(1, 5):
        for subset in combinations(range(4), size):
            best = max(best, effective_correlation(v1, v2, rows[list(subset)]))
    assert choice.rho_eff == pytest.approx(best) and choice.exact
    assert choice.gain == pytest.approx(best - unit(v1) @ unit(v2)) and choice.absolute_loss >= 0


def test_greedy_choice_finds_the_planted_conflict_and_passes_over_copies() -> None:
    rng = np.random.default_rng(0)
    source = np.eye(40)[0]
    v1 = np.eye(40)[1] + np.eye(40)[2] + source
    v2 = np.eye(40)[1] - np.eye(40)[2] * 0.2 - source
    rows = np.vstack([rng.normal(size=(14, 40)) * 0.05 + np.eye(40)[5:19] * 3, source, 2 * source, v1])
    choice = which_to_preserve(v1, v2, rows)
    assert not choice.exact and (14 in choice.tasks or 15 in choice.tasks) and 16 not in choice.tasks
    assert choice.rho_eff == pytest.approx(effective_correlation(v1, v2, rows[list(choice.tasks)]))
    assert choice.gain > 0.3
