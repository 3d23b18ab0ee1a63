"""Jackknife, bootstrap, exact tests and false discovery, against textbook values and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from aligntax.errors import AligntaxError
from aligntax.stats import (
    benjamini_hochberg,
    bootstrap_interval,
    empirical_p,
    jackknife,
    mcnemar_exact,
    pearson,
    slope_through_origin,
)


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    x = np.random.default_rng(0).normal(size=9)
    est = jackknife(lambda keep: x[keep].mean(), 9, level=0.95)
    expected = reference.t.interval(0.95, 8, loc=x.mean(), scale=reference.sem(x))
    assert (est.low, est.high) == pytest.approx(expected)
    assert est.se == pytest.approx(reference.sem(x))
    assert np.isnan(jackknife(lambda keep: np.nan if 0 not in keep else 1.0, 4).se)
    with pytest.raises(AligntaxError, match="at least 2"):
        jackknife(lambda keep: 0.0, 1)


def test_bootstrap_of_a_mean_covers() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        est = bootstrap_interval(rng.normal(2.0, 1.0, size=40), np.mean, rng, draws=200)
        covered.append(est.low <= 2.0 <= est.high)
    assert 0.82 <= np.mean(covered) <= 0.96
    x = rng.normal(size=200)
    est = bootstrap_interval(x, np.mean, rng, draws=2000)
    assert est.value == x.mean()
    assert est.se == pytest.approx(reference.sem(x), rel=0.1)


def test_bootstrap_says_when_it_is_undefined() -> None:
    rng = np.random.default_rng(2)
    often = bootstrap_interval(np.arange(3.0), lambda v: np.nan if np.ptp(v) < 2 else 1.0, rng, draws=200)
    assert often.value == 1.0 and np.isnan([often.low, often.high, often.se]).all()
    rare = bootstrap_interval(np.arange(9.0), lambda v: np.nan if np.ptp(v) < 4 else v.mean(), rng, draws=400)
    assert np.isfinite([rare.low, rare.high, rare.se]).all()
    assert np.isnan(bootstrap_interval(np.arange(9.0), lambda v: np.nan, rng, draws=10).value)
    for values, draws, level in [(np.ones(1), 10, 0.9), (np.ones(4), 1, 0.9), (np.ones(4), 10, 95)]:
        with pytest.raises(AligntaxError):
            bootstrap_interval(values, np.mean, rng, draws, level)


def test_pearson_and_slope_agree_with_scipy_and_least_squares() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    y = 0.5 * x + rng.normal(size=60)
    correlation, slope = pearson(x, y, rng), slope_through_origin(x, y, rng)
    assert correlation.value == pytest.approx(reference.pearsonr(x, y).statistic)
    assert slope.value == pytest.approx(np.linalg.lstsq(x[:, None], y, rcond=None)[0][0])
    for est in (correlation, slope):
        assert est.low < est.value < est.high
    assert pearson(x, -3 * x + 2, rng, draws=50).value == pytest.approx(-1)
    assert np.isnan(pearson(np.full(8, 0.1), x[:8], rng, draws=20).value)
    assert np.isnan(slope_through_origin(np.zeros(8), x[:8], rng, draws=20).value)
    for a, b in [(x, y[:-1]), (x[:2], y[:2]), (np.append(x, np.nan), np.append(y, 0))]:
        with pytest.raises(AligntaxError):
            pearson(a, b, rng)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 5), (10, 2), (0, 12), (31, 17)])
def test_mcnemar_is_the_two_sided_binomial_test(lost: int, gained: int) -> None:
    p = mcnemar_exact(lost, gained)
    expected = reference.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert p == pytest.approx(expected)
    assert p == mcnemar_exact(gained, lost)


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(AligntaxError, match="negative"):
        mcnemar_exact(-1, 2)


def test_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.04, 0.01, 0.03, 0.5])  # sorted .01 .03 .04 .5 -> .04 .06 .0533 .5 -> from the right .04 .0533 ..
    assert benjamini_hochberg(p) == pytest.approx([0.16 / 3, 0.04, 0.16 / 3, 0.5])
    with_undefined = benjamini_hochberg(np.insert(p, 1, np.nan))
    assert np.isnan(with_undefined[1])
    assert np.delete(with_undefined, 1) == pytest.approx(benjamini_hochberg(p))
    assert benjamini_hochberg(np.array([])).shape == (0,)
    for wrong in ([0.1, 1.1], [-0.1], [[0.1]]):
        with pytest.raises(AligntaxError, match="p-values"):
            benjamini_hochberg(np.array(wrong))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_agrees_with_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(np.array(p)) == pytest.approx(reference.false_discovery_control(p), abs=1e-12)


def test_false_discoveries_stay_at_the_level() -> None:
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(300):
        z = rng.normal(size=50) + np.repeat([0.0, 3.0], [40, 10])
        rejected = benjamini_hochberg(reference.norm.sf(z)) <= 0.1
        shares.append(rejected[:40].sum() / max(rejected.sum(), 1))
    assert 0.04 < np.mean(shares) < 0.11


def test_empirical_p_counts_itself_and_ties() -> None:
    assert empirical_p(5.0, np.arange(10.0)) == pytest.approx(6 / 11)
    assert empirical_p(99.0, np.arange(10.0)) == pytest.approx(1 / 11)
    assert empirical_p(-1.0, np.arange(10.0)) == 1.0
    assert empirical_p(5.0, np.append(np.arange(10.0), np.nan)) == pytest.approx(6 / 11)
    assert np.isnan(empirical_p(np.nan, np.arange(3.0))) and np.isnan(empirical_p(1.0, np.array([np.nan])))


def test_empirical_p_is_valid_under_the_null() -> None:
    rng = np.random.default_rng(6)
    p = np.array([empirical_p(row[0], row[1:]) for row in rng.normal(size=(2000, 64))])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) <= level + 0.03
        assert np.mean(p <= level) >= level - 0.04
