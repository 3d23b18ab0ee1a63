"""Section 3, several safety objectives: each item against numeric optimisation, exhaustive search or sampling."""

import numpy as np

from ...geometry import (
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
from ...lab.oracles import conflict as oracle
from ...lab.oracles import geometry as ball
from .check import Check, Row
from .gap import gap, unit_draws, worst

CASES = 20
D, M = 7, 3


def row_3_1() -> Check:
    """Effective correlation."""
    rng, errors = np.random.default_rng(31), []
    for _ in range(5 * CASES):
        (v1, v2), rows = unit_draws(rng, 2, D), unit_draws(rng, M, D)
        errors.append(gap(effective_correlation(v1, v2, rows), oracle.partial_correlation(v1, v2, rows)))
        dependent = np.vstack([rows, rows[0] - rows[1]])
        left = oracle.leftovers(np.stack([v1, v2]), dependent)
        size = float(np.prod(np.linalg.norm(left, axis=1)))
        errors.append(gap(effective_correlations([v1, v2], dependent)[0, 1], left[0] @ left[1] / size))
    return Check(
        "3.1",
        "after projecting capabilities out, two objectives meet at their partial correlation",
        f"effective_correlation(s) on {5 * CASES} random triples, dependent capabilities too",
        "inverse of the joint Gram matrix; residuals of least squares",
        worst(errors),
        1e-9,
    )


def row_3_2() -> Check:
    """Frontier."""
    rng, errors = np.random.default_rng(32), []
    for _ in range(CASES):
        objectives, rows, eps = unit_draws(rng, 2, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        tops = oracle.own_maxima(objectives, rows, eps)
        rho = effective_correlation(objectives[0], objectives[1], rows)
        first = rng.uniform(rho, 1.0)
        held, fixed = np.vstack([rows, objectives[0]]), np.append(np.zeros(M), first * tops[0])
        best = ball.in_ball(objectives[1], held, fixed, eps) / tops[1]
        errors.append(gap(conflict_frontier(rho, first), best))
        three, weights = unit_draws(rng, 3, D), rng.uniform(0.1, 1.0, 3)
        gains, _ = efficient_gains(three, rows, weights, eps)
        errors.append(gap(weights @ gains, ball.in_ball(weights @ three, rows, np.zeros(M), eps)))
    return Check(
        "3.2",
        "frontier of normalised gains: g2 = g1 rho + sqrt(1-g1^2) sqrt(1-rho^2); any number of objectives by weights",
        f"conflict_frontier and efficient_gains on {CASES} random worlds",
        "the second gain maximised numerically with the first held fixed",
        worst(errors),
        1e-6,
    )


def row_3_3() -> Check:
    """Equal normalised gain."""
    rng, errors = np.random.default_rng(33), []
    for k in [2] * CASES + [3] * CASES:
        objectives, rows = unit_draws(rng, k, D), unit_draws(rng, M, D)
        table = effective_correlations(objectives, rows)
        found = equal_normalised_gain(table[0, 1] if k == 2 else table)
        best, _ = oracle.max_min(objectives, rows, 1.0, oracle.own_maxima(objectives, rows, 1.0))
        errors.append(gap(found, best))
    return Check(
        "3.3",
        "the share of its own maximum that both objectives can have is cos(theta_eff/2)",
        f"equal_normalised_gain for 2 and 3 objectives on {2 * CASES} random worlds",
        "largest smallest share, by numeric optimisation",
        worst(errors),
        1e-6,
    )


def row_3_4() -> Check:
    """Decomposition of gains."""
    rng, errors = np.random.default_rng(34), []
    for _ in range(CASES):
        objectives, rows, eps = unit_draws(rng, 2, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        parts = decompose_gains(objectives, rows, eps)
        _, shift = oracle.max_min(objectives, rows, eps, oracle.own_maxima(objectives, rows, eps))
        errors.append(gap(parts.gains, objectives @ shift))
        errors.append(gap(parts.kept, np.sqrt([1 - ball.share_inside(v, rows) for v in objectives])))
    return Check(
        "3.4",
        "gain = budget x sqrt(1 - tax) x cos(theta_eff/2)",
        f"decompose_gains on {CASES} random worlds",
        "gains of the shift that a numeric optimiser finds for equal shares; taxes by iterative least squares",
        worst(errors),
        1e-5,
    )


def row_3_5() -> Check:
    """Equal absolute gain."""
    rng, errors = np.random.default_rng(35), []
    for k in [1, 2, 3, 5] * (CASES // 2):
        objectives, rows, eps = unit_draws(rng, k, D), unit_draws(rng, 2, D), rng.uniform(0.5, 2)
        gain, shift = equal_gain(objectives, rows, eps)
        best, _ = oracle.max_min(objectives, rows, eps, np.ones(k))
        binding = (objectives @ shift)[binding_weights(objectives, rows) > 1e-9]
        errors += [gap(gain, best), gap(rows @ shift, 0.0), max(0.0, float(np.linalg.norm(shift)) - eps)]
        errors.append(max(gap(binding, gain), max(0.0, gain - float((objectives @ shift).min()))))
    return Check(
        "3.5",
        "largest common gain = budget x distance of 0 from the hull of the projected objectives",
        f"equal_gain for 1 to 5 objectives on {2 * CASES} random worlds; its shift keeps budget and capabilities",
        "max-min by numeric optimisation over shifts",
        worst(errors),
        1e-6,
    )


def _effect_errors(objectives: np.ndarray, rows: np.ndarray, eps: float) -> list[float]:
    """One world of 3.6: helped or not by optimised equal shares with and without protection, and the loss."""
    effect = preservation_effect(objectives[0], objectives[1], rows, eps)
    none = rows[:0]
    before, _ = oracle.max_min(objectives, none, eps, oracle.own_maxima(objectives, none, eps))
    after, _ = oracle.max_min(objectives, rows, eps, oracle.own_maxima(objectives, rows, eps))
    plain, kept = (oracle.max_min(objectives, r, eps, np.ones(2))[0] for r in (none, rows))
    decided = abs(after - before) > 1e-5
    errors = [gap(effect.absolute_loss, plain - kept), float(decided and effect.helps != (after > before))]
    cut = effect.mediated < 0
    named = {"conflict removed": effect.helps and cut, "suppressor": effect.helps and not cut}
    errors.append(0.0 if named.get(effect.case, not effect.helps) else 1.0)
    return errors


def row_3_6() -> Check:
    """When preserving helps, the counterexample to the sign rule, and what is lost."""
    rng, errors = np.random.default_rng(36), []
    for _ in range(CASES):
        errors += _effect_errors(unit_draws(rng, 2, D), unit_draws(rng, M, D), float(rng.uniform(0.5, 2)))
    counter = preservation_effect(*directions_with(rho=-0.5, a=0.1, b=-0.9))
    world = oracle.realised(-0.5, 0.1, -0.9)
    errors += [gap(counter.rho_eff, oracle.partial_correlation(world[0], world[1], world[2:])), float(counter.helps)]
    draws = oracle.feasible_draws(rng, 600)
    opposite = draws[draws[:, 1] * draws[:, 2] < 0]
    for rho, a, b in opposite:
        world = oracle.realised(rho, a, b)
        better = oracle.partial_correlation(world[0], world[1], world[2:]) > rho
        errors.append(float(preservation_effect(*directions_with(rho, a, b)).helps != better))
    return Check(
        "3.6",
        "preserving helps exactly when rho_eff > rho; opposite signs do not suffice; the absolute gain never improves",
        f"preservation_effect on {CASES} random worlds, the counterexample, and {len(opposite)} draws of opposite signs",
        "equal shares and equal gains optimised with and without protection; inverse Gram matrices",
        worst(errors),
        1e-6,
    )


def row_3_7() -> Check:
    """Which capabilities to preserve."""
    rng, errors = np.random.default_rng(37), []
    for _ in range(CASES // 2):
        (v1, v2), rows = unit_draws(rng, 2, 9), unit_draws(rng, 6, 9)
        choice, (best, subset) = which_to_preserve(v1, v2, rows), oracle.best_subset(v1, v2, rows)
        errors += [gap(choice.rho_eff, best), float(choice.tasks != subset)]
        plain, kept = (
            oracle.max_min(np.stack([v1, v2]), r, 1.0, np.ones(2))[0] for r in (rows[:0], rows[list(choice.tasks)])
        )
        errors.append(gap(choice.absolute_loss, plain - kept))
    (v1, v2), rows = unit_draws(rng, 2, 20), unit_draws(rng, 13, 20)
    greedy = which_to_preserve(v1, v2, rows)
    best, _ = oracle.best_subset(v1, v2, rows)
    left = oracle.leftovers(np.stack([v1, v2]), rows[list(greedy.tasks)])
    errors.append(gap(greedy.rho_eff, left[0] @ left[1] / np.prod(np.linalg.norm(left, axis=1))))
    errors += [max(0.0, greedy.rho_eff - best), float(greedy.exact), max(0.0, -greedy.gain)]
    return Check(
        "3.7",
        "the subset worth preserving, exactly up to 12 capabilities, greedily and never overstated beyond",
        f"which_to_preserve on {CASES // 2} random worlds of 6 capabilities and one of 13",
        "every subset tried, residuals by least squares; absolute gains optimised",
        worst(errors),
        1e-6,
    )


ROWS: tuple[Row, ...] = (row_3_1, row_3_2, row_3_3, row_3_4, row_3_5, row_3_6, row_3_7)
