"""Rows of section 5: green as they stand, red as soon as a formula is wrong."""

import dataclasses
import importlib
import math

import numpy as np
import pytest

from aligntax import depth, lab
from aligntax.commands.theorems.section5 import ROWS

OPTIMUM, REST = "section5_optimum", "section5"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_every_row_is_green(row):
    check = row()
    assert check.passed, check
    assert row.__name__ == "row_" + check.item.replace(".", "_")


def test_rows_are_the_eight_items_in_order():
    assert [row.__name__ for row in ROWS] == [f"row_5_{i}" for i in range(1, 9)]


def late_discount(mass, kl, weights, positions, penalty):
    return depth.recovery_objective(mass, kl, weights, positions - 1.0, penalty)


def kl_forgotten(mass, kl, weights, positions, penalty):
    return depth.recovery_objective(mass, 0.0 * kl, weights, positions, penalty)


def always_linear(mass, kl, weights, positions, penalty):
    return depth.recovery_objective(mass, kl, weights, positions, depth.RecoveryPenalty(penalty.mu, penalty.gamma))


def mass_shifted_not_odds(p0, x):
    return np.minimum(1.0, p0 * np.exp(x)), depth.optimal_recovery(p0, x)[1]


def kl_without_z(p0, x):
    p, _ = depth.optimal_recovery(p0, x)
    return p, x * p


def kl_of_second_order(p0, x):
    return depth.optimal_recovery(p0, x)[0], 0.5 * x**2 * p0 * (1 - p0)


def tilted_by(problem, cost):
    policy, weight = problem.tilted(cost)
    return lab.Stationary(policy, weight, tuple(cost))


def future_cost_dropped(problem):
    """Uncorrected: `pi_0 exp(w x 1[R])`."""
    return tilted_by(problem, [0.0 * c for c in problem.cost(problem.base)])


def weights_dropped(problem):
    """Uncorrected: the closed form of `rho = Q` used for `rho = pi`."""
    policy = problem.base.recovery_equilibrium(problem.recovery, problem.mu, problem.gamma)
    return dataclasses.replace(lab.recovery_stationary(problem), policy=policy)


def harm_tilt_of_first_order(problem):
    """Uncorrected: `pi_0 exp(-lambda h_t + w x 1[R])`."""
    expected = problem.base.harm_information(problem.harm).expected
    return tilted_by(problem, [problem.strength * h for h in expected])


def agreement_flipped(found, recovery):
    return tuple(-gap for gap in lab.tilt_agreement(found, recovery))


def guarantee_one_early(p_min, mu, gamma, last):
    return depth.recoverability(p_min, mu, gamma, last - 1)


def guarantee_without_discount(p_min, mu, gamma, last):
    return depth.recoverability(p_min, mu, 1.0, last)


def bound_halved(p0, x):
    return 0.5 * depth.recovery_kl_bound(p0, x)


def bound_doubled(p0, x):
    return 2.0 * depth.recovery_kl_bound(p0, x)


def total_from_the_horizon(mu, gamma, horizon, last=None):
    return depth.total_kl_bound(mu, gamma, max(0, horizon - 1), last)


def length_without_base_odds(p0, delta, mu, gamma):
    return depth.attack_length(0.5, delta, mu, gamma)


def length_never_infinite(p0, delta, mu, gamma):
    found = depth.attack_length(p0, delta, mu, gamma)
    return found if math.isfinite(found) else 0.0


def length_one_more(p0, delta, mu, gamma):
    return depth.attack_length(p0, delta, mu, gamma) + 1.0


def prefill_rounded_up(p0, delta, mu, gamma):
    found = depth.attack_length(p0, delta, mu, gamma)
    return None if found == math.inf else max(0, math.ceil(max(found, -1.0)))


def penalty_without_discount(p_min, delta, gamma, last):
    return depth.required_penalty(p_min, delta, 1.0, last)


def penalty_of_the_odds_of_delta(p_min, delta, gamma, last):
    return depth.required_penalty(0.5, delta, gamma, last)


def information_without_complement(mass, weights=None):
    return float(weights @ mass)


def bound_without_root(mass, traces, weights=None):
    found = depth.recovery_gradient_bound(mass, traces, weights)
    return dataclasses.replace(found, sharp=found.sharp**2)


def loose_bound_doubled(mass, traces, weights=None):
    found = depth.recovery_gradient_bound(mass, traces, weights)
    return dataclasses.replace(found, loose=2.0 * found.loose)


def bounds_swapped(mass, traces, weights=None):
    found = depth.recovery_gradient_bound(mass, traces, weights)
    return dataclasses.replace(found, sharp=found.loose, loose=found.sharp)


def quadratic_without_half(harm, recovery, fisher, strength=1.0, x=1.0):
    return 2.0 * depth.small_penalty_kl(harm, recovery, fisher, strength, x)


def recovery_pull_reversed(harm, recovery, fisher, strength=1.0, x=1.0):
    return depth.small_penalty_kl(harm, -recovery, fisher, strength, x)


def discount_not_squared(mu, gamma, information, horizon=0):
    return depth.aggregate_recovery_kl(mu, gamma, information, horizon) * (1 + gamma)


def log_form_as_linear(p0, x):
    return depth.optimal_recovery(p0, x)


def pull_always_linear(p, x, form="linear"):
    return depth.recovery_pressure(p, x)


def steps_always_linear(p0, x, target, form, rate=1.0, limit=20_000):
    return lab.steps_to_recover(p0, x, target, "linear", rate, limit)


def mass_taken_for_recovery(mass, refused, depths):
    return depth.calibrate_recovery(mass, mass, depths)


def attack_as_before(world, strength, mu, gamma):
    found = lab.prefill_attack(world, strength, mu, gamma)
    return dataclasses.replace(found, after=found.before)


def attack_believing_the_mass(world, strength, mu, gamma):
    return lab.prefill_attack(dataclasses.replace(world, stops=True), strength, mu, gamma)


def penalty_forgotten(world, strength, mu, gamma):
    return lab.deep_policy(world, strength, 0.0, gamma)


MUTATIONS = [
    (1, OPTIMUM, "recovery_objective", late_discount),
    (1, OPTIMUM, "recovery_objective", kl_forgotten),
    (1, OPTIMUM, "recovery_objective", always_linear),
    (2, OPTIMUM, "optimal_recovery", mass_shifted_not_odds),
    (2, OPTIMUM, "optimal_recovery", kl_without_z),
    (2, OPTIMUM, "optimal_recovery", kl_of_second_order),
    (2, OPTIMUM, "recovery_stationary", future_cost_dropped),
    (2, OPTIMUM, "recovery_stationary", weights_dropped),
    (3, OPTIMUM, "recovery_stationary", harm_tilt_of_first_order),
    (3, OPTIMUM, "tilt_agreement", agreement_flipped),
    (4, REST, "recoverability", guarantee_one_early),
    (4, REST, "recoverability", guarantee_without_discount),
    (4, REST, "recovery_kl_bound", bound_halved),
    (4, REST, "recovery_kl_bound", bound_doubled),
    (4, REST, "total_kl_bound", total_from_the_horizon),
    (5, REST, "attack_length", length_without_base_odds),
    (5, REST, "attack_length", length_never_infinite),
    (5, REST, "attack_length", length_one_more),
    (5, REST, "least_prefill", prefill_rounded_up),
    (5, REST, "required_penalty", penalty_without_discount),
    (5, REST, "required_penalty", penalty_of_the_odds_of_delta),
    (6, REST, "recovery_information", information_without_complement),
    (6, REST, "recovery_gradient_bound", bound_without_root),
    (6, REST, "recovery_gradient_bound", bounds_swapped),
    (6, REST, "recovery_gradient_bound", loose_bound_doubled),
    (6, REST, "small_penalty_kl", quadratic_without_half),
    (6, REST, "small_penalty_kl", recovery_pull_reversed),
    (6, REST, "aggregate_recovery_kl", discount_not_squared),
    (7, OPTIMUM, "log_form_recovery", log_form_as_linear),
    (7, OPTIMUM, "recovery_pressure", pull_always_linear),
    (7, OPTIMUM, "steps_to_recover", steps_always_linear),
    (8, REST, "calibrate_recovery", mass_taken_for_recovery),
    (8, REST, "prefill_attack", attack_as_before),
    (8, REST, "prefill_attack", attack_believing_the_mass),
    (8, REST, "deep_policy", penalty_forgotten),
]


@pytest.mark.parametrize(("item", "module", "name", "mutant"), MUTATIONS, ids=[m[3].__name__ for m in MUTATIONS])
def test_a_wrong_formula_turns_its_row_red(item, module, name, mutant, monkeypatch):
    where = importlib.import_module(f"aligntax.commands.theorems.{module}")
    assert callable(getattr(where, name))
    monkeypatch.setattr(where, name, mutant)
    assert not ROWS[item - 1]().passed


def test_every_row_has_a_mutation():
    assert {item for item, *_ in MUTATIONS} == set(range(1, 9))


def test_a_descent_that_stops_short_turns_the_row_red(monkeypatch):
    from aligntax.commands.theorems import section5_optimum

    monkeypatch.setattr(section5_optimum, "descend", lambda objective: lab.descend(objective, evaluations=0))
    assert not ROWS[1]().passed
