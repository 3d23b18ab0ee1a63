"""Chance laws and layers against simulation, exhaustive search and joined dense problems."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import GeometryError
from aligntax.geometry import (
    Fisher,
    anisotropic_null,
    averaging_ratio,
    joint_layer_gain,
    layer_budget,
    layer_yields,
    packing_law,
    packing_mean_paper,
    random_overlap,
    tax_rate,
    total_change_gain,
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
