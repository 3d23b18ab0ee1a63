"""Section 5, the recovery objective: what its optimum guarantees, against what attack, at what price; all rows of 5."""

import math
from itertools import product

import numpy as np

from aligntax.commands.theorems.check import Check, Row
from aligntax.commands.theorems.section5_optimum import R, random_law, row_5_1, row_5_2, row_5_3, row_5_7
from aligntax.depth import (
    aggregate_recovery_kl,
    attack_length,
    calibrate_recovery,
    least_prefill,
    recoverability,
    recovery_gradient_bound,
    recovery_information,
    recovery_kl_bound,
    required_penalty,
    small_penalty_kl,
    total_kl_bound,
)
from aligntax.lab import deep_policy, plant_world, prefill_attack
from aligntax.lab.oracles import recovery as oracle


def row_5_4() -> Check:
    """[S] Def 21, Thm 22: the guarantee is attained at the worst prefix of the last position; bounds are not passed."""
    rng, worst = np.random.default_rng(4), 0.0
    for gamma in (0.6, 0.85, 1.0):
        mu, depth, horizon = float(rng.uniform(1.0, 6.0)), 9, 3
        laws = [random_law(rng, -3.0) for _ in range(6)]
        least, dearest = math.inf, 0.0
        for t in range(1, depth + 1):
            best = [oracle.simplex_minimum(law, (0, 1), mu * gamma**t) for law, _ in laws]
            nats = [oracle.relative_entropy(p, law) for p, (law, _) in zip(best, laws, strict=True)]
            least = min(least, *(float(p[:2].sum()) for p in best))
            bound = recovery_kl_bound([p0 for _, p0 in laws], mu * gamma**t)
            worst = max(worst, float(np.max(np.array(nats) - bound)))
            dearest += max(nats) if t > horizon else 0.0
        promise = recoverability(min(p0 for _, p0 in laws), mu, gamma, depth)
        worst = max(worst, abs(promise - least), dearest - total_kl_bound(mu, gamma, horizon, depth))
        listed = sum(mu * gamma**t for t in range(horizon + 1, depth + 1))
        worst = max(worst, abs(total_kl_bound(mu, gamma, horizon, depth) - listed))
    # The quadratic bound is attained in the limit of small x by a base that is undecided, so it cannot be lowered.
    law = np.array([0.3, 0.2, 0.25, 0.25])
    tiny = oracle.relative_entropy(oracle.simplex_minimum(law, (0, 1), 0.02), law)
    bound = float(recovery_kl_bound(0.5, 0.02))
    worst = max(worst, tiny - bound, 0.0 if bound < 1.001 * tiny else math.inf)
    return Check(
        "5.4",
        "recoverable with sigmoid(logit p_min + mu gamma^T); KL and its sum bounded",
        "recoverability, recovery_kl_bound, total_kl_bound: 6 laws at 9 depths, 3 discounts",
        "damped Newton on the simplex at every depth, worst prefix (largest excess)",
        worst,
        1e-9,
    )


def row_5_5() -> Check:
    """[S] Cor 23, corrected: which positions are below `delta`, and what penalty is needed for a depth."""
    rng, worst = np.random.default_rng(5), 0.0
    for _ in range(16):
        p0, delta = float(10.0 ** rng.uniform(-4.0, -0.5)), float(rng.uniform(0.05, 0.9))
        mu, gamma = float(rng.uniform(0.5, 14.0)), float(rng.choice([0.5, 0.75, 0.9, 1.0]))
        positions = np.arange(1, 26)
        below = np.array([oracle.binary_minimum(p0, mu * gamma**t) < delta for t in positions])
        worst = max(worst, float((below != (positions > attack_length(p0, delta, mu, gamma))).sum()))
        found, first = least_prefill(p0, delta, mu, gamma), int(below.argmax())
        beaten = found is not None and found < positions.size
        worst = max(worst, float(beaten != below.any()), abs(found - first) if beaten and found is not None else 0.0)
        needed = required_penalty(p0, delta, gamma, 6)
        held = oracle.binary_minimum(p0, needed * gamma**6)
        worst = max(worst, abs(held - delta) if needed > 0.0 else max(0.0, delta - p0))
    return Check(
        "5.5",
        "attack length t*, least prefill floor(t*), least mu for a depth",
        "attack_length, least_prefill, required_penalty on 16 cases",
        "25 positions one by one, optimum by bisection (positions and mass wrong)",
        worst,
        1e-9,
    )


def row_5_6() -> Check:
    """[S] Def 18, Lem 28, Thm 19, Rem 6: information, gradient bound, KL of a small penalty, its sum over positions."""
    rng = np.random.default_rng(6)
    worst = max(_shared_position(rng), _shared_position(rng), _tight_position(rng, 6), _tight_position(rng, 1))
    worst = max(worst, abs(2.0 * _aggregate_share(0.005) - _aggregate_share(0.01) - 1.0))
    return Check(
        "5.6",
        "recovery information bounds the gradient; KL of a small penalty and its sum",
        "recovery_information, recovery_gradient_bound, small_penalty_kl, aggregate_recovery_kl",
        "autograd scores; Newton on shared parameters; summed optima (relative, to first order)",
        worst,
        1e-3,
    )


def _shared_position(rng: np.random.Generator) -> float:
    """Largest error at one position whose six prefixes share three parameters."""
    features, theta, weights = rng.standard_normal((6, 4, 3)), rng.standard_normal(3), rng.dirichlet(np.ones(6))
    gradient, fisher, traces = oracle.recovery_gradient(features, theta, weights, R)
    p = np.exp(features @ theta)
    p /= p.sum(-1, keepdims=True)
    listed = sum(weights[i] * p[i, v] * ((v == 0) - p[i, 0]) ** 2 for i in range(6) for v in range(4))
    bound, size = recovery_gradient_bound(p[:, 0], traces, weights), float(np.linalg.norm(gradient))
    worst = max(abs(recovery_information(p[:, 0], weights) - listed), size - bound.sharp, bound.sharp - bound.loose)
    harm = rng.random((6, 4))
    pull = np.einsum("n,nv,nvd->d", weights, p * (harm - (p * harm).sum(-1, keepdims=True)), features)

    def share(scale: float) -> float:
        costs = scale * (0.5 * harm - 2.0 * (np.arange(4) == 0))
        truth = oracle.shared_minimum(features, theta, weights, costs)
        return truth / small_penalty_kl(pull, gradient, fisher, 0.5 * scale, 2.0 * scale)

    return max(worst, abs(2.0 * share(0.005) - share(0.01) - 1.0))


def _tight_position(rng: np.random.Generator, prefixes: int) -> float:
    """Error where the score follows recovery: the sharp bound is attained, and with one prefix the loose one too."""
    features, theta = rng.uniform(0.5, 2.0, (prefixes, 1, 1)) * [[[1.0], [0.0]]], rng.standard_normal(1)
    weights = rng.dirichlet(np.ones(prefixes))
    gradient, _, traces = oracle.recovery_gradient(features, theta, weights, R)
    p = 1.0 / (1.0 + np.exp(-(features[:, 0] @ theta)))
    bound, size = recovery_gradient_bound(p, traces, weights), float(np.linalg.norm(gradient))
    return max(abs(bound.sharp - size), abs(bound.loose - size) if prefixes == 1 else 0.0)


def _aggregate_share(mu: float) -> float:
    """Summed KL of brute-force optima at positions 3, 4, .. over the formula, for mass 0.3 and gamma 0.8."""
    law = np.array([0.1, 0.2, 0.3, 0.4])
    optima = [oracle.simplex_minimum(law, (0, 1), mu * 0.8**t) for t in range(3, 50)]
    return sum(oracle.relative_entropy(p, law) for p in optima) / aggregate_recovery_kl(mu, 0.8, 0.21, 2)


def row_5_8() -> Check:
    """Mass of recovery tokens rises in both worlds; harm falls only where a recovery token stops it."""
    worst = max(_mass_and_recovery(stops) for stops in (True, False))
    return Check(
        "5.8",
        "mass is not recovery: mass rises alike, harm falls only where recovery stops it",
        "prefill_attack and calibrate_recovery on two worlds",
        "listed continuations of every prefill; optimum by bisection (harm, share)",
        worst,
        1e-9,
    )


def _mass_and_recovery(stops: bool) -> float:
    """Largest error in harm after a prefill and in the gap between mass and refusals; inf where harm falls wrongly."""
    world = plant_world(3, 5, 2, 0.01, np.random.default_rng(8), stops)
    found, deep = prefill_attack(world, 1.0, 8.0, 0.95), deep_policy(world, 1.0, 8.0, 0.95).logits
    worst = 0.0 if (found.after[2] < 0.5 * found.before[2]) == stops else math.inf
    for j in (2, 3):
        listed = [oracle.expected_after(deep, world.harm, tokens) for tokens in product(range(3), repeat=j)]
        worst = max(worst, abs(found.after[j] - max(listed)))
    # A judge calls a continuation a refusal where the promised harm is not done. Prefixes hold no recovery token.
    depths = (2, 3, 4)
    refused = [1.0 - oracle.expected_after(deep, world.harm / world.promised, (2,) * j) for j in depths]
    mass = [oracle.binary_minimum(0.01, 8.0 * 0.95 ** (j + 1)) for j in depths]
    kept = [1.0 - math.prod(1.0 - p for p in mass[i:]) if stops else 0.0 for i in range(3)]
    table = calibrate_recovery([float(np.exp(deep[j][-1, 0])) for j in depths], np.clip(refused, 0.0, 1.0), depths)
    return max(worst, float(np.abs(table.gap - (np.array(mass) - kept)).max()))


ROWS: tuple[Row, ...] = (row_5_1, row_5_2, row_5_3, row_5_4, row_5_5, row_5_6, row_5_7, row_5_8)
