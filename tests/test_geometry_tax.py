"""Tax rate, angles and exact-change frontiers against projectors, least squares and random search."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import GeometryError
from aligntax.geometry import (
    capability_basis,
    full_frontier,
    layers_tax,
    max_capability,
    max_safety,
    principal_angles,
    regime,
    signed_cosines,
    single_frontier,
    single_frontier_shift,
    straight_line_gaps,
    subsidy_threshold,
    sum_tax,
    tax_free_safety,
    tax_rate,
)

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 10**6)


def draw(seed: int, m: int = 3, d: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=d), rng.normal(size=(m, d)) * rng.lognormal(size=(m, 1))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@quick
@given(seeds, st.integers(0, 12))
def test_tax_is_squared_length_of_projection(seed: int, m: int) -> None:
    v, rows = draw(seed, m)
    expected = np.linalg.norm(np.linalg.pinv(rows) @ (rows @ unit(v))) ** 2 if m else 0.0
    assert tax_rate(v, rows) == pytest.approx(expected, abs=1e-9)


@quick
@given(seeds, st.floats(1e-12, 1e-3))
def test_tax_keeps_its_digits_for_nearly_parallel_rows(seed: int, gap: float) -> None:
    v, rows = draw(seed, 2)
    rows[1] = unit(rows[0]) + gap * unit(rows[1])
    kept = np.linalg.matrix_rank(unit(rows), tol=1.4e-12)
    q = np.linalg.qr(unit(rows).T)[0][:, :kept]
    # Rounding of the rows themselves is eps, and division by the gap makes it eps/gap.
    assert tax_rate(v, rows) == pytest.approx(np.sum((q.T @ unit(v)) ** 2), abs=1e-12 + 1e-14 / gap)


@quick
@given(seeds)
def test_duplicates_scale_and_dependence_do_not_change_the_tax(seed: int) -> None:
    v, rows = draw(seed)
    more = np.vstack([rows, rows[0] * 3.7, -rows[1], rows[0] + rows[2]])
    assert tax_rate(5 * v, more) == pytest.approx(tax_rate(v, rows), abs=1e-9)
    assert capability_basis(more).shape == (9, 3)
    single = torch.tensor(more, dtype=torch.float32)
    assert tax_rate(torch.tensor(v), single) == pytest.approx(tax_rate(v, rows), abs=1e-4)


def test_joint_tax_may_exceed_the_sum() -> None:
    rows = np.array([[0.3, 1.0], [0.05, -1.0]])
    assert tax_rate([1.0, 0.0], rows) == pytest.approx(1.0)
    assert sum_tax([1.0, 0.0], rows) == pytest.approx(0.085, abs=5e-4)
    assert sum_tax([1.0, 0.0], [[1.0, 0.1], [1.0, -0.1]]) > 1.9
    assert sum_tax([0.6, 0.8], np.eye(2)) == pytest.approx(tax_rate([0.6, 0.8], np.eye(2)))


def test_signs_and_torch_inputs() -> None:
    v, rows = draw(1)
    a = signed_cosines(v, rows)
    np.testing.assert_allclose(a, unit(rows) @ unit(v), atol=1e-14)
    np.testing.assert_array_equal(a, signed_cosines(torch.tensor(v, requires_grad=True), torch.tensor(rows)))
    np.testing.assert_allclose(signed_cosines(-v, rows), -a)
    half = torch.tensor(rows, dtype=torch.bfloat16)
    assert tax_rate(v, half) == pytest.approx(tax_rate(v, half.double().numpy()), abs=1e-12)


def test_principal_angles_tiny_right_and_padded() -> None:
    for angle in (1e-10, 1e-5, 0.3, np.pi / 2 - 1e-10, np.pi / 2):
        v = np.array([np.cos(angle), np.sin(angle), 0.0])
        assert principal_angles(v, [[2.0, 0, 0]])[0] == pytest.approx(angle, rel=1e-6)
    two = np.array([[1.0, 0], [1e-9, 0], [0, 1.0], [0, 0]])
    np.testing.assert_allclose(principal_angles(two, [[1.0, 0, 0, 0]]), [1e-9, np.pi / 2], rtol=1e-6)
    np.testing.assert_allclose(principal_angles(two, np.zeros((0, 4))), [np.pi / 2] * 2)


@quick
@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_subspace_tax_is_the_mean_squared_cosine(seed: int, k: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    space, rows = rng.normal(size=(9, k)), rng.normal(size=(m, 9))
    angles = principal_angles(space, rows)
    assert angles.shape == (k,) and (np.diff(angles) >= -1e-12).all()
    assert tax_rate(space, rows) == pytest.approx(np.mean(np.cos(angles) ** 2), abs=1e-10)
    inside = np.linalg.qr(space)[0] @ unit(rng.normal(size=(200, k))).T
    worst = max(tax_rate(x, rows) for x in inside.T)
    assert worst <= np.cos(angles[0]) ** 2 + 1e-10


def test_layers_agree_with_single_calls() -> None:
    rng = np.random.default_rng(0)
    v, rows = rng.normal(size=(4, 16)), rng.normal(size=(4, 5, 16))
    table = layers_tax(v, torch.tensor(rows))
    np.testing.assert_allclose(table.joint, [tax_rate(a, b) for a, b in zip(v, rows, strict=True)], atol=1e-14)
    np.testing.assert_allclose(table.total, [sum_tax(a, b) for a, b in zip(v, rows, strict=True)])
    np.testing.assert_allclose(table.cosines[2], signed_cosines(v[2], rows[2]))
    rows[1, 3] = 0
    with pytest.raises(GeometryError, match=r"layer 1.*row 3"):
        layers_tax(v, rows)


@pytest.mark.parametrize(
    ("safety", "rows", "match"),
    [
        ([1.0, np.nan], [[1.0, 0]], "safety holds nan at index"),
        ([1.0, 0.0], [[1.0, 0], [0.0, 0.0]], "capabilities row 1 is zero"),
        ([0.0, 0.0], [[1.0, 0]], "safety is the zero vector"),
        ([1.0, 0.0], [[1.0, 0, 0]], "capabilities has shape"),
        ([[1.0, 2.0], [1.0, 2.0]], [[1.0, 0]], "rank 1"),
        ([1.0, 0.0], [[np.inf, 0]], "capabilities holds inf"),
    ],
)
def test_bad_input_is_one_clear_line(safety: list, rows: list, match: str) -> None:
    with pytest.raises(GeometryError, match=match) as caught:
        tax_rate(safety, rows)
    assert "\n" not in str(caught.value)


@quick
@given(seeds, st.floats(-0.99, 0.99), st.floats(-1, 1))
def test_single_frontier_is_the_conic_and_is_attained(seed: int, cos: float, part: float) -> None:
    rng = np.random.default_rng(seed)
    eps, d = 1.7, 5
    u = unit(rng.normal(size=d))
    w = unit(rng.normal(size=d) @ (np.eye(d) - np.outer(u, u)))
    v = cos * u + np.sqrt(1 - cos**2) * w
    c = part * eps
    s = single_frontier(cos, c, eps)
    assert s**2 - 2 * s * c * cos + c**2 == pytest.approx(eps**2 * (1 - cos**2), abs=1e-9)
    shift = single_frontier_shift(v, 3 * u, c, eps)
    assert (shift @ v, shift @ u) == (pytest.approx(s, abs=1e-7), pytest.approx(c, abs=1e-9))
    assert np.linalg.norm(shift) <= eps * (1 + 1e-9)
    trial = c * u + np.sqrt(max(eps**2 - c**2, 0)) * unit(rng.normal(size=(500, d)) @ (np.eye(d) - np.outer(u, u)))
    assert (trial @ v).max() <= s + 1e-9


def test_single_frontier_broadcasts_and_refuses() -> None:
    assert single_frontier(np.array([0.0, 0.6]), 0.0, 2.0) == pytest.approx([2.0, 1.6])
    for args in ((0.5, 1.1, 1.0), (1.2, 0.0, 1.0), (0.0, 0.0, -1.0)):
        with pytest.raises(GeometryError):
            single_frontier(*args)


@quick
@given(seeds)
def test_max_safety_meets_changes_and_is_never_beaten(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows = draw(seed)
    u, b, eps = unit(rows), rng.normal(size=3) * 0.2, 1.5
    gain, shift = max_safety(v, rows, b, eps)
    np.testing.assert_allclose(u @ shift, b, atol=1e-9)
    assert np.linalg.norm(shift) == pytest.approx(eps)
    assert gain == pytest.approx(unit(v) @ shift)
    c = np.linalg.lstsq(u, b, rcond=None)[0]
    free = np.eye(9) - np.linalg.pinv(u) @ u
    trials = c + np.sqrt(eps**2 - c @ c) * unit(rng.normal(size=(500, 9)) @ free)
    assert (trials @ unit(v)).max() <= gain + 1e-9
    np.testing.assert_allclose(full_frontier(v, rows, np.stack([b, 99 * b]), eps), [gain, np.nan])
    assert max_safety(v, rows, np.zeros(3), eps)[0] == pytest.approx(tax_free_safety(v, rows, eps))
    assert tax_free_safety(v, rows, eps) == pytest.approx(eps * np.sqrt(1 - tax_rate(v, rows)))


def test_max_safety_names_the_binding_task() -> None:
    u = np.eye(4)[:3]
    with pytest.raises(GeometryError, match=r"task 1 \(chemistry\)"):
        max_safety(np.ones(4), u, [0.1, 1.3, 0.0], 1.0, names=["maths", "chemistry", "code"])
    twice = np.vstack([u, 2 * u[2]])
    with pytest.raises(GeometryError, match=r"task [23] cannot change"):
        max_safety(np.ones(4), twice, [0, 0, 0.1, 0.3], 1.0)
    assert max_safety(np.ones(4), twice, [0, 0, 0.1, 0.1], 1.0)[1][2] == pytest.approx(0.1)
    gain, shift = max_safety([1.0, 0.0], np.eye(2), [0.3, 0.1], 1.0)  # tax 1: nothing left outside
    assert gain == pytest.approx(0.3) and shift == pytest.approx([0.3, 0.1])


@quick
@given(st.floats(0.05, 0.95), st.floats(0.05, 1.0))
def test_subsidy_threshold_is_where_the_advantage_ends(tax: float, share: float) -> None:
    a, s, eps = share * np.sqrt(tax), np.sqrt(1 - tax), 2.0
    limit = subsidy_threshold(a, tax, eps)
    t = np.linspace(0, eps, 2001)[1:]
    better = t * a + np.sqrt(eps**2 - t**2) * s > eps * s
    sure = np.abs(t - limit) > 1e-6
    np.testing.assert_array_equal(better[sure], (t < limit)[sure])


def test_subsidy_needs_a_positive_cosine_inside_the_span() -> None:
    assert subsidy_threshold(-0.2, 0.3, 1.0) == 0.0
    with pytest.raises(GeometryError):
        subsidy_threshold(0.9, 0.3, 1.0)


@quick
@given(seeds)
def test_dual_and_straight_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    v, rows = draw(seed)
    weights, eps = rng.uniform(0.1, 1, size=3), 1.3
    gain, shift = max_capability(v, rows, weights, eps)
    w = unit(weights @ unit(rows))
    assert gain == pytest.approx(eps * np.sqrt(1 - (w @ unit(v)) ** 2))
    assert shift @ v == pytest.approx(0, abs=1e-9) and shift @ w == pytest.approx(gain)
    alpha = np.linspace(0, 1, 7)
    gaps = straight_line_gaps(v, rows, rng.normal(size=9), alpha)
    assert (gaps.full >= -1e-12).all() and (gaps.full - gaps.matched >= -1e-12).all()
    np.testing.assert_allclose(gaps.matched, alpha * gaps.full[-1])
    efficient = max_safety(v, rows, [0.1, -0.1, 0.2], 1.0)[1]
    best = straight_line_gaps(v, rows, efficient, alpha)
    assert np.abs(best.matched).max() < 1e-9 and best.full[3] > 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((False, 0.9, 0.8, 0.9), "free"),
        ((True, 0.6, 0.4, 0.9), "tradeoff"),
        ((True, 0.6, 0.51, 0.9), "entangled"),
        ((True, 0.6, 0.51, 0.29), "unranked"),
        ((True, 0.6, 0.51, float("nan")), "unranked"),
        ((True, float("nan"), float("nan"), 0.9), "unranked"),
    ],
)
def test_regime(arguments: tuple, word: str) -> None:
    assert regime(*arguments) == word
