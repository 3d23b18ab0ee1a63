"""Descent reaches the optimum that the theory writes down, and leaves alone what the theory says it leaves alone."""

import numpy as np
import pytest

from aligntax.depth import RecoveryPenalty, log_form_recovery, optimal_recovery
from aligntax.errors import DepthError, LabError
from aligntax.lab import (
    DeepObjective,
    StationaryProblem,
    TabularPolicy,
    descend,
    plant_world,
    recovery_stationary,
    steps_to_recover,
    tilt_agreement,
    worst_kl,
)

V, T, R = 3, 4, (0,)
SEEDS = range(3)


def world(seed, horizon=T, spread=1.0):
    """A random base, a harm decided by the first `horizon` tokens, and adversarial prefixes of full support."""
    rng = np.random.default_rng(seed)
    base = TabularPolicy.random(V, T, rng, spread)
    harm = np.repeat(rng.random(V**horizon), V ** (T - horizon))
    return base, harm, [rng.dirichlet(np.full(V**t, 20.0)) for t in range(T)]


@pytest.mark.parametrize("seed", SEEDS)
def test_descent_on_harm_and_kl_reaches_the_gibbs_optimum(seed):
    base, harm, _ = world(seed)
    found, expected = descend(DeepObjective(base, harm, 2.0)), base.equilibrium(harm, 2.0)
    assert worst_kl(found.policy, expected) < 1e-8
    assert found.policy.per_position_kl(expected).sum() < 1e-10
    assert found.gradient < 1e-6 and found.evaluations > 5
    assert base.per_position_kl(expected).sum() > 1e-3


@pytest.mark.parametrize("seed", SEEDS)
def test_the_value_reached_is_minus_the_log_of_z(seed):
    base, harm, _ = world(seed)
    z = base.expect(np.exp(-2.0 * harm))[0][0]
    assert descend(DeepObjective(base, harm, 2.0)).value == pytest.approx(-np.log(z), abs=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_descent_on_the_training_loss_reaches_the_closed_form(seed):
    base, _, prefixes = world(seed)
    found = descend(DeepObjective(base, None, 0.0, RecoveryPenalty(3.0, 0.8), R, prefixes)).policy
    assert worst_kl(found, base.recovery_equilibrium(R, 3.0, 0.8)) < 1e-8
    assert worst_kl(found, base.recovery_equilibrium(R, 3.0, 0.9)) > 1e-3
    for t, (old, new) in enumerate(zip(base.recovery_mass(R), found.recovery_mass(R), strict=True)):
        assert new == pytest.approx(optimal_recovery(old, 3.0 * 0.8 ** (t + 1))[0], abs=1e-6)


def test_descent_on_the_log_form_reaches_its_own_optimum():
    base, _, prefixes = world(0)
    found = descend(DeepObjective(base, None, 0.0, RecoveryPenalty(1.0, 0.8, "log"), R, prefixes)).policy
    for t, (old, new) in enumerate(zip(base.recovery_mass(R), found.recovery_mass(R), strict=True)):
        assert new == pytest.approx(log_form_recovery(old, 0.8 ** (t + 1))[0], abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_beyond_the_horizon_the_standard_objective_leaves_the_base_untouched(seed):
    base, harm, _ = world(seed, horizon=2)
    found = descend(DeepObjective(base, harm, 3.0)).policy
    assert worst_kl(found, base, (3, 4)) < 1e-12
    assert worst_kl(found, base, (1, 2)) > 1e-2


@pytest.mark.parametrize("seed", SEEDS)
def test_beyond_the_horizon_recovery_is_exact_whatever_happens_within(seed):
    base, harm, prefixes = world(seed, horizon=2)
    objective = DeepObjective(base, harm, 2.0, RecoveryPenalty(3.0, 0.8), R, prefixes)
    assert worst_kl(descend(objective).policy, base.recovery_equilibrium(R, 3.0, 0.8), (3, 4)) < 1e-8


@pytest.mark.parametrize("seed", SEEDS)
def test_kl_on_own_prefixes_has_the_corrected_stationary_point(seed):
    base, harm, prefixes = world(seed, spread=0.5)
    problem = StationaryProblem(base, harm, 1.0, R, prefixes, 0.1, 0.9)
    expected = recovery_stationary(problem)
    objective = DeepObjective(base, harm, 1.0, RecoveryPenalty(0.1, 0.9), R, prefixes, "pi")
    assert worst_kl(descend(objective).policy, expected.policy) < 1e-8
    still = descend(objective, expected.policy)
    assert worst_kl(still.policy, expected.policy) < 1e-12
    zero = [np.zeros_like(c) for c in expected.cost]
    without_cost = problem.tilted([*zero[:-1], expected.cost[-1]])[0]
    assert worst_kl(without_cost, expected.policy) > 1e-4


def test_the_papers_weighting_is_right_to_first_order_in_the_penalty():
    base, harm, prefixes = world(1)
    gaps = []
    for mu in (0.02, 0.01):
        problem = StationaryProblem(base, np.zeros_like(harm), 0.0, R, prefixes, mu, 0.9)
        found = recovery_stationary(problem)
        gaps.append(worst_kl(problem.tilted([0 * c for c in found.cost])[0], found.policy))
    # A tilt wrong at second order is a KL wrong at fourth.
    assert gaps[0] / gaps[1] == pytest.approx(16.0, rel=0.2)


def test_within_the_horizon_the_papers_tilt_is_right_to_first_order_in_the_strength():
    base, harm, prefixes = world(2)
    expected = base.harm_information(harm).expected
    gaps = []
    for strength in (0.02, 0.01):
        cost = recovery_stationary(StationaryProblem(base, harm, strength, R, prefixes, 0.0, 1.0)).cost
        gaps.append(max(float(np.abs(c - strength * h).max()) for c, h in zip(cost, expected, strict=True)))
    assert gaps[0] / gaps[1] == pytest.approx(4.0, rel=0.1)


def test_without_penalty_the_stationary_point_is_the_gibbs_optimum():
    base, harm, prefixes = world(0)
    found = recovery_stationary(StationaryProblem(base, harm, 2.0, R, prefixes, 0.0, 1.0))
    assert worst_kl(found.policy, base.equilibrium(harm, 2.0)) < 1e-12
    assert found.cost[0][0] == pytest.approx(-np.log(base.expect(np.exp(-2.0 * harm))[0][0]))


def test_the_weight_explodes_down_prefixes_that_do_not_recover():
    planted = plant_world(4, 6, 1, 0.1, np.random.default_rng(0))
    prefixes = []
    for t in range(6):
        clean = (np.indices((4,) * t).reshape(t, -1) != 0).all(axis=0) if t else np.ones(1)
        prefixes.append(clean / clean.sum())
    nothing = np.zeros(4**6)
    assert (
        recovery_stationary(StationaryProblem(planted.base, nothing, 0.0, R, prefixes, 0.1, 1.0)).largest_weight > 1e3
    )
    with pytest.raises(LabError, match=r"mu=0\.2"):
        recovery_stationary(StationaryProblem(planted.base, nothing, 0.0, R, prefixes, 0.2, 1.0))


def test_tilts_agree_where_recovery_is_harmless_and_oppose_where_it_harms():
    base, _, prefixes = world(3)
    recovers = (np.indices((V,) * T).reshape(T, -1) == 0).any(axis=0)
    for harm, sign in ((1.0 - recovers, 1.0), (1.0 * recovers, -1.0)):
        found = recovery_stationary(StationaryProblem(base, harm, 1.0, R, prefixes, 0.0, 1.0))
        clean = [(np.indices((V,) * t).reshape(t, -1) != 0).all(axis=0) if t else np.ones(1, bool) for t in range(T)]
        gaps = np.concatenate([g[c] for g, c in zip(tilt_agreement(found, R), clean, strict=True)])
        assert (sign * gaps > 0.0).all()


def test_the_linear_form_starts_slowly_and_the_log_form_does_not():
    linear, log = (steps_to_recover(1e-4, 12.0, 0.5, form, 0.5) for form in ("linear", "log"))
    assert linear is not None and log is not None
    assert linear > 100 * log
    ready = [steps_to_recover(0.3, 3.0, 0.5, form, 0.5) for form in ("linear", "log")]
    assert ready[0] is not None and ready[1] is not None and ready[0] < 10 * max(1, ready[1])


def test_a_target_beyond_the_optimum_is_never_reached():
    assert steps_to_recover(0.1, 1.0, 0.9, "linear", limit=300) is None
    assert steps_to_recover(0.6, 1.0, 0.5, "log") == 0


def test_bad_input_is_named():
    base, harm, prefixes = world(0)
    with pytest.raises(LabError, match=r"recovery \[\]"):
        DeepObjective(base, harm, 1.0, RecoveryPenalty(1.0), (), prefixes)
    with pytest.raises(LabError, match="sizes"):
        DeepObjective(base, harm, 1.0, RecoveryPenalty(1.0), R, prefixes[:2])
    with pytest.raises(LabError, match="harm is"):
        descend(DeepObjective(base, harm + 1.0, 1.0))
    with pytest.raises(DepthError, match=r"mu=-1\.0"):
        recovery_stationary(StationaryProblem(base, harm, 1.0, R, prefixes, -1.0, 1.0))
    with pytest.raises(DepthError, match=r"gamma=2\.0"):
        recovery_stationary(StationaryProblem(base, harm, 1.0, R, prefixes, 1.0, 2.0))
