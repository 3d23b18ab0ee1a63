"""Shared parameters: exact gradients and Fisher matrices, the true optimum, and change that nobody asked for."""

import math
from typing import Any

import numpy as np
import pytest

from aligntax.depth import split_shared_kl
from aligntax.errors import LabError
from aligntax.lab import SharedPolicy, TabularPolicy
from aligntax.lab.oracles import depth as oracle


def drawn(seed: int, d: int = 4, horizon: int = 2) -> tuple[SharedPolicy, np.ndarray]:
    """Harm decided by two of four tokens, every parameter in every position."""
    rng = np.random.default_rng(seed)
    return SharedPolicy.random(TabularPolicy.random(3, 4, rng), d, rng), np.repeat(
        rng.random(3**horizon), 3 ** (4 - horizon)
    )


def test_gradients_fishers_and_scores_against_autograd() -> None:
    shared, harm = drawn(0)
    there = shared.moved([0.3, -0.2, 0.1, 0.5])
    tables = there.tabular().logits
    assert there.gradients(harm) == pytest.approx(oracle.shared_gradients(tables, shared.features, harm), abs=1e-12)
    assert there.fishers() == pytest.approx(oracle.shared_fishers(tables, shared.features), abs=1e-10)
    scores = np.stack([np.repeat(s.reshape(-1, 4), 3 ** (3 - t), axis=0) for t, s in enumerate(there.scores())], axis=1)
    assert scores == pytest.approx(oracle.sequence_scores(tables, shared.features), abs=1e-12)
    assert np.abs(there.gradients(harm)[:2]).max() > 1e-3 and np.abs(there.gradients(harm)[2:]).max() < 1e-15


def test_at_zero_it_is_its_base() -> None:
    shared, _ = drawn(1)
    assert shared.theta.tolist() == [0.0] * 4
    assert shared.tabular().per_position_kl(shared.base) == pytest.approx(np.zeros(4), abs=1e-15)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_optimum_is_that_of_an_independent_descent(strength: float) -> None:
    shared, harm = drawn(2)
    found = shared.optimum(harm, strength)
    assert found.theta == pytest.approx(
        oracle.best_shared(shared.base.logits, shared.features, harm, strength), abs=1e-6
    )
    objective = [
        strength * x.tabular().harm_information(harm).mean + x.tabular().per_position_kl(shared.base).sum()
        for x in (found, found.moved(found.theta + 0.01), found.moved(found.theta - 0.01), shared)
    ]
    assert objective[0] == min(objective)


def test_the_natural_step_is_the_optimum_at_leading_order() -> None:
    shared, harm = drawn(3)
    gaps = [
        np.linalg.norm(shared.optimum(harm, x).theta - shared.natural_step(harm, x).theta) / x for x in (0.02, 0.04)
    ]
    assert gaps[1] == pytest.approx(2 * gaps[0], rel=0.1) and gaps[0] < 0.05


def test_late_positions_move_with_shared_parameters_and_not_without() -> None:
    shared, harm = drawn(4)
    strength = 0.05
    moved = shared.optimum(harm, strength).tabular().per_position_kl(shared.base)
    free = shared.base.equilibrium(harm, strength).per_position_kl(shared.base)
    split = split_shared_kl(shared.gradients(harm), shared.fishers(), strength)
    assert free[2:] == pytest.approx(np.zeros(2), abs=1e-15) and (moved[2:] > 1e-8).all()
    assert moved[2:] == pytest.approx(split.incidental[2:], rel=0.1)  # all of it incidental
    assert moved == pytest.approx(split.functional + split.incidental + split.cross, rel=0.1)


def test_incidental_change_is_uncorrelated_with_harm() -> None:
    """The change of log-probability at a late token, weighed with harm, is nothing: it neither helps nor hurts."""
    shared, harm = drawn(5)
    step = shared.natural_step(harm, 1.0).theta
    policy = shared.base
    chances = oracle.sequence_probabilities(policy.logits)
    change = oracle.sequence_scores(policy.logits, shared.features) @ step
    covariances = [chances @ (harm * change[:, t]) - (chances @ harm) * (chances @ change[:, t]) for t in range(4)]
    assert covariances[2:] == pytest.approx([0.0, 0.0], abs=1e-14)
    assert max(np.abs(covariances[:2])) > 1e-4 and (np.abs(change[:, 2:]).max(axis=0) > 1e-3).all()


def test_separate_features_decouple_the_positions() -> None:
    rng = np.random.default_rng(6)
    base, harm = TabularPolicy.random(3, 2, rng), np.repeat(rng.random(3), 3)
    features = [rng.standard_normal((*rows.shape, 2)) for rows in base.logits]
    features[0][..., 1] = 0.0
    features[1][..., 0] = 0.0
    shared = SharedPolicy(base, features)
    split = split_shared_kl(shared.gradients(harm), shared.fishers(), 1.0)
    assert split.incidental == pytest.approx([0.0, 0.0], abs=1e-15) and split.functional[0] > 0
    assert shared.optimum(harm, 1.0).tabular().per_position_kl(base)[1] == pytest.approx(0.0, abs=1e-14)


BASE = TabularPolicy([[[0.0, 0.0]]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: SharedPolicy(BASE, [np.zeros((2, 2, 1))]), r"\(2, 2, 1\)"),
        (lambda: SharedPolicy(BASE, []), r"\[\]"),
        (lambda: SharedPolicy(BASE, [np.full((1, 2, 1), math.nan)]), "nan or inf"),
        (lambda: SharedPolicy(BASE, [np.ones((1, 2, 1))], [math.inf]), r"theta is \[inf\]"),
        (lambda: SharedPolicy(BASE, [np.ones((1, 2, 1))], [1.0, 2.0]), r"theta is \[1\.0, 2\.0\]"),
        (lambda: SharedPolicy(BASE, [np.ones((1, 2, 1))]).gradients([0.0, 2.0]), r"harm is 2\.0"),
    ],
)
def test_bad_input_is_repeated(call: Any, said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()
