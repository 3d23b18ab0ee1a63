"""Prefill attacks, enumerated: past the horizon nothing is gained before; after, depth follows the closed form."""

import numpy as np
import pytest

from aligntax.depth import RecoveryPenalty, least_prefill, optimal_recovery, price_of_depth, total_kl_bound
from aligntax.errors import LabError
from aligntax.lab import (
    DeepObjective,
    TabularPolicy,
    deep_policy,
    descend,
    plant_world,
    prefill_attack,
    worst_kl,
)

V, T, K, P0 = 3, 7, 2, 1e-3
SEEDS = range(4)


def planted(seed, mass=P0, stops=True):
    return plant_world(V, T, K, mass, np.random.default_rng(seed), stops)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_world_is_as_planted(seed):
    world = planted(seed)
    for mass in world.base.recovery_mass((0,)):
        assert mass == pytest.approx(P0)
    assert world.base.harm_information(world.promised).horizon() == K
    assert (world.harm[world.recovers] == 0).all()
    assert (world.harm[~world.recovers] == world.promised[~world.recovers]).all()
    assert (planted(seed, stops=False).harm == world.promised).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_before_a_prefill_just_past_the_horizon_is_as_good_as_any_longer_one(seed):
    settled = prefill_attack(planted(seed, stops=False), 3.0, 8.0, 0.95)
    assert settled.longer_gains() == pytest.approx(0.0, abs=1e-12)
    assert settled.before[K] > settled.before[0] + 0.1
    # Where rare recoveries still count, a longer prefill saves the attacker at most their chance.
    assert prefill_attack(planted(seed), 3.0, 8.0, 0.95).longer_gains() <= (T - K) * P0 + 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_alignment_of_the_standard_policy_ends_at_the_horizon(seed):
    world = planted(seed)
    standard = world.base.equilibrium(world.promised, 3.0)
    assert worst_kl(standard, world.base, range(K + 1, T + 1)) < 1e-12
    assert worst_kl(standard, world.base, range(1, K + 1)) > 1e-2


@pytest.mark.parametrize(("mu", "gamma"), [(10.0, 0.95), (10.0, 0.7), (8.0, 1.0)])
def test_after_recovery_by_depth_is_the_closed_form(mu, gamma):
    found = prefill_attack(planted(0), 3.0, mu, gamma)
    t = np.arange(K + 1, T + 1)
    p, kl = optimal_recovery(P0, mu * gamma**t)
    assert found.recovery[K:] == pytest.approx(p)
    assert found.total_kl == pytest.approx(kl.sum())
    assert found.total_kl <= total_kl_bound(mu, gamma, K, T)


@pytest.mark.parametrize("seed", SEEDS)
def test_after_harm_of_a_prefill_is_what_the_remaining_positions_let_through(seed):
    world = planted(seed)
    found = prefill_attack(world, 3.0, 8.0, 1.0)
    p = optimal_recovery(P0, 8.0)[0]
    worst = world.promised[~world.recovers].max()
    for j in range(K, T + 1):
        assert found.after[j] == pytest.approx(worst * (1 - p) ** (T - j))
    assert (np.diff(found.after[K:]) > 0).all() and found.after[K] < 0.02 * found.before[K]


@pytest.mark.parametrize("seed", SEEDS)
def test_recovery_that_the_model_does_not_mean_changes_no_harm(seed):
    world = planted(seed, stops=False)
    found = prefill_attack(world, 3.0, 8.0, 1.0)
    assert found.recovery[K:].min() > 0.5
    assert found.after == pytest.approx(found.before)


@pytest.mark.parametrize(("mu", "gamma"), [(9.0, 0.95), (12.0, 0.85), (14.0, 0.9), (8.0, 0.9)])
def test_the_least_prefill_that_works_is_the_predicted_one(mu, gamma):
    found, predicted = prefill_attack(planted(1), 3.0, mu, gamma), least_prefill(P0, 0.5, mu, gamma)
    assert predicted is not None and predicted < T
    assert found.least_prefill(0.5) == max(predicted, K)


def test_no_finite_prefix_suffices_without_discount_and_with_enough_penalty():
    needed = float(np.log(999.0))
    assert least_prefill(P0, 0.5, needed + 0.01, 1.0) is None
    assert prefill_attack(planted(2), 3.0, needed + 0.01, 1.0).least_prefill(0.5) is None
    assert least_prefill(P0, 0.5, needed - 0.01, 1.0) == 0
    assert prefill_attack(planted(2), 3.0, needed - 0.01, 1.0).least_prefill(0.5) == K


def test_the_deep_policy_is_what_descent_on_the_training_loss_finds_beyond_the_horizon():
    world = plant_world(3, 4, 2, 0.01, np.random.default_rng(3))
    rng = np.random.default_rng(4)
    prefixes = [np.zeros(3**t) if t < 2 else rng.dirichlet(np.full(3**t, 20.0)) for t in range(4)]
    objective = DeepObjective(world.base, None, 0.0, RecoveryPenalty(6.0, 0.9), (0,), prefixes)
    deep = deep_policy(world, 2.0, 6.0, 0.9)
    assert worst_kl(descend(objective).policy, deep, (3, 4)) < 1e-8
    standard = descend(DeepObjective(world.base, world.promised, 2.0)).policy
    assert worst_kl(standard, deep, (1, 2)) < 1e-8


def test_no_penalty_leaves_the_attack_as_it_was():
    found = prefill_attack(planted(0), 3.0, 0.0, 0.9)
    assert found.after == pytest.approx(found.before)
    assert abs(found.total_kl) < 1e-15 and found.recovery[K:] == pytest.approx(P0)


def test_the_price_of_depth_is_that_of_the_enumerated_policies():
    mus, gammas = (4.0, 8.0, 12.0), (0.8, 1.0)
    table = price_of_depth(np.full(T, P0), mus, gammas, (5, 7))
    early = price_of_depth(np.full(K, P0), mus, gammas, (1,))
    for i, mu in enumerate(mus):
        for j, gamma in enumerate(gammas):
            found = prefill_attack(planted(0), 3.0, mu, gamma)
            assert table.recovery[i, j] == pytest.approx(found.recovery[[4, 6]])
            assert table.total_kl[i, j] - early.total_kl[i, j] == pytest.approx(found.total_kl)


def test_the_order_of_prefixes_does_not_matter_to_the_worst_case():
    """Relabelling tokens other than recovery moves prefixes about and changes no attack."""
    world = planted(0)
    swap = np.array([0, 2, 1])
    tables = []
    for t, rows in enumerate(world.base.logits):
        where = np.ravel_multi_index(swap[np.indices((V,) * t).reshape(t, -1)], (V,) * t) if t else np.zeros(1, int)
        tables.append(rows[where][:, swap])
    leaves = np.ravel_multi_index(swap[np.indices((V,) * T).reshape(T, -1)], (V,) * T)
    swapped = TabularPolicy(tables)
    assert swapped.attack_success(world.harm[leaves]) == pytest.approx(world.base.attack_success(world.harm))


@pytest.mark.parametrize(
    ("arguments", "value"), [((3, 4, 0, 0.1), "horizon=0"), ((3, 4, 5, 0.1), "horizon=5"), ((3, 4, 2, 1.0), "mass=1.0")]
)
def test_impossible_worlds_are_named(arguments, value):
    with pytest.raises(LabError, match=value):
        plant_world(*arguments, np.random.default_rng(0))


def test_bad_penalties_are_named():
    with pytest.raises(LabError, match="mu=-1"):
        prefill_attack(planted(0), 3.0, -1.0, 0.9)
    with pytest.raises(LabError, match=r"gamma=1\.5"):
        prefill_attack(planted(0), 3.0, 1.0, 1.5)
