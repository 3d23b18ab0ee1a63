"""Conflicts of safety objectives against partial correlations, numeric optimisation and exhaustive search."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from aligntax.errors import GeometryError
from aligntax.geometry import (
    absolute_loss,
    binding_weights,
    conflict_frontier,
    decompose_gains,
    directions_with,
    effective_correlation,
    effective_correlations,
    efficient_gains,
    equal_gain,
    equal_normalised_gain,
    preservation_effect,
    which_to_preserve,
)

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=30, deadline=None)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


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
    verdict = preservation_effect(v1, v2, rows)
    assert verdict.helps == (expected > x @ y) and verdict.mediated == pytest.approx(a @ g @ b)
    assert verdict.case == ("worsened" if not verdict.helps else "conflict removed" if a @ g @ b < 0 else "suppressor")
    parts = decompose_gains([v1, v2], rows, 1.5)
    np.testing.assert_allclose(parts.gains, 1.5 * np.sqrt([1 - a @ g @ a, 1 - b @ g @ b]) * np.sqrt((1 + expected) / 2))
    top = equal_normalised_gain(rho)
    assert conflict_frontier(rho, top) == pytest.approx(top)


@quick
@given(seeds, st.integers(2, 4))
def test_tables_of_many_objectives_hold_the_pairs(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows = rng.normal(size=(k, 7)), rng.normal(size=(2, 7))
    table = effective_correlations(v, rows)
    assert np.diag(table) == pytest.approx(1) and table == pytest.approx(table.T)
    for i, j in combinations(range(k), 2):
        assert table[i, j] == pytest.approx(effective_correlation(v[i], v[j], rows))
    parts = decompose_gains(v, rows, 2.0)
    free = unit(v) - unit(v) @ np.linalg.pinv(rows) @ rows
    gain, shift = equal_gain(unit(free), rows, 1.0)
    assert parts.alignment == pytest.approx(gain, abs=1e-6)
    assert (free @ shift * 2.0 >= parts.gains - 1e-6).all()
    if k == 2:
        assert equal_normalised_gain(table) == pytest.approx(equal_normalised_gain(table[0, 1]), abs=1e-7)


def test_opposite_signs_do_not_always_help() -> None:
    """The counterexample to part (i) of [G] Thm 6.4, and how often it fails."""
    verdict = preservation_effect(*directions_with(-0.5, 0.1, -0.9))
    assert verdict.rho_eff == pytest.approx(-0.945, abs=1e-3)
    assert not verdict.helps and verdict.case == "worsened" and verdict.mediated == pytest.approx(-0.09)
    rng, failed, total = np.random.default_rng(0), 0, 0
    while total < 1500:
        a, b, rho = rng.uniform(-1, 1, size=3)
        if a * b < 0 and (rho - a * b) ** 2 < (1 - a * a) * (1 - b * b):
            total += 1
            failed += not preservation_effect(*directions_with(rho, a, b)).helps
    assert failed / total == pytest.approx(0.18, abs=0.04)


@quick
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(-0.99, 0.99), st.booleans())
def test_opposite_signs_help_where_the_paper_is_right(a: float, b: float, rho: float, matched: bool) -> None:
    b = -a if matched else -b
    rho = rho if matched else abs(rho)
    assume((rho - a * b) ** 2 < 0.999 * (1 - a * a) * (1 - b * b))
    assert preservation_effect(*directions_with(rho, a, b)).helps


def test_every_case_has_its_name() -> None:
    cases = {
        (-0.5, 0.5, -0.5): "conflict removed",
        (0.5, 0.1, 0.8): "suppressor",
        (0.5, 0.5, 0.5): "worsened",
        (0.5, 0.0, 0.0): "unchanged",
    }
    for (rho, a, b), case in cases.items():
        effect = preservation_effect(*directions_with(rho, a, b))
        assert effect.case == case and effect.helps == (case in ("conflict removed", "suppressor"))


@quick
@given(seeds)
def test_a_better_share_never_means_a_better_gain(seed: int) -> None:
    v1, v2, rows = pair(seed)
    effect = preservation_effect(v1, v2, rows, 1.7)
    lost = equal_gain([v1, v2], np.zeros((0, 7)), 1.7)[0] - equal_gain([v1, v2], rows, 1.7)[0]
    assert effect.absolute_loss == pytest.approx(lost) and lost >= -1e-12
    assert absolute_loss([v1, v2], rows, 1.7) == pytest.approx(lost)


@quick
@given(seeds, st.integers(1, 4))
def test_directions_have_the_correlations_asked_for(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(m, m + 1)))
    rows = np.vstack([rows, rows[0]])  # dependent capabilities are feasible
    x, y = unit(rng.normal(size=(2, m + 3)))
    wide = np.hstack([rows, np.zeros((m + 1, 2))])
    v1, v2, caps = directions_with(x @ y, wide @ x, wide @ y, wide @ wide.T)
    assert np.linalg.norm([v1, v2], axis=1) == pytest.approx(1)
    assert (
        v1 @ v2 == pytest.approx(x @ y)
        and caps @ v1 == pytest.approx(wide @ x)
        and caps @ v2 == pytest.approx(wide @ y)
    )
    assert caps @ caps.T == pytest.approx(wide @ wide.T)
    assert effective_correlation(v1, v2, caps) == pytest.approx(effective_correlation(x, y, wide), abs=1e-7)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.9, 0.9, -0.9), r"rho = 0\.9, a = \[0\.9\], b = \[-0\.9\] .*\[-1, -0\.62\]"),
        ((0.0, 1.1, 0.0), r"a = \[1\.1\]"),
        ((0.0, [0.8, 0.8], [0.0, 0.0]), r"a = \[0\.8, 0\.8\].*1\.28"),
        ((0.0, [0.5, 0.4], [0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), r"a = \[0\.5, 0\.4\].*contradict"),
        ((0.0, [0.0, 0.0], [0.0, 0.0], [[1.0, 1.2], [1.2, 1.0]]), r"eigenvalue -0\.2"),
        ((0.0, [0.0, 0.0], [0.0, 0.0], [[1.0, 0.2], [0.1, 1.0]]), "not symmetric"),
        ((0.0, [0.0, 0.0], [0.0]), "b has shape"),
        ((float("nan"), 0.0, 0.0), "nan"),
    ],
)
def test_infeasible_correlations_are_refused_with_their_numbers(numbers: tuple, words: str) -> None:
    with pytest.raises(GeometryError, match=words):
        directions_with(*numbers)


def test_a_tax_of_one_leaves_the_conflict_undefined() -> None:
    with pytest.raises(GeometryError, match=r"v2.*undefined"):
        effective_correlation([1.0, 1, 0], [0, 1.0, 0], [[0, 2.0, 0]])
    with pytest.raises(GeometryError, match=r"v1.*undefined"):
        preservation_effect(*directions_with(0.3, 1.0, 0.3))
    gain, shift = equal_gain([[1.0, 1, 0], [0, 1.0, 0]], [[0, 2.0, 0]], 1.0)
    assert gain == 0 and not shift.any()


@quick
@given(seeds, st.integers(1, 5))
def test_equal_gain_is_max_min(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows = rng.normal(size=(k, 7)) + 0.5, rng.normal(size=(2, 7))
    gain, shift = equal_gain(v, rows, 1.2)
    assert np.linalg.norm(rows @ shift) < 1e-8 and np.linalg.norm(shift) <= 1.2 + 1e-9
    assume(gain > 1e-3)
    assert (unit(v) @ shift).min() == pytest.approx(gain, abs=1e-8)
    p = unit(v) - unit(v) @ np.linalg.pinv(rows) @ rows

    def distance(w: np.ndarray) -> float:
        return float(np.sum((p.T @ w) ** 2))

    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = minimize(distance, np.full(k, 1 / k), bounds=[(0, 1)] * k, constraints=simplex, options={"ftol": 1e-14})
    assert gain == pytest.approx(1.2 * np.sqrt(found.fun), abs=1e-5)
    weights = binding_weights(v, rows)
    assert weights.sum() == pytest.approx(1) and (unit(v) @ shift)[weights > 1e-6] == pytest.approx(gain, abs=1e-8)


@quick
@given(seeds, st.integers(2, 4))
def test_efficient_gains_are_efficient(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows, w = rng.normal(size=(k, 7)), rng.normal(size=(2, 7)), rng.uniform(0.1, 1, size=k)
    gains, shift = efficient_gains(v, rows, w, 1.3)
    assert np.linalg.norm(rows @ shift) < 1e-8 and np.linalg.norm(shift) == pytest.approx(1.3)
    others = rng.normal(size=(400, 7))
    others -= others @ np.linalg.pinv(rows) @ rows
    assert not (unit(others) * 1.3 @ unit(v).T >= gains).all(axis=1).any()
    if k == 2:
        free = unit(v) - unit(v) @ np.linalg.pinv(rows) @ rows
        share = gains / (1.3 * np.linalg.norm(free, axis=1))
        assert share[1] == pytest.approx(conflict_frontier(effective_correlation(*v, rows), share[0]), abs=1e-7)


def test_opposed_objectives_gain_nothing() -> None:
    opposed, nothing = [[1.0, 0, 0], [-1.0, 0, 0]], np.zeros((0, 3))
    gain, shift = equal_gain(opposed, nothing, 1.0)
    assert gain == 0 and not shift.any() and binding_weights(opposed, nothing) == pytest.approx([0.5, 0.5])
    assert equal_normalised_gain(np.array([[1.0, -1.0], [-1.0, 1.0]])) == 0
    choice = which_to_preserve(*opposed, [[0.6, 0.8, 0.0]])
    assert choice.tasks == () and choice.rho_eff == choice.rho == -1
    with pytest.raises(GeometryError, match="cancel"):
        efficient_gains(opposed, nothing, [1.0, 1.0], 1.0)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_that_buy_nothing_are_refused(budget: float) -> None:
    v1, v2, rows = pair(0)
    for call in (
        lambda: equal_gain([v1, v2], rows, budget),
        lambda: decompose_gains([v1, v2], rows, budget),
        lambda: absolute_loss([v1, v2], rows, budget),
        lambda: efficient_gains([v1, v2], rows, [1, 1], budget),
        lambda: preservation_effect(v1, v2, rows, budget),
        lambda: which_to_preserve(v1, v2, rows, budget),
    ):
        with pytest.raises(GeometryError, match=f"budget is {budget}"):
            call()


@pytest.mark.parametrize("bad", [1.2, [[1.0, 0.5], [0.4, 1.0]], [[1.0, 1.5], [1.5, 1.0]], [[0.9]], [0.1, 0.2]])
def test_correlations_that_no_directions_have_are_refused(bad: object) -> None:
    with pytest.raises(GeometryError, match="rho_eff"):
        equal_normalised_gain(bad)


def test_objectives_need_rows() -> None:
    with pytest.raises(GeometryError, match="empty"):
        equal_gain([], np.eye(3), 1.0)
    with pytest.raises(GeometryError, match="zero"):
        equal_gain([[1.0, 0.0], [0.0, 0.0]], np.zeros((0, 2)), 1.0)


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
    assert which_to_preserve(v1, v2, rows, 3.0).absolute_loss == pytest.approx(3 * choice.absolute_loss)


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
