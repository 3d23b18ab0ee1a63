"""Coherence, the corrected bound and the rates of scaling, against real packings and against the paper's own constant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import GeometryError
from aligntax.geometry import (
    coherence,
    coherence_bound,
    conflict_exponent,
    conflict_spread,
    packing_law,
    random_coherence,
    scaling_regime,
    tax_rate,
    welch_bound,
)
from aligntax.lab.oracles.scaling import equiangular_frames, largest_cosine

quick = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 10**6)


@quick
@given(seeds)
def test_no_packing_beats_welch_and_coherence_ignores_length(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(3, 12)), int(rng.integers(2, 8))
    rows = rng.normal(size=(n, d))
    mu = coherence(rows)
    assert mu == pytest.approx(largest_cosine(rows)) and mu >= welch_bound(n, d) - 1e-12
    assert mu == pytest.approx(coherence(rows * rng.uniform(0.1, 9, size=(n, 1))))


def test_welch_is_attained_by_equiangular_frames_and_zero_where_orthogonal_features_exist() -> None:
    for frame in equiangular_frames():
        assert coherence(frame) == pytest.approx(welch_bound(*frame.shape), abs=1e-12)
    assert welch_bound(5, 5) == 0 and welch_bound(1, 1) == 0 and coherence(np.eye(4)) == 0


def test_coherence_takes_intrinsic_overlap_out() -> None:
    rows = np.array([[1.0, 0, 0], [0.6, 0.8, 0], [0.1, 0, np.sqrt(0.99)]])
    rho = np.zeros((3, 3))
    rho[0, 1] = rho[1, 0] = 0.5
    assert coherence(rows) == pytest.approx(0.6)
    assert coherence(rows, rho) == pytest.approx(0.1)
    rho[0, 2] = rho[2, 0] = 0.3
    assert coherence(rows, rho) == pytest.approx(0.2)  # a residual may be negative
    assert coherence(rows, rho, unrelated_only=True) == pytest.approx(0.06)


def test_random_coherence_is_kept_at_its_probability_and_is_not_loose() -> None:
    rng = np.random.default_rng(0)
    limit = random_coherence(20, 50, miss=0.2)
    found = [coherence(rng.normal(size=(20, 50))) for _ in range(600)]
    assert 0.12 < np.mean(np.array(found) > limit) < 0.24
    assert random_coherence(20, 5000) < random_coherence(20, 500) < random_coherence(200, 500)
    assert random_coherence(1000, 40000) == pytest.approx(np.sqrt(4 * np.log(1000) / 40000), rel=0.1)


def _features(seed: int) -> tuple[np.ndarray, np.ndarray, int, int]:
    """A safety row with m1 related and m2 unrelated capabilities, and the intrinsic Gram matrix of all of them."""
    rng = np.random.default_rng(seed)
    m1, m2, d = int(rng.integers(0, 4)), int(rng.integers(0, 4)), 300
    if m1 + m2 == 0:
        m1 = 1
    basis = rng.normal(size=(1 + m1, 1 + m1)) + 2 * np.eye(1 + m1)
    small = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    limit = np.zeros((1 + m1 + m2, d))
    limit[: 1 + m1, : 1 + m1] = small
    limit[1 + m1 :, 1 + m1 : 1 + m1 + m2] = np.eye(m2)
    rows = limit + rng.choice([0.003, 0.02]) * rng.normal(size=limit.shape) * (np.arange(d) < 1 + m1 + m2)
    return rows, limit @ limit.T, m1, m2


@quick
@given(seeds)
def test_tax_stays_within_the_bound_of_measured_coherence(seed: int) -> None:
    rows, limit, m1, m2 = _features(seed)
    mu = coherence(rows, limit)
    found = coherence_bound(limit[0, 1 : 1 + m1], m2, mu, limit[1 : 1 + m1, 1 : 1 + m1])
    tax = tax_rate(rows[0], rows[1:])
    assert found.eta == pytest.approx((m1 + m2 - 1) * mu)
    assert found.valid == (found.eta < found.smallest)
    assert abs(tax - found.centre) <= found.bound + 1e-12 and found.low - 1e-12 <= tax <= found.high + 1e-12
    if found.valid:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        sharper = coherence_bound(
            limit[0, 1 : 1 + m1], m2, mu, limit[1 : 1 + m1, 1 : 1 + m1], np.square(units[1:] @ units[0]).sum()
        )
        assert abs(tax - sharper.centre) <= sharper.bound + 1e-12 <= found.bound + 2e-12


def test_the_papers_constant_is_too_small_and_ours_is_attained() -> None:
    m, rho, mu = 3, 0.4, 0.1
    a = np.full(m, rho + mu)
    gram = (1 + mu) * np.eye(m) - mu
    tax = float(a @ np.linalg.solve(gram, a))
    assert tax <= 1  # three unit vectors and a safety direction with these cosines exist
    deviation = tax - m * rho**2
    found = coherence_bound([rho] * m, 0, mu)
    assert deviation == pytest.approx(found.bound, abs=1e-12)
    eta = (m - 1) * mu
    constant_one = 2 * mu * m * rho + m * mu**2 + eta * float(a @ a)
    assert deviation > constant_one + 0.03


def test_identity_gram_is_the_uncorrelated_case_and_a_broken_condition_promises_nothing() -> None:
    plain, same = coherence_bound([0.3, -0.2], 2, 0.05), coherence_bound([0.3, -0.2], 2, 0.05, np.eye(2))
    assert plain == same and plain.valid and plain.centre == pytest.approx(0.13)
    crowded = coherence_bound([0.3, -0.2], 30, 0.05)
    assert not crowded.valid and crowded.bound == np.inf and (crowded.low, crowded.high) == (0.0, 1.0)
    tight = np.array([[1, 0.9], [0.9, 1]])
    assert coherence_bound([0.3, 0.3], 0, 0.05, tight).valid
    assert not coherence_bound([0.3, 0.3], 0, 0.11, tight).valid  # lambda_min is 0.1
    copies = coherence_bound([0.3, 0.3], 0, 0.0, np.ones((2, 2)))
    assert copies.centre == pytest.approx(0.09) and not copies.valid
    assert coherence_bound([], 0, 0.4).bound == 0 and coherence_bound([], 3, 0.0).bound == 0


@pytest.mark.parametrize(("growth", "c"), [(0.0, 3.0), (0.5, 2.0), (1.0, 0.3)])
def test_regime_rates_are_those_of_the_exact_law(growth: float, c: float) -> None:
    tau, widths = 0.2, np.array([2.0**14, 2.0**20])
    laws = [packing_law(tau, 1, round(c * d**growth), int(d)) for d in widths]
    found = scaling_regime(growth, c, tau)
    slope = np.diff(np.log([law.mean() - tau for law in laws]))[0] / np.diff(np.log(widths))[0]
    scatter = np.diff(np.log([law.std() for law in laws]))[0] / np.diff(np.log(widths))[0]
    assert slope == pytest.approx(found.exponent, abs=3e-3) and scatter == pytest.approx(found.fluctuation, abs=3e-3)
    assert laws[-1].mean() - tau == pytest.approx(found.coefficient * widths[-1] ** found.exponent, rel=1e-3)
    assert found.limit == pytest.approx(tau + 0.8 * c if growth == 1 else tau)
    assert scaling_regime(growth, c, tau, residuals=True).fluctuation == -0.5


@pytest.mark.parametrize(("growth", "c"), [(0.0, 3.0), (0.5, 2.0), (1.0, 0.3)])
def test_conflict_exponent_is_the_slope_of_the_spread(growth: float, c: float) -> None:
    widths = np.array([2.0**14, 2.0**20])
    spreads = [conflict_spread(0.4, 2, round(c * d**growth), int(d)) for d in widths]
    assert np.diff(np.log(spreads))[0] / np.diff(np.log(widths))[0] == pytest.approx(
        conflict_exponent(growth), abs=3e-3
    )
    assert conflict_exponent(growth, residuals=True) == -0.5
    assert conflict_spread(1.0, 2, 5, 64) == 0 and conflict_spread(0.3, 2, 0, 64) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: coherence_bound([0.9, 0.9], 0, 0.1), "jointly feasible"),
        (lambda: coherence_bound([0.6, -0.6], 0, 0.1, [[1, 0.9], [0.9, 1]]), "jointly feasible"),
        (lambda: coherence_bound([0.1, 0.1], 0, 0.1, [[1, 1.2], [1.2, 1]]), "jointly feasible"),
        (lambda: coherence_bound([0.1, 0.1], 0, 0.1, [[2, 0], [0, 1]]), "ones on its diagonal"),
        (lambda: coherence_bound([0.1, 0.1], 0, 0.1, np.eye(3)), r"\(3, 3\)"),
        (lambda: coherence_bound([0.1], -1, 0.1), "m_incidental=-1"),
        (lambda: coherence_bound([0.1], 1, -0.1), "mu=-0.1"),
        (lambda: coherence_bound([0.1], 0, 0.1, squared_cosines=0.5), "squared_cosines=0.5"),
        (lambda: coherence_bound([np.nan], 0, 0.1), "nan"),
        (lambda: welch_bound(0, 4), "n_features=0"),
        (lambda: coherence(np.ones((1, 4))), "pair"),
        (lambda: coherence(np.ones(4)), r"\(4,\)"),
        (lambda: coherence(np.eye(3), np.eye(2)), r"\(2, 2\)"),
        (lambda: random_coherence(4, 8, miss=0.0), "miss=0.0"),
        (lambda: scaling_regime(1.5, 1.0), "growth=1.5"),
        (lambda: scaling_regime(1.0, 1.5), "coefficient=1.5"),
        (lambda: scaling_regime(0.0, 1.0, 1.2), "1.2"),
        (lambda: conflict_spread(0.3, 2, 61, 64), "d=64"),
        (lambda: conflict_spread(1.3, 2, 6, 64), "1.3"),
    ],
)
def test_impossible_input_is_named(call: object, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        call()  # type: ignore[operator]
