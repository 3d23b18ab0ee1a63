"""Recovery in closed form: the log-odds shift, what it guarantees, what it costs, and the loss that leads to it."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligntax.depth import (
    RecoveryPenalty,
    aggregate_recovery_kl,
    attack_length,
    calibrate_recovery,
    least_prefill,
    log_form_recovery,
    optimal_recovery,
    price_of_depth,
    recoverability,
    recovery_gradient_bound,
    recovery_information,
    recovery_kl_bound,
    recovery_objective,
    recovery_pressure,
    required_penalty,
    small_penalty_kl,
    total_kl_bound,
)
from aligntax.errors import DepthError

masses = st.floats(1e-12, 1.0 - 1e-9)
penalties = st.floats(0.0, 50.0)


def logit(p):
    return math.log(p) - math.log1p(-p)


@pytest.mark.parametrize("p0", [1e-300, 1e-50, 1e-4, 0.1, 0.5, 0.6, 0.999999, 1 - 1e-15])
@pytest.mark.parametrize("x", [1e-12, 1e-6, 0.0099, 0.0101, 0.5, 1.5, 10.0, 100.0, 690.0, 800.0, 1e8])
def test_the_optimum_keeps_its_digits_where_numbers_are_extreme(p0, x):
    with mpmath.workdps(700):
        base, shift = mpmath.mpf(p0), mpmath.mpf(x)
        z = 1 - base + base * mpmath.exp(shift)
        expected = base * mpmath.exp(shift) / z
        nats = shift * expected - mpmath.log(z)
    p, kl = optimal_recovery(p0, x)
    assert p == pytest.approx(float(expected), rel=1e-12)
    assert kl == pytest.approx(float(nats), rel=5e-12, abs=1e-307)


def test_no_penalty_changes_nothing():
    p, kl = optimal_recovery([1e-300, 0.3, 0.9], 0.0)
    assert p == pytest.approx([1e-300, 0.3, 0.9]) and (kl == 0.0).all()
    p, kl = log_form_recovery([1e-300, 0.3, 0.9], 0.0)
    assert p == pytest.approx([1e-300, 0.3, 0.9]) and (kl == 0.0).all()


def test_arguments_broadcast():
    p, kl = optimal_recovery(np.array([0.1, 0.2])[:, None], [0.0, 1.0, 2.0])
    assert p.shape == kl.shape == (2, 3)
    assert p[1, 2] == optimal_recovery(0.2, 2.0)[0]
    assert np.ndim(optimal_recovery(0.2, 2.0)[0]) == 0


@given(masses, masses, penalties, penalties)
def test_recovery_rises_with_base_mass_and_penalty_and_kl_with_penalty(a, b, x, y):
    (a, b), (x, y) = sorted((a, b)), sorted((x, y))
    assert optimal_recovery(a, x)[0] <= optimal_recovery(b, x)[0]
    assert optimal_recovery(a, x)[0] <= optimal_recovery(a, y)[0]
    assert optimal_recovery(a, x)[1] <= optimal_recovery(a, y)[1] * (1 + 1e-9) + 1e-300


def test_kl_is_not_monotone_in_the_base_mass():
    kl = optimal_recovery([0.001, 0.3, 0.99], 3.0)[1]
    assert kl[1] > kl[0] and kl[1] > kl[2]


@given(masses, penalties)
def test_kl_never_passes_its_bound(p0, x):
    kl = optimal_recovery(p0, x)[1]
    assert kl <= recovery_kl_bound(p0, x) * (1 + 1e-9) + 1e-15


def test_every_part_of_the_kl_bound_binds_somewhere():
    def part(p0, x):
        gained = optimal_recovery(p0, x)[0] - p0
        return int(np.argmin([x * gained, x**2 / 8, -math.log(p0)]))

    assert {part(1e-6, 1.0), part(0.5, 0.5), part(0.5, 40.0)} == {0, 1, 2}
    assert optimal_recovery(0.5, 40.0)[1] == pytest.approx(-math.log(0.5), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_total_kl_stays_below_its_bound(gamma):
    nats = sum(optimal_recovery(0.05, 4.0 * gamma**t)[1] for t in range(4, 31))
    assert nats <= total_kl_bound(4.0, gamma, 3, 30) <= total_kl_bound(4.0, gamma, 3)
    assert total_kl_bound(4.0, gamma, 3, 30) == pytest.approx(sum(4.0 * gamma**t for t in range(4, 31)))


def test_total_kl_bound_without_an_end():
    assert total_kl_bound(4.0, 0.5, 3) == pytest.approx(4.0 * 0.5**4 / 0.5)
    assert total_kl_bound(4.0, 1.0, 3) == math.inf
    assert total_kl_bound(0.0, 1.0, 3) == 0.0
    assert total_kl_bound(4.0, 1.0, 3, 3) == 0.0


@given(st.floats(1e-9, 0.9), st.floats(0.01, 0.99), st.floats(0.5, 1.0), st.integers(0, 40))
def test_required_penalty_inverts_recoverability(p_min, delta, gamma, depth):
    mu = required_penalty(p_min, delta, gamma, depth)
    reached = recoverability(p_min, mu, gamma, depth)
    assert reached == pytest.approx(max(delta, p_min), rel=1e-9)


def test_required_penalty_of_an_impossible_depth_is_infinite_and_of_a_willing_base_zero():
    assert required_penalty(1e-4, 0.5, 0.5, 5000) == math.inf
    assert required_penalty(0.9, 0.5, 0.5, 5000) == 0.0


@given(st.floats(1e-6, 0.9), st.floats(0.01, 0.99), st.floats(0.0, 30.0), st.sampled_from([0.3, 0.7, 0.95, 1.0]))
def test_positions_past_the_attack_length_are_exactly_those_below_delta(p0, delta, mu, gamma):
    t = np.arange(1, 80)
    reached = logit(p0) + mu * gamma**t - logit(delta)
    clear = np.abs(reached) > 1e-9
    assert ((t > attack_length(p0, delta, mu, gamma)) == (reached < 0.0))[clear].all()


def test_attack_lengths_at_the_edges():
    assert attack_length(0.6, 0.5, 0.0, 0.5) == math.inf
    assert attack_length(0.1, 0.5, 5.0, 1.0) == math.inf
    assert attack_length(0.1, 0.5, 1.0, 1.0) == -math.inf
    assert attack_length(0.1, 0.5, 0.0, 0.9) == -math.inf
    assert attack_length(0.1, 0.5, 1.0, 0.9) < 0.0
    assert -math.inf < attack_length(0.1, 0.5, 5e-324, 0.9) < -1000.0
    assert attack_length(0.1, 0.5, 4 * logit(0.9), 0.5) == pytest.approx(2.0)


def test_least_prefill_counts_whole_tokens():
    assert least_prefill(0.1, 0.5, 1.0, 0.9) == 0
    assert least_prefill(0.1, 0.5, 5.0, 1.0) is None
    assert least_prefill(0.1, 0.5, 1.0, 1.0) == 0
    for n in range(1, 12):
        assert least_prefill(0.1, 0.5, logit(0.9) / 0.7**n, 0.7) == n
        assert least_prefill(0.1, 0.5, logit(0.9) / 0.7 ** (n + 0.4), 0.7) == n
        p = optimal_recovery(0.1, logit(0.9) / 0.7 ** (n + 0.4) * 0.7 ** np.array([n, n + 1]))[0]
        assert p[0] >= 0.5 > p[1]


@given(masses, st.floats(1e-3, 50.0))
def test_the_log_form_satisfies_its_own_condition_and_never_recovers_less(p0, x):
    p, kl = log_form_recovery(p0, x)
    linear, nats = optimal_recovery(p0, x)
    if p < 1.0 - 1e-6:
        assert logit(p) - logit(p0) == pytest.approx(x / p, rel=1e-6)
    assert p >= linear and kl >= nats * (1 - 1e-9)


def test_the_log_form_is_a_minimum():
    p = log_form_recovery(0.01, 2.0)[0]
    q = np.array([0.9 * p, p, min(0.999, 1.1 * p)])
    value = q * np.log(q / 0.01) + (1 - q) * np.log((1 - q) / 0.99) - 2.0 * np.log(q)
    assert value.argmin() == 1


def test_the_linear_pull_is_ten_thousand_times_weaker_at_the_start():
    assert recovery_pressure(1e-4, 2.0, "log") / recovery_pressure(1e-4, 2.0) == pytest.approx(1e4)


def test_depth_has_a_price_that_rises_with_penalty_and_discount():
    base = np.full(50, 1e-3)
    table = price_of_depth(base, [2.0, 8.0, 12.0], [0.8, 0.95, 1.0])
    assert table.recovery.shape == (3, 3, 3) and table.total_kl.shape == (3, 3)
    assert (np.diff(table.total_kl, axis=0) > 0).all() and (np.diff(table.total_kl, axis=1) > 0).all()
    assert (np.diff(table.recovery[:, :2], axis=2) < 0).all()
    assert table.recovery[:, 2] == pytest.approx(np.repeat(table.recovery[:, 2, :1], 3, axis=1))
    assert table.recovery[1, 1, 1] == optimal_recovery(1e-3, 8.0 * 0.95**20)[0]
    assert table.total_kl[2, 0] == pytest.approx(sum(optimal_recovery(1e-3, 12 * 0.8**t)[1] for t in range(1, 51)))


def test_the_cheapest_setting_is_the_one_of_least_kl_that_reaches_far_enough():
    table = price_of_depth(np.full(40, 1e-3), [4.0, 8.0, 12.0], [0.9, 0.98, 1.0])
    for depth in (5, 20, 40):
        nats = {
            (mu, gamma): optimal_recovery(1e-3, mu * gamma ** np.arange(1, 41))[1].sum()
            for mu in (4.0, 8.0, 12.0)
            for gamma in (0.9, 0.98, 1.0)
            if optimal_recovery(1e-3, mu * gamma**depth)[0] >= 0.5
        }
        assert table.cheapest(0.5, depth) == min(nats, key=lambda setting: nats[setting])
    assert table.cheapest(0.5, 5) != table.cheapest(0.5, 20)
    assert table.cheapest(0.9999, 40) is None
    with pytest.raises(DepthError, match="depth=7"):
        table.cheapest(0.5, 7)


def test_recovery_information_is_the_mean_variance_of_recovering():
    rng = np.random.default_rng(0)
    p, q = rng.random(5), rng.dirichlet(np.ones(5))
    assert recovery_information(p, q) == pytest.approx(q @ (p * (1 - p)))
    assert recovery_information(p, 7 * q) == pytest.approx(recovery_information(p, q))
    assert recovery_information([0.0, 1.0]) == 0.0
    assert recovery_information([0.5]) == 0.25


def test_gradient_bound_is_tight_when_the_score_follows_recovery():
    """One parameter that is the log-odds of recovery: gradient p (1-p), trace p (1-p)."""
    bound = recovery_gradient_bound([0.2], [0.2 * 0.8])
    assert bound.sharp == bound.loose == pytest.approx(0.16)
    spread = recovery_gradient_bound([0.2, 0.5], [0.3, 0.9])
    assert spread.sharp < spread.loose


def test_small_penalty_kl_is_the_leading_order_of_the_exact_kl():
    p = 0.3
    for x in (1e-2, 1e-3):
        nats = small_penalty_kl([0.0], [-p * (1 - p)], [[p * (1 - p)]], 0.0, x)
        assert optimal_recovery(p, x)[1] / nats - 1.0 == pytest.approx(2 * x * (1 - 2 * p) / 3, rel=0.05)


def test_small_penalty_kl_ignores_directions_that_change_nothing():
    fisher = np.diag([2.0, 0.0])
    assert small_penalty_kl([2.0, 0.0], [0.0, 0.0], fisher, 1.0, 1.0) == pytest.approx(1.0)
    with pytest.raises(DepthError, match=r"\(2,\)"):
        small_penalty_kl([2.0, 0.0], [0.0, 0.0], np.eye(3))


def test_aggregate_recovery_kl_grows_as_the_paper_says_and_diverges():
    for gamma in (0.5, 0.9, 0.99):
        t = np.arange(1, 4000)
        exact = optimal_recovery(0.4, 1e-3 * gamma**t)[1].sum()
        assert aggregate_recovery_kl(1e-3, gamma, 0.24) == pytest.approx(exact, rel=1e-3)
    assert aggregate_recovery_kl(1.0, 1.0, 0.1) == math.inf
    assert aggregate_recovery_kl(1.0, 1.0, 0.0) == 0.0


def test_calibration_keeps_depths_apart_and_shows_what_mass_overstates():
    found = calibrate_recovery([0.9, 0.7, 0.2], [0.1, 0.3, 0.2], [5, 5, 20])
    assert found.depths.tolist() == [5, 20] and found.prefixes.tolist() == [2, 1]
    assert found.gap == pytest.approx([0.6, 0.0])


@pytest.mark.parametrize("form", ["linear", "log"])
def test_the_objective_is_one_function_for_numpy_and_torch(form):
    rng = np.random.default_rng(1)
    mass, kl, weights = np.log(rng.random((3, 4))), rng.random((3, 4)), rng.random((3, 4))
    positions, penalty = np.arange(1.0, 5.0), RecoveryPenalty(1.3, 0.8, form)
    value = recovery_objective(mass, kl, weights, positions, penalty)
    failure = 1 - np.exp(mass) if form == "linear" else -mass
    expected = sum(
        weights[i, t] * (kl[i, t] + 1.3 * 0.8 ** (t + 1) * failure[i, t]) for i in range(3) for t in range(4)
    )
    assert value == pytest.approx(expected)
    tensors = [torch.as_tensor(a) for a in (mass, kl, weights, positions)]
    assert float(recovery_objective(*tensors, penalty)) == pytest.approx(expected)


def test_padding_of_weight_zero_gives_no_gradient():
    mass = torch.tensor([-1.0, -2.0], requires_grad=True)
    zeros, weights = torch.zeros(2), torch.tensor([1.0, 0.0])
    recovery_objective(mass, zeros, weights, torch.tensor([1.0, 2.0]), RecoveryPenalty(2.0)).backward()
    assert mass.grad is not None
    assert mass.grad.tolist() == pytest.approx([-2.0 * math.exp(-1.0), 0.0])


@pytest.mark.parametrize(
    ("call", "value"),
    [
        (lambda: optimal_recovery(0.0, 1.0), "p0=0.0"),
        (lambda: optimal_recovery([0.5, 1.0], 1.0), "p0=1.0"),
        (lambda: optimal_recovery(0.5, -2.0), "x=-2.0"),
        (lambda: optimal_recovery(math.nan, 1.0), "p0=nan"),
        (lambda: optimal_recovery("many", 1.0), "p0='many'"),
        (lambda: log_form_recovery(1.5, 1.0), "p0=1.5"),
        (lambda: recovery_kl_bound(-0.1, 1.0), "p0=-0.1"),
        (lambda: total_kl_bound(-1.0, 0.5, 3), "mu=-1.0"),
        (lambda: total_kl_bound(1.0, 0.5, -3), "horizon=-3.0"),
        (lambda: recoverability(0.1, 1.0, 1.2, 5), "gamma=1.2"),
        (lambda: recoverability(0.1, math.inf, 0.9, 5), "mu=inf"),
        (lambda: required_penalty(0.1, 1.0, 0.9, 5), "delta=1.0"),
        (lambda: required_penalty(0.0, 0.5, 0.9, 5), "p_min=0.0"),
        (lambda: required_penalty(0.1, 0.5, 0.9, -5), "depth=-5.0"),
        (lambda: attack_length(0.1, 0.0, 1.0, 0.9), "delta=0.0"),
        (lambda: attack_length(0.1, 0.5, -1.0, 0.9), "mu=-1.0"),
        (lambda: attack_length(0.1, 0.5, 1.0, 0.0), "gamma=0.0"),
        (lambda: price_of_depth([0.1, 0.2], 1.0, 0.9), "depth=5"),
        (lambda: price_of_depth([[0.1]], 1.0, 0.9, (1,)), r"\(1, 1\)"),
        (lambda: price_of_depth([0.1], [1.0, -1.0], 0.9, (1,)), "mu=-1.0"),
        (lambda: RecoveryPenalty(-0.5), "mu=-0.5"),
        (lambda: RecoveryPenalty(0.5, 1.5), "gamma=1.5"),
        (lambda: RecoveryPenalty(0.5, 1.0, "cubic"), "form='cubic'"),
        (lambda: recovery_information([0.5, 1.2]), "mass=1.2"),
        (lambda: recovery_information([0.5], [0.0]), "weights sum to 0.0"),
        (lambda: recovery_information([0.5, 0.5], [1.0]), r"\(1,\)"),
        (lambda: recovery_gradient_bound([0.5], [1.0, 2.0]), r"\(2,\)"),
        (lambda: aggregate_recovery_kl(1.0, 0.0, 0.1), "gamma=0.0"),
        (lambda: calibrate_recovery([], [], []), r"\(0,\)"),
        (lambda: calibrate_recovery([0.5], [1.5], [1]), "refused=1.5"),
    ],
)
def test_bad_input_is_named_with_its_value(call, value):
    with pytest.raises(DepthError, match=value):
        call()
