"""Tolerances, prices and budgets in nats against SLSQP, finite differences and dense matrices."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from aligntax.errors import GeometryError
from aligntax.geometry import (
    Fisher,
    ToleranceSolution,
    budget_to_norm,
    max_gain_at_changes,
    max_gain_per_nats,
    max_safety_with_tolerances,
    tolerances,
    whiten,
)

quick = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 10**6)
solve = max_safety_with_tolerances


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def draw(seed: int, m: int = 4, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=d)), unit(rng.normal(size=(m, d))), rng.uniform(0.01, 0.4, size=m)


def slsqp(v: np.ndarray, u: np.ndarray, t: np.ndarray, eps: float) -> float:
    constraints = [
        {"type": "ineq", "fun": lambda x: u @ x + t, "jac": lambda x: u},
        {"type": "ineq", "fun": lambda x: eps**2 - x @ x, "jac": lambda x: -2 * x},
    ]
    start = 0.01 * v
    found = minimize(
        lambda x: -v @ x, start, jac=lambda x: -v, constraints=constraints, options={"ftol": 1e-13, "maxiter": 500}
    )
    return -found.fun


def assert_optimal(v: np.ndarray, u: np.ndarray, t: np.ndarray, eps: float, answer: ToleranceSolution) -> None:
    assert (u @ answer.shift >= -t - 1e-8).all() and np.linalg.norm(answer.shift) <= eps * (1 + 1e-8)
    finite = np.isfinite(t)
    dual = eps * np.linalg.norm(v + u.T @ answer.prices) + answer.prices[finite] @ t[finite]
    assert answer.gain == pytest.approx(dual, abs=1e-7)  # a feasible dual point of equal value proves optimality
    assert (answer.price_low <= answer.prices + 1e-9).all() and (answer.prices <= answer.price_high + 1e-9).all()


@quick
@given(seeds, st.sampled_from([1, 3, 8]))
def test_general_tolerances_match_slsqp_and_their_dual(seed: int, m: int) -> None:
    v, u, t = draw(seed, m)
    answer = solve(v, u, t, 1.3)
    assert_optimal(v, u, t, 1.3, answer)
    assert answer.gain == pytest.approx(slsqp(v, u, t, 1.3), abs=1e-6)
    assert answer.budget_price == pytest.approx(np.linalg.norm(v + u.T @ answer.prices), abs=1e-7)


@quick
@given(seeds)
def test_prices_are_derivatives(seed: int) -> None:
    v, u, t = draw(seed, 5)
    answer, h = solve(v, u, t, 1.0), 1e-5
    for i in range(5):
        step = h * np.eye(5)[i]
        slope = (solve(v, u, t + step, 1.0).gain - solve(v, u, t - step, 1.0).gain) / (2 * h)
        assert slope == pytest.approx(answer.prices[i], abs=2e-3)
    slope = (solve(v, u, t, 1.0 + h).gain - solve(v, u, t, 1.0 - h).gain) / (2 * h)
    assert slope == pytest.approx(answer.budget_price, abs=2e-3)


@quick
@given(seeds)
def test_zero_tolerance_by_least_squares_equals_the_cone(seed: int) -> None:
    v, u, _ = draw(seed)
    zero = solve(v, 2 * u, np.zeros(4), 1.5)
    with mock.patch.object(tolerances, "_solve_zero", tolerances._solve_cone):
        cone = solve(v, u, np.zeros(4), 1.5)
    assert zero.gain == pytest.approx(cone.gain, abs=1e-7)
    assert_optimal(v, u, np.zeros(4), 1.5, zero)
    same = solve(torch.tensor(v), torch.tensor(2 * u), torch.zeros(4), 1.5)
    assert same.gain == zero.gain


def test_polish_reaches_machine_precision() -> None:
    v, u, t = draw(3, 4)
    answer = solve(v, u, t, 1.0)
    assert answer.active.any() and np.abs(u @ answer.shift + t)[answer.active].max() < 1e-12
    assert np.linalg.norm(answer.shift) == pytest.approx(1.0, abs=1e-13)


def test_duplicated_tasks_have_one_sided_prices() -> None:
    v, u = np.array([0.6, 0.8, 0.0]), np.array([[-1.0, 0, 0], [-2.0, 0, 0], [0, 0, 1.0]])
    for t in (np.zeros(3), np.array([0.1, 0.1, 0.5])):
        answer = solve(v, u, t, 1.0)
        single = solve(v, u[:1], t[:1], 1.0).prices[0]
        assert answer.price_low[:2] == pytest.approx([0, 0], abs=1e-9)
        assert answer.price_high[:2] == pytest.approx([single, single], rel=1e-6)
        assert answer.prices[:2].sum() == pytest.approx(single, rel=1e-6)
        h, e = 1e-6, np.array([1.0, 0, 0])
        more, less = solve(v, u, t + h * e, 1.0).gain, solve(v, u, t - h * e, 1.0).gain
        assert (more - answer.gain) / h == pytest.approx(answer.price_low[0], abs=1e-3)
        assert (answer.gain - less) / h == pytest.approx(answer.price_high[0], abs=1e-3)


def test_opposed_tasks_make_less_tolerance_infeasible() -> None:
    answer = solve([0.6, 0.8], [[1.0, 0], [-1.0, 0]], [0.0, 0.0], 1.0)
    assert answer.gain == pytest.approx(0.8)
    assert np.isinf(answer.price_high).all() and answer.price_low == pytest.approx([0, 0.6], abs=1e-9)


def test_slack_ball() -> None:
    # v = -(u0 + u1)/|..|: gains are bounded by the tolerances alone.
    u = np.array([[-1.0, 0.0], [0.0, -1.0]])
    v = np.array([0.6, 0.8])
    zero = solve(v, u, [0.0, 0.0], 1.0)
    assert zero.gain == pytest.approx(0, abs=1e-12) and zero.budget_price == pytest.approx(0, abs=1e-12)
    wide = solve(v, u, [0.1, 0.2], 1.0)
    assert wide.gain == pytest.approx(0.06 + 0.16, abs=1e-8)
    assert wide.prices == pytest.approx([0.6, 0.8], abs=1e-6) and wide.budget_price == pytest.approx(0, abs=1e-6)
    assert np.linalg.norm(wide.shift) < 0.5 and wide.active.all()


def test_infinite_and_negative_tolerances() -> None:
    v, u, t = draw(7)
    t[1] = np.inf
    answer = solve(v, u, t, 1.0)
    keep = [0, 2, 3]
    assert answer.gain == pytest.approx(solve(v, u[keep], t[keep], 1.0).gain)
    assert answer.prices[1] == 0 and not answer.active[1]
    free = solve(v, u, np.full(4, np.inf), 2.0)
    assert free.gain == pytest.approx(2.0) and free.shift == pytest.approx(2 * v)
    assert solve(v, np.zeros((0, 6)), [], 2.0).gain == pytest.approx(2.0)
    demand = np.array([-0.3, 0.2, 0.2, 0.2])
    asked = solve(v, u, demand, 1.0)
    assert_optimal(v, u, demand, 1.0, asked)
    assert asked.gain == pytest.approx(slsqp(v, u, demand, 1.0), abs=1e-6)


def test_impossible_demands_name_the_task() -> None:
    u = np.eye(3)[:2]
    with pytest.raises(GeometryError, match=r"task 1 \(code\).*binds"):
        solve(np.ones(3), u, [0.1, -1.2], 1.0, names=["maths", "code"])
    with pytest.raises(GeometryError, match="contradict"):
        solve(np.ones(3), [[1.0, 0, 0], [-1.0, 0, 0]], [-0.2, 0.1], 1.0)
    just = solve(np.ones(3), u, [0.1, -1.0], 1.0)
    assert just.shift == pytest.approx([0, 1, 0], abs=1e-7) and np.isnan(just.prices).all()
    for budget in (0.0, -1.0, np.nan):
        with pytest.raises(GeometryError, match="budget"):
            solve(np.ones(3), u, [0.1, 0.1], budget)
    with pytest.raises(GeometryError, match="tolerances"):
        solve(np.ones(3), u, [0.1, np.nan], 1.0)


def fisher(seed: int, n: int = 4, d: int = 7) -> tuple[Fisher, np.ndarray]:
    factor = np.random.default_rng(seed).normal(size=(n, d)) * np.linspace(0.1, 3, d)
    full = factor.T @ factor
    return Fisher(factor, 0.05), full + 0.05 * np.trace(full) / d * np.eye(d)


@quick
@given(seeds, st.sampled_from([1, 4, 12]))
def test_fisher_equals_the_dense_matrix(seed: int, n: int) -> None:
    low, dense = fisher(seed, n)
    x = np.random.default_rng(seed + 1).normal(size=(3, 7))
    values, vectors = np.linalg.eigh(dense)
    np.testing.assert_allclose(low.quad(x), np.einsum("ni,ij,nj->n", x, dense, x))
    np.testing.assert_allclose(low.solve(x), np.linalg.solve(dense, x.T).T, rtol=1e-7)
    np.testing.assert_allclose(low.sqrt_apply(x), x @ vectors * np.sqrt(values) @ vectors.T, atol=1e-9)
    np.testing.assert_allclose(low.sqrt_solve(low.sqrt_apply(x)), x, atol=1e-9)
    assert low.rank == min(n, 7) and low.mean_eigenvalue == pytest.approx(low.trace / 7)
    even = low.isotropic()
    assert even.quad(x[0]) == pytest.approx(low.mean_eigenvalue * x[0] @ x[0])
    assert even.trace == pytest.approx(low.trace)


def test_fisher_refuses_singular_and_zero() -> None:
    low, _ = fisher(0)
    with pytest.raises(GeometryError, match="ridge"):
        Fisher(low.factor).solve(np.ones(7))
    with pytest.raises(GeometryError, match="zero"):
        Fisher(np.zeros((2, 7)))
    assert budget_to_norm(0.5) == 1.0


@quick
@given(seeds)
def test_gain_in_nats_matches_slsqp_in_original_coordinates(seed: int) -> None:
    low, dense = fisher(seed)
    rng = np.random.default_rng(seed)
    g, rows, nats = rng.normal(size=7) * 3, rng.normal(size=(3, 7)), 0.2
    root = np.linalg.cholesky(dense)
    t = rng.uniform(0.02, 0.2, size=3)
    answer = max_gain_per_nats(g, rows, t, low, nats)
    assert low.quad(answer.shift) / 2 == pytest.approx(nats, rel=1e-6)
    assert (rows @ answer.shift >= -t - 1e-8).all() and answer.gain == pytest.approx(g @ answer.shift)
    white_g, white_rows = np.linalg.solve(root, g), np.linalg.solve(root, rows.T).T
    assert answer.gain == pytest.approx(slsqp(white_g, white_rows, t, np.sqrt(2 * nats)), rel=1e-5)
    h = 1e-5
    slope = (max_gain_per_nats(g, rows, t, low, nats + h).gain - answer.gain) / h
    assert slope == pytest.approx(answer.budget_price, rel=2e-3)
    task = int(np.argmax(answer.prices))
    more, less = (max_gain_per_nats(g, rows, t + s * h * np.eye(3)[task], low, nats).gain for s in (1, -1))
    assert (more - less) / (2 * h) == pytest.approx(answer.prices[task], rel=5e-3, abs=1e-3)


def test_exact_changes_in_nats_and_isotropic_variant() -> None:
    low, dense = fisher(5)
    rng = np.random.default_rng(5)
    g, rows, b = rng.normal(size=7), rng.normal(size=(2, 7)), np.array([0.01, -0.02])
    gain, shift = max_gain_at_changes(g, rows, b, low, 0.3)
    np.testing.assert_allclose(rows @ shift, b, atol=1e-10)
    assert low.quad(shift) == pytest.approx(0.6) and gain == pytest.approx(g @ shift)
    moves = rng.normal(size=(4000, 7)) * 0.2
    trials = shift + moves - moves @ np.linalg.pinv(rows) @ rows
    cheap = trials[np.einsum("ni,ij,nj->n", trials, dense, trials) <= 0.6]
    assert len(cheap) > 20 and (cheap @ g).max() <= gain
    flat = max_gain_per_nats(g, rows, [np.inf] * 2, low.isotropic(), 0.3)
    assert flat.gain == pytest.approx(np.linalg.norm(g) * np.sqrt(0.6 / low.mean_eigenvalue))
    white, _ = whiten(g, rows, low)
    assert white @ white == pytest.approx(g @ np.linalg.solve(dense, g))
