"""The exact policy: its dynamic programme against listed sequences, and every kind of input it must refuse."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import AligntaxError, LabError
from aligntax.lab import HarmInformation, TabularPolicy
from aligntax.lab.oracles import depth as oracle

seeds = st.integers(0, 10_000)


def drawn(seed: int, horizon: int = 3) -> tuple[TabularPolicy, np.ndarray]:
    rng = np.random.default_rng(seed)
    return TabularPolicy.random(3, 3, rng), np.repeat(rng.random(3**horizon), 3 ** (3 - horizon))


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_expectations_and_gradients_against_listing(seed: int) -> None:
    policy, harm = drawn(seed)
    chances = oracle.sequence_probabilities(policy.logits)
    assert policy.prefix_probabilities()[-1] == pytest.approx(chances)
    assert np.exp(policy.leaf_log_probabilities()) == pytest.approx(chances)
    found = policy.harm_information(harm)
    listed = oracle.expected_by_depth(chances, harm, 3, 3)
    for t, values in enumerate(found.expected):
        assert np.repeat(values, 3 ** (3 - t)) == pytest.approx(listed[:, t])
    assert found.information == pytest.approx(oracle.information_by_variances(chances, harm, 3, 3), abs=1e-12)
    assert found.mean == pytest.approx(chances @ harm)
    for mine, autograd in zip(policy.gradient(harm), oracle.table_gradients(policy.logits, harm), strict=True):
        assert mine == pytest.approx(autograd, abs=1e-12)


def test_gradient_by_finite_differences() -> None:
    policy, harm = drawn(1)
    for t, table in enumerate(policy.gradient(harm)):
        for where in [(0, 1), (len(table) - 1, 2)]:
            ends = []
            for step in (1e-5, -1e-5):
                moved = [rows.copy() for rows in policy.logits]
                moved[t][where] += step
                ends.append(TabularPolicy(moved).harm_information(harm).mean)
            assert table[where] == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-9)


def test_fisher_blocks_are_the_curvature_of_kl() -> None:
    policy, _ = drawn(2)
    rng = np.random.default_rng(2)
    for t, rows in enumerate(policy.logits):
        move = rng.standard_normal(rows.shape)
        nats = []
        for step in (1e-3, -1e-3):
            moved = [x.copy() for x in policy.logits]
            moved[t] += step * move
            nats.append(policy.per_position_kl(TabularPolicy(moved))[t])
        blocks = policy.fisher(t + 1)
        assert np.einsum("pi,pij,pj->", move, blocks, move) / 2 == pytest.approx(sum(nats) / 2e-6, rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(seeds, st.floats(-3, 5))
def test_the_equilibrium_is_the_best_law_of_sequences(seed: int, strength: float) -> None:
    policy, harm = drawn(seed)
    chances = oracle.sequence_probabilities(policy.logits)
    best = policy.equilibrium(harm, strength)
    assert best.prefix_probabilities()[-1] == pytest.approx(oracle.best_sequences(chances, harm, strength), abs=1e-10)
    kl = best.per_position_kl(policy)
    assert kl == pytest.approx(
        oracle.kl_by_position(best.prefix_probabilities()[-1], chances, 3, 3), abs=1e-12
    )  # and the sum is the KL of whole sequences
    assert kl.sum() == pytest.approx(best.expect(best.leaf_log_probabilities() - policy.leaf_log_probabilities())[0][0])


@pytest.mark.parametrize("strength", [0.1, 3.0, 40.0])
def test_nothing_moves_beyond_the_horizon(strength: float) -> None:
    policy, harm = drawn(3, horizon=2)
    best = policy.equilibrium(harm, strength)
    assert best.logits[2] == pytest.approx(policy.logits[2], abs=1e-13)
    assert best.per_position_kl(policy)[2] == pytest.approx(0.0, abs=1e-14)
    assert np.abs(policy.gradient(harm)[2]).max() < 1e-16
    assert np.abs(best.logits[1] - policy.logits[1]).max() > 0.01 * min(strength, 1.0)
    assert policy.harm_information(harm).horizon() == 2


def test_horizon_and_share() -> None:
    uniform = TabularPolicy([np.zeros((2**t, 2)) for t in range(3)])
    parity = uniform.harm_information(lambda y: float(sum(y) % 2))
    assert isinstance(parity, HarmInformation)
    assert parity.information.tolist() == [0.0, 0.0, 0.25] and parity.horizon(0.01) == 3  # the last bit decides all
    weighted = uniform.harm_information(lambda y: 0.8 * y[0] + 0.2 * y[1])
    assert weighted.share == pytest.approx([0.0, 0.64 / 0.68, 1.0, 1.0])
    assert (weighted.horizon(0.9), weighted.horizon(0.95), weighted.horizon()) == (1, 2, 2)
    rare = uniform.harm_information(lambda y: 0.5 * y[0] + 1e-7 * y[2])
    assert rare.horizon(0.999999) == 1 and rare.horizon() == 3
    never = uniform.harm_information(np.full(8, 0.3))
    assert never.horizon() is None and np.isnan(never.share).all() and never.information.tolist() == [0.0] * 3
    for level in (0.0, 1.1, math.nan):
        with pytest.raises(LabError, match=f"level={level}"):
            parity.horizon(level)


def test_the_three_ways_to_give_logits_agree() -> None:
    policy, harm = drawn(4)
    nested = TabularPolicy([rows.reshape((3,) * (t + 1)) + 5.0 for t, rows in enumerate(policy.logits)])
    mapping = {prefix: policy.logits[t][k] for t in range(3) for k, prefix in enumerate(product(range(3), repeat=t))}
    given_probabilities = TabularPolicy.from_probabilities([np.exp(rows) for rows in policy.logits])
    for other in (nested, TabularPolicy(mapping), given_probabilities):
        assert (other.vocabulary, other.length) == (3, 3)
        assert other.per_position_kl(policy) == pytest.approx(np.zeros(3), abs=1e-14)
    assert policy.attack_success(harm)[[0, 3]] == pytest.approx([policy.harm_information(harm).mean, harm.max()])
    assert (np.diff(policy.attack_success(harm)) >= 0).all()


def test_samples_follow_the_policy() -> None:
    policy, _ = drawn(5)
    rng = np.random.default_rng(5)
    counts = np.bincount(policy.sample(np.zeros(20_000, dtype=int), 0, rng), minlength=27)
    chances = policy.prefix_probabilities()[-1]
    assert (np.abs(counts - 20_000 * chances) < 4.5 * np.sqrt(20_000 * chances)).all()
    continued = policy.sample(np.full(100, 7), 2, rng)  # row 7 is the prefix (2, 1)
    assert set(continued // 3) == {7}


def test_recovery_tokens_gain_the_discounted_penalty() -> None:
    policy, _ = drawn(6)
    deep = policy.recovery_equilibrium([0], 2.0, 0.5)
    for t, (before, after) in enumerate(zip(policy.recovery_mass([0]), deep.recovery_mass([0]), strict=True)):
        odds = [np.log(p / (1 - p)) for p in (before, after)]
        assert odds[1] - odds[0] == pytest.approx(2.0 * 0.5 ** (t + 1))


def test_a_world_of_issue_size_fits() -> None:
    policy = TabularPolicy.random(6, 8, np.random.default_rng(0))
    harm = np.repeat(np.random.default_rng(1).random(6**3), 6**5)
    found = policy.harm_information(harm)
    assert found.expected[-1].size == 6**8 and found.horizon() == 3
    assert policy.equilibrium(harm, 1.0).per_position_kl(policy)[3:] == pytest.approx(np.zeros(5), abs=1e-12)


POLICY = TabularPolicy([[[0.0, 0.0]], np.zeros((2, 2))])
OTHER = TabularPolicy([[[0.0, 0.0]]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: TabularPolicy([]), "no logits"),
        (lambda: TabularPolicy([[[0.0, math.nan]]]), "position 1 holds logit nan"),
        (lambda: TabularPolicy([[[0.0, 0.0]], np.full((2, 2), -math.inf)]), "position 2 holds logit -inf"),
        (lambda: TabularPolicy([[[0.0, 0.0]], np.zeros((3, 2))]), r"\(3, 2\); expected \(2\^1, 2\)"),
        (lambda: TabularPolicy({(0,): [0.0, 0.0]}), "empty prefix"),
        (lambda: TabularPolicy({(): [0.0, 0.0], (1,): [0.0, 0.0]}), r"prefix \(0,\)"),
        (lambda: TabularPolicy({(): [0.0, 0.0], (0,): [0.0], (1,): [0.0, 0.0]}), "several lengths"),
        (lambda: TabularPolicy.from_probabilities([[[0.7, 0.7]]]), "sums to 1.4"),
        (lambda: TabularPolicy.from_probabilities([[[1.0, 0.0]]]), r"holds probability 0\.0"),
        (lambda: TabularPolicy.from_probabilities([[[math.inf, 0.5]]]), "holds probability inf"),
        (lambda: POLICY.harm_information([0.0, 0.5, 1.0, 1.5]), r"harm is 1\.5"),
        (lambda: POLICY.harm_information([0.0, 0.5, 1.0, math.nan]), "harm is nan"),
        (lambda: POLICY.gradient(lambda y: -0.5), r"harm is -0\.5"),
        (lambda: POLICY.harm_information([0.5]), "1 values for 4 sequences"),
        (lambda: POLICY.equilibrium(np.zeros(4), math.inf), "strength=inf"),
        (lambda: POLICY.per_position_kl(OTHER), r"2\^2 and 2\^1"),
        (lambda: POLICY.recovery_equilibrium([2], 1.0, 1.0), r"\[2\]"),
        (lambda: POLICY.recovery_equilibrium([0], -1.0, 1.0), r"mu=-1\.0"),
        (lambda: POLICY.recovery_equilibrium([0], 1.0, 0.0), r"gamma=0\.0"),
    ],
)
def test_bad_input_is_repeated(call: Any, said: str) -> None:
    with pytest.raises(LabError, match=said) as caught:
        call()
    assert isinstance(caught.value, AligntaxError) and "\n" not in str(caught.value)
