"""Innovations, gradients, bounds, the split of shared KL and KL by position, as facts about small exact cases."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.depth import (
    decoupled_kl,
    gaussian_information,
    gibbs_conditionals,
    gradient_bounds,
    gradient_by_position,
    harm_information,
    innovations,
    kl_profile,
    leading_order_kl,
    split_shared_kl,
    token_kl,
)
from aligntax.errors import DepthError
from aligntax.lab import SharedPolicy, TabularPolicy

seeds = st.integers(0, 10_000)


def martingale_rows(policy: TabularPolicy, harm: Any) -> np.ndarray:
    v, t = policy.vocabulary, policy.length
    return np.column_stack([np.repeat(h, v ** (t - k)) for k, h in enumerate(policy.harm_information(harm).expected)])


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_information_adds_up_to_the_variance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, harm = TabularPolicy.random(3, 3, rng), rng.random(27)
    chances = np.exp(policy.leaf_log_probabilities())
    rows = martingale_rows(policy, harm)
    found = harm_information(rows, chances)
    assert found == pytest.approx(policy.harm_information(harm).information)
    assert found.sum() == pytest.approx(chances @ harm**2 - (chances @ harm) ** 2)
    assert innovations(rows).sum(axis=1) == pytest.approx(harm - chances @ harm)
    assert (gaussian_information(found, float(found.sum()))[:-1] >= 0).all()


def test_sampled_rows_estimate_the_gradient() -> None:
    rng = np.random.default_rng(0)
    shared = SharedPolicy.random(TabularPolicy.random(3, 3, rng), 2, rng)
    harm, policy = rng.random(27), shared.tabular()
    drawn = policy.sample(np.zeros(40_000, dtype=int), 0, rng)
    scores = np.stack([np.repeat(s.reshape(-1, 2), 3 ** (2 - t), axis=0) for t, s in enumerate(shared.scores())], 1)
    sampled = gradient_by_position(innovations(martingale_rows(policy, harm)[drawn]), scores[drawn])
    assert sampled == pytest.approx(shared.gradients(harm), abs=0.006)
    assert np.abs(shared.gradients(harm)).max() > 0.02


def test_gaussian_information_at_the_end_of_the_variance() -> None:
    assert gaussian_information([0.5, 0.5], 1.0).tolist() == [pytest.approx(math.log(2) / 2), math.inf]
    assert gaussian_information([1.0, 0.0], 1.0)[1] == 0.0
    assert gaussian_information([0.0, 0.25], 1.0)[0] == 0.0
    for information, variance in [([0.7, 0.7], 1.0), ([-0.1], 1.0), ([math.nan], 1.0), ([0.1], 0.0), ([0.1], math.inf)]:
        with pytest.raises(DepthError):
            gaussian_information(information, variance)


def test_bounds_are_zero_without_information_and_equal_for_constant_prefixes() -> None:
    near, far = gradient_bounds([[0.25, 0.0]], [[4.0, 9.0]])
    assert near.tolist() == [1.0, 0.0] and far.tolist() == [1.0, 0.0]
    near, far = gradient_bounds([[1.0], [0.0]], [[0.0], [1.0]])  # variance where nothing can be learned
    assert near.tolist() == [0.0] and far.tolist() == [0.5]


def test_gibbs_conditionals_move_nothing_beyond_the_horizon() -> None:
    base = np.log([[0.2, 0.3, 0.5]])
    assert gibbs_conditionals(base, np.full((1, 3), 0.7)) == pytest.approx(base)
    tilted = np.exp(gibbs_conditionals(base, [[1.0, 1.0, np.exp(-50.0)]]))
    assert tilted == pytest.approx(np.array([[0.4, 0.6, 0.0]]), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.01, 3.0))
def test_functional_incidental_and_cross_add_up(seed: int, strength: float) -> None:
    rng = np.random.default_rng(seed)
    harm = np.repeat(rng.random(9), 9)  # decided by two of four tokens
    shared = SharedPolicy.random(TabularPolicy.random(3, 4, rng), 4, rng)
    split = split_shared_kl(shared.gradients(harm), shared.fishers(), strength)
    assert split.functional + split.incidental + split.cross == pytest.approx(split.kl, rel=1e-6, abs=1e-12)
    assert (split.functional >= 0).all() and (split.incidental >= 0).all()
    assert split.functional[2:] == pytest.approx(0.0, abs=1e-14) and split.cross[2:] == pytest.approx(0.0, abs=1e-13)
    assert (split.incidental[2:] > 1e-10 * strength**2).all()
    doubled = split_shared_kl(shared.gradients(harm), shared.fishers(), 2 * strength)
    assert doubled.kl == pytest.approx(4 * split.kl)


def test_cross_takes_either_sign() -> None:
    against = split_shared_kl([[1.0], [-0.5]], np.ones((2, 1, 1)), 1.0)
    along = split_shared_kl([[1.0], [0.5]], np.ones((2, 1, 1)), 1.0)
    assert against.cross.tolist() == [-0.125, -0.125] and along.cross.tolist() == [0.125, 0.125]


def test_one_position_alone_is_the_decoupled_case() -> None:
    rng = np.random.default_rng(1)
    factor = rng.standard_normal((3, 3))
    g, fisher = rng.standard_normal(3), factor @ factor.T
    assert split_shared_kl([g], [fisher], 0.3).functional[0] == pytest.approx(decoupled_kl(g, fisher, 0.3))
    assert decoupled_kl(g, fisher, 0.3) == pytest.approx(0.045 * g @ np.linalg.solve(fisher, g))
    assert leading_order_kl([0.0, 0.2], 0.1).tolist() == [0.0, pytest.approx(0.001)]


def test_a_gradient_that_no_curvature_holds_is_refused() -> None:
    with pytest.raises(DepthError, match="outside the range"):
        decoupled_kl([1.0, 1.0], np.diag([1.0, 0.0]), 1.0)
    assert decoupled_kl([1.0, 0.0], np.diag([2.0, 0.0]), 1.0) == pytest.approx(0.25)
    assert decoupled_kl([1e-17, 1e-17], np.diag([1.0, 0.0]), 1.0) == pytest.approx(0.0, abs=1e-30)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(-4, 0.5))
def test_token_kl_is_accurate_from_tiny_to_large(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((3, 50)).astype(np.float32)
    other = (base + 10**scale * rng.standard_normal((3, 50))).astype(np.float32)
    p, q = (x.astype(float) - np.log(np.exp(x.astype(float)).sum(-1, keepdims=True)) for x in (other, base))
    exact = (np.exp(p) * (p - q)).sum(-1)
    assert token_kl(other, base) == pytest.approx(exact, rel=2e-3, abs=1e-11)
    assert (token_kl(base, base) == 0.0).all()
    assert token_kl(other + 7.0, base - 3.0) == pytest.approx(
        exact, rel=2e-2, abs=1e-10
    )  # logits, not log-probabilities


def test_impossible_tokens() -> None:
    ln2 = math.log(2)
    assert token_kl([[0.0, 0.0, -math.inf]], [[0.0, 0.0, 0.0]])[0] == pytest.approx(math.log(1.5), abs=1e-6)
    assert token_kl([[0.0, 0.0]], [[0.0, -math.inf]])[0] == math.inf
    assert token_kl([[0.0, -math.inf]], [[0.0, -math.inf]])[0] == 0.0
    assert token_kl([[0.0, -math.inf]], [[0.0, 0.0]])[0] == pytest.approx(ln2, abs=1e-6)
    assert token_kl([[0.0, -1e9]], [[-1e9, 0.0]])[0] == pytest.approx(1e9)


def test_profile_ignores_the_side_of_padding_and_merges() -> None:
    rng = np.random.default_rng(2)
    p, q = rng.standard_normal((2, 3, 4, 7))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    right = kl_profile(p, q, mask, text="forced")
    turned = [np.stack([np.roll(x[i], 4 - mask[i].sum(), axis=0) for i in range(3)]) for x in (p, q)]
    for x in turned:
        x[~mask[:, ::-1]] = np.nan  # what stands in padding is never read
    left = kl_profile(*turned, mask[:, ::-1], text="forced")
    assert left.mean == pytest.approx(right.mean, rel=1e-12)
    assert right.count.tolist() == [3, 2, 1, 1] and right.tokens == 7 and left.text == "forced"
    parts = kl_profile(p[2:], q[2:], mask[2:], text="forced").merge(kl_profile(p[:2], q[:2], mask[:2], text="forced"))
    assert parts.mean == pytest.approx(right.mean, rel=1e-12) and parts.count.tolist() == right.count.tolist()
    empty = kl_profile(p, q, np.zeros((3, 4)), text="forced")
    assert empty.tokens == 0 and empty.mean.size == 0
    assert np.isnan(type(right)(np.zeros(2), np.array([0, 0]), "forced").mean).all()
    with pytest.raises(DepthError, match="aligned and forced"):
        kl_profile(p, q, text="aligned").merge(right)


X = np.zeros((1, 1, 2))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: innovations([[0.5]]), "1 depth"),
        (lambda: innovations([[0.5, 2.0]]), r"2\.0 at row 0, depth column 1"),
        (lambda: harm_information([[0.5, 1.0]], [0.5]), "sum to 0.5"),
        (lambda: harm_information([[0.5, 1.0]], [0.5, 0.5]), r"\(2,\)"),
        (lambda: gradient_by_position([[1.0]], [[1.0]]), r"\(1, 1\)"),
        (lambda: gradient_bounds([[1.0]], [[1.0, 2.0]]), r"\(1, 2\)"),
        (lambda: gradient_bounds([[-1.0]], [[1.0]]), r"variances hold -1\.0"),
        (lambda: gibbs_conditionals([0.0], [0.0, 1.0]), r"\(1,\) and moments of shape \(2,\)"),
        (lambda: gibbs_conditionals([0.0], [0.0]), r"moments hold 0\.0"),
        (lambda: leading_order_kl([0.1], math.inf), "strength=inf"),
        (lambda: decoupled_kl([1.0], [[1.0, 2.0]], 1.0), r"\(1, 2\)"),
        (lambda: split_shared_kl([[1.0]], [[1.0]], 1.0), r"\(1, 1\)"),
        (lambda: split_shared_kl([[1.0]], [[[1.0]]], math.nan), "strength=nan"),
        (lambda: kl_profile(X, X, text="mixed"), "'mixed'"),  # type: ignore[arg-type]
        (lambda: kl_profile(X, np.zeros((1, 1, 3)), text="forced"), r"\(1, 1, 3\)"),
        (lambda: kl_profile(X, X, [[1, 1]], text="forced"), r"mask has shape \(1, 2\)"),
        (lambda: kl_profile(X + np.nan, X, text="forced"), "aligned holds nan"),
        (lambda: kl_profile(X, X + np.inf, text="forced"), "base holds inf"),
        (lambda: kl_profile(X - np.inf, X, text="forced"), "every token -inf"),
    ],
)
def test_bad_input_is_repeated(call: Any, said: str) -> None:
    with pytest.raises(DepthError, match=said):
        call()
