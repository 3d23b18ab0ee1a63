"""Debiased cosines against enumeration of groups and against worlds whose truth is planted."""

import time
from itertools import permutations

import numpy as np
import pytest

from aligntax.errors import AligntaxError
from aligntax.stats import (
    debiased_norm2,
    debiased_squared_inner,
    estimate_cosine,
    estimate_cosine_from_grams,
    estimate_cosines_from_grams,
    jackknife,
    reliability,
)


def _brute_tax(v: np.ndarray, u: np.ndarray) -> float:
    m = v @ u.T
    numerator = np.mean([m[a, b] * m[c, d] for a, b, c, d in permutations(range(len(v)), 4)])
    return numerator / (_brute_mean(v @ v.T) * _brute_mean(u @ u.T))


def _brute_mean(gram: np.ndarray) -> float:
    return float(np.mean([gram[a, b] for a, b in permutations(range(len(gram)), 2)]))


def _signal(rng: np.random.Generator, groups: int = 8, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return (rng.normal(size=width) + 0.3 * rng.normal(size=(groups, width)) for _ in range(2))  # type: ignore


def _table(v: np.ndarray, u: np.ndarray, level: float = 0.9):  # (sims, J, d)
    turn = (0, 2, 1)
    return estimate_cosines_from_grams(v @ v.transpose(turn), v @ u.transpose(turn), u @ u.transpose(turn), level)


@pytest.mark.parametrize("groups", [5, 6, 8])
def test_closed_forms_equal_enumeration(groups: int) -> None:
    v, u = _signal(np.random.default_rng(groups), groups)
    est = estimate_cosine(v, u)
    assert debiased_norm2(v) == pytest.approx(_brute_mean(v @ v.T), rel=1e-12)
    assert reliability(v) == pytest.approx(_brute_mean(v @ v.T) / np.sum(v.mean(0) ** 2), rel=1e-12)
    assert est.reliability_v == pytest.approx(reliability(v), rel=1e-12)
    assert est.reliability_u == pytest.approx(reliability(u), rel=1e-12)
    cosine = _brute_mean(v @ u.T) / np.sqrt(_brute_mean(v @ v.T) * _brute_mean(u @ u.T))
    assert est.value == pytest.approx(cosine, rel=1e-12)
    assert est.tax == pytest.approx(_brute_tax(v, u), rel=1e-10)


@pytest.mark.parametrize("groups", [5, 8])
def test_vectorised_jackknife_equals_recomputation(groups: int) -> None:
    v, u = _signal(np.random.default_rng(groups + 100), groups)
    est = estimate_cosine(v, u, level=0.8)
    plain = jackknife(lambda keep: estimate_cosine(v[keep], u[keep]).value, groups, level=0.8)
    assert (est.value, est.low, est.high, est.se) == pytest.approx((plain.value, plain.low, plain.high, plain.se))
    tax = jackknife(lambda keep: _brute_tax(v[keep], u[keep]), groups, level=0.8)
    assert (est.tax, est.tax_low, est.tax_high) == pytest.approx((tax.value, tax.low, tax.high))


def test_without_noise_the_cosine_is_the_plain_one() -> None:
    v, u = np.array([1.0, 2.0, -1.0]), np.array([0.5, -3.0, 2.0])
    truth = v @ u / np.linalg.norm(v) / np.linalg.norm(u)
    est = estimate_cosine(np.tile(v, (8, 1)), np.tile(u, (8, 1)))
    assert (est.value, est.low, est.high, est.tax) == pytest.approx((truth, truth, truth, truth**2))
    assert est.value < 0
    flipped = estimate_cosine(np.tile(v, (8, 1)), np.tile(-7.0 * u, (8, 1)))
    assert (flipped.value, flipped.tax) == pytest.approx((-truth, truth**2))


@pytest.mark.parametrize("truth", [-0.6, 0.0, 0.3, 0.8])
def test_planted_cosine_is_recovered_and_intervals_cover(truth: float) -> None:
    rng, sims, width = np.random.default_rng(11), 300, 12
    e1, e2 = np.eye(width)[:2]
    v = e1 + 0.35 * rng.normal(size=(sims, 8, width))  # reliability about .85
    u = 3 * (truth * e1 + np.sqrt(1 - truth**2) * e2) + 1.05 * rng.normal(size=(sims, 8, width))
    table = _table(v, u)
    error = table.value.std(ddof=1) / np.sqrt(sims)
    assert abs(table.value.mean() - truth) < 0.02 + 2 * error
    assert 0.85 <= np.mean((table.low <= truth) & (truth <= table.high)) <= 0.99
    assert 0.95 <= np.mean(table.se) / table.value.std(ddof=1) <= 1.5
    vb, ub = v.mean(1), u.mean(1)
    naive = np.sum(vb * ub, -1) / np.linalg.norm(vb, axis=-1) / np.linalg.norm(ub, axis=-1)
    if truth:  # the instrument can fail: the plain cosine is visibly shrunk
        assert abs(naive.mean()) < abs(truth) * 0.9


def test_shared_noise_is_not_read_as_an_angle() -> None:
    """True cosine 0, half the noise variance shared: dividing by reliabilities reads about .5, this estimator 0."""
    rng, sims, width = np.random.default_rng(5), 400, 200
    shared, own_v, own_u = (rng.normal(size=(sims, 8, width)) for _ in range(3))
    scale = np.sqrt(8 / width)  # makes the reliability of a mean about one half
    v = np.eye(width)[0] + scale * (shared + own_v) / np.sqrt(2)
    u = np.eye(width)[1] + scale * (shared + own_u) / np.sqrt(2)
    table = _table(v, u)
    vb, ub = v.mean(1), u.mean(1)
    naive = np.sum(vb * ub, -1) / np.linalg.norm(vb, axis=-1) / np.linalg.norm(ub, axis=-1)
    divided = naive / np.sqrt(np.abs(table.reliability_v * table.reliability_u))
    assert 0.4 < np.nanmedian(divided) < 0.6
    assert abs(np.nanmean(table.value)) < 0.03
    assert np.nanmean(table.reliability_v) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("width", [8, 64, 512])
def test_pure_noise_pays_no_tax_at_any_width(width: int) -> None:
    """The squared inner product of pure noise averages 0, also with items shared, where plain squares average 1/d."""
    rng, sims = np.random.default_rng(width), 1500
    v = rng.normal(size=(sims, 8, width))
    u = 0.6 * v + 0.8 * rng.normal(size=(sims, 8, width))
    products = debiased_squared_inner(v @ u.transpose(0, 2, 1))
    assert abs(products.mean()) < 2 * products.std(ddof=1) / np.sqrt(sims)
    plain = np.sum(v.mean(1) * u.mean(1), -1) ** 2
    assert plain.mean() > 10 * plain.std(ddof=1) / np.sqrt(sims)
    table = _table(v, u)
    tax = table.tax[~np.isnan(table.tax)]
    assert abs(tax.mean()) < 2 * tax.std(ddof=1) / np.sqrt(len(tax))
    undefined = np.isnan(table.tax)
    assert np.array_equal(undefined, np.isnan(table.value))
    assert 0.2 < undefined.mean() < 0.9  # half of the squared norms of nothing come out negative


@pytest.mark.parametrize("width", [8, 64, 512])
def test_orthogonal_directions_pay_no_tax_at_any_width(width: int) -> None:
    rng, sims = np.random.default_rng(width + 1), 1000
    scale = 1.2 / np.sqrt(width)  # reliability about .85
    v = np.eye(width)[0] + scale * rng.normal(size=(sims, 8, width))
    u = np.eye(width)[1] + scale * rng.normal(size=(sims, 8, width))
    tax = _table(v, u).tax
    assert abs(tax.mean()) < 2 * tax.std(ddof=1) / np.sqrt(sims)
    vb, ub = v.mean(1), u.mean(1)
    plain = np.sum(vb * ub, -1) ** 2 / np.sum(vb**2, -1) / np.sum(ub**2, -1)
    assert plain.mean() > 10 * plain.std(ddof=1) / np.sqrt(sims)
    assert (tax < 0).any()


def test_planted_tax_is_recovered() -> None:
    rng, sims, width = np.random.default_rng(3), 500, 64
    v = np.eye(width)[0] + 0.15 * rng.normal(size=(sims, 8, width))
    u = 0.5 * np.eye(width)[0] + np.sqrt(0.75) * np.eye(width)[1] + 0.15 * rng.normal(size=(sims, 8, width))
    table = _table(v, u)
    assert table.tax.mean() == pytest.approx(0.25, abs=0.01)
    assert 0.85 <= np.mean((table.tax_low <= 0.25) & (table.tax_high >= 0.25)) <= 0.99


def test_undefined_is_nan_never_zero() -> None:
    v = np.array([[1.0, 0], [-1, 0], [1, 0], [-1, 0.1], [1, 0], [-1, 0]])
    assert debiased_norm2(v) < 0
    est = estimate_cosine(v, np.ones((6, 2)))
    assert np.isnan([est.value, est.low, est.high, est.se, est.tax, est.tax_low]).all()
    both = estimate_cosine(v, v)  # a product of two negative norms is positive, yet nothing is known
    assert np.isnan([both.value, both.tax]).all()
    assert est.reliability_v < 0 < est.reliability_u
    assert np.isnan(reliability(np.zeros((4, 2))))
    assert np.isnan(debiased_squared_inner(np.ones((3, 3))))
    few = estimate_cosine(np.ones((4, 2)), np.ones((4, 2)))
    assert (few.value, few.tax) == pytest.approx((1.0, 1.0))
    assert np.isnan([few.tax_low, few.tax_high]).all()


def test_input_that_does_not_fit_is_refused() -> None:
    with pytest.raises(AligntaxError, match="at least 3 groups"):
        estimate_cosine(np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(AligntaxError, match="one partition"):
        estimate_cosine(np.ones((4, 4)), np.ones((5, 4)))
    with pytest.raises(AligntaxError, match="one J"):
        estimate_cosine_from_grams(np.ones((4, 4)), np.ones((4, 5)), np.ones((5, 5)))
    with pytest.raises(AligntaxError, match="stack"):
        estimate_cosine_from_grams(np.ones((2, 4, 4)), np.ones((4, 4)), np.ones((4, 4)))
    with pytest.raises(AligntaxError, match="broadcast"):
        estimate_cosines_from_grams(np.ones((2, 4, 4)), np.ones((3, 4, 4)), np.ones((3, 4, 4)))
    with pytest.raises(AligntaxError, match="level"):
        estimate_cosine(np.ones((4, 4)), np.ones((4, 4)), level=90)


def test_a_table_broadcasts_agrees_with_single_cells_and_is_fast() -> None:
    rng, layers, tasks, width = np.random.default_rng(2), 30, 250, 16
    v = rng.normal(size=(layers, 1, 1, width)) + rng.normal(size=(layers, 1, 8, width))
    u = rng.normal(size=(layers, tasks, 1, width)) + rng.normal(size=(layers, tasks, 8, width))
    vt, ut = np.swapaxes(v, -1, -2), np.swapaxes(u, -1, -2)
    vv, vu, uu = v @ vt, v @ ut, u @ ut
    start = time.perf_counter()
    table = estimate_cosines_from_grams(vv, vu, uu)
    assert time.perf_counter() - start < 1.0
    assert table.value.shape == table.tax.shape == (layers, tasks)
    single = estimate_cosine(v[7, 0], u[7, 31])
    for name, number in vars(table.at(7, 31)).items():
        assert number == pytest.approx(getattr(single, name), rel=1e-9, nan_ok=True), name
