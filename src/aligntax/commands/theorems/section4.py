"""Section 4, where alignment pressure acts: martingale, harm curve, gradients, equilibria and shared parameters.

Worlds of three tokens and four positions, 81 sequences, that an oracle can list.
"""

import math

import numpy as np

from aligntax.commands.theorems.check import Check, Row
from aligntax.commands.theorems.section4_worlds import (
    CASES,
    SMALL,
    T,
    V,
    World,
    bought,
    curvature,
    gap,
    spreads,
    worlds,
)
from aligntax.depth import (
    decoupled_kl,
    gaussian_information,
    gibbs_conditionals,
    gradient_bounds,
    gradient_by_position,
    harm_curve,
    harm_information,
    horizon_gap,
    innovations,
    kl_profile,
    leading_order_kl,
    split_shared_kl,
    token_kl,
)
from aligntax.depth.innovations import Array
from aligntax.lab import (
    SharedPolicy,
    plug_in_bias,
    plug_in_curve,
    pooled_bias,
    pooled_curve,
    sample_rollouts,
)
from aligntax.lab.oracles import depth as oracle


def row_4_1() -> Check:
    """[S] Prop 2, Prop 4: `H = h_0 + sum Delta_t`, innovations with conditional mean 0 and orthogonal."""
    worst = 0.0
    for world in worlds():
        steps = innovations(world.rows())
        start = world.listed(world.harm)[:, 0]
        worst = max(worst, gap(start + steps.sum(axis=1), world.harm))
        worst = max(worst, *(gap(world.listed(steps[:, t])[:, t], 0.0) for t in range(T)))
        products = steps.T @ (world.chances[:, None] * steps)
        worst = max(worst, gap(products - np.diag(np.diag(products)), 0.0))
    return Check(
        "4.1",
        "H = h_0 + sum of innovations with mean 0 given the past, orthogonal",
        f"innovations of all {V**T} sequences in {CASES} worlds",
        "conditional means over the listed sequences",
        worst,
        1e-12,
    )


def row_4_2() -> Check:
    """[S] Prop 6, Cor 7: `I_t` is the variance that token t resolves, `Var H` is their sum, 0 beyond the horizon."""
    worst = 0.0
    for world in worlds():
        found = harm_information(world.rows(), world.chances)
        listed = oracle.information_by_variances(world.chances, world.harm, V, T)
        spread = world.chances @ world.harm**2 - (world.chances @ world.harm) ** 2
        worst = max(worst, gap(found, listed), gap(found.sum(), spread))
        worst = max(worst, gap(world.policy.harm_information(world.harm).information, listed))
        worst = max(worst, gap(found[world.horizon :], 0.0) if world.horizon < T else 0.0)
    return Check(
        "4.2",
        "I_t = E Delta_t^2 = E Var(H|y_<t) - E Var(H|y_<=t), Var H = sum I_t",
        f"harm_information, TabularPolicy.harm_information in {CASES} worlds",
        "conditional second moments over the listed sequences",
        worst,
        1e-12,
    )


def row_4_3() -> Check:
    """The harm curve is unbiased; K-sample means and pooled prompts are wrong by what is predicted, in standard errors."""
    chosen, depths, rows = worlds(), list(range(T + 1)), 6
    pairs = [(world.policy, world.harm) for world in chosen]
    listed = [oracle.information_by_variances(world.chances, world.harm, V, T) for world in chosen]
    truth = np.concatenate([[0.0], np.cumsum(np.mean(listed, axis=0))])
    off: list[list[Array]] = [[], [], [], []]
    for seed in range(300):
        drawn = sample_rollouts(pairs, depths, rows, np.random.default_rng([43, seed]))
        for k, centred in enumerate((False, True)):
            curve = harm_curve(drawn.first, drawn.second, drawn.prompts, depths=depths, centred=centred)
            off[k].append(curve.variance - truth)
        off[2].append(plug_in_curve(drawn) - truth - plug_in_bias(pairs, depths, 2))
        off[3].append(pooled_curve(drawn) - truth - pooled_bias(pairs, rows))
    errors = np.array(off)[:, :, 1:]
    worst = np.max(np.abs(errors.mean(axis=1)) / (errors.std(axis=1, ddof=1) / math.sqrt(errors.shape[1])))
    return Check(
        "4.3",
        "two rollouts a prefix give V(t) without bias; the rivals' biases are as predicted",
        f"harm_curve, plain and centred: 300 draws of {CASES} prompts x {rows} pairs (standard errors)",
        "V(t) from conditional variances over the listed sequences",
        float(worst),
        3.0,
    )


def row_4_4() -> Check:
    """[S] Thm 8, Thm 10: `g_t = E Cov(h_t, s_t | y_<t)`, 0 beyond the horizon, with shared parameters and with free logits."""
    worst = 0.0
    for seed, world in enumerate(worlds()):
        shared = SharedPolicy.random(world.policy, 5, np.random.default_rng([44, seed]))
        scores = np.stack(
            [np.repeat(s.reshape(-1, 5), V ** (T - 1 - t), axis=0) for t, s in enumerate(shared.scores())], 1
        )
        wanted = oracle.shared_gradients(world.policy.logits, shared.features, world.harm)
        worst = max(worst, gap(gradient_by_position(innovations(world.rows()), scores, world.chances), wanted))
        worst = max(worst, gap(shared.gradients(world.harm), wanted))
        tables = oracle.table_gradients(world.policy.logits, world.harm)
        worst = max(worst, *(gap(a, b) for a, b in zip(world.policy.gradient(world.harm), tables, strict=True)))
        worst = max(worst, *(gap(table, 0.0) for table in tables[world.horizon :]), 0.0)
    return Check(
        "4.4",
        "grad E[H] = sum_t E Cov(h_t, s_t | y_<t); no gradient beyond the horizon",
        f"gradient_by_position, SharedPolicy.gradients, TabularPolicy.gradient in {CASES} worlds",
        "autograd with a copy of the parameters at each position",
        worst,
        1e-12,
    )


def row_4_5() -> Check:
    """[S] Thm 13: `|g_t| <= E sqrt(Var J) <= sqrt(I E J)`; both attained where the score is the innovation ([S] Rem 5)."""
    worst = 0.0
    for seed, world in enumerate(worlds()):
        rng = np.random.default_rng([45, seed])
        free = [rng.standard_normal((*rows.shape, 4)) for rows in world.policy.logits]
        expected = world.policy.harm_information(world.harm).expected
        aligned = [2.0 * expected[t + 1].reshape(rows.shape)[..., None] for t, rows in enumerate(world.policy.logits)]
        for features, attained in ((free, False), (aligned, True)):
            size = np.linalg.norm(oracle.shared_gradients(world.policy.logits, features, world.harm), axis=1)
            near, far = gradient_bounds(*spreads(world, features), world.chances)
            worst = max(worst, float(np.max(size - near)), float(np.max(near - far)))
            worst = max(worst, gap(near, size), gap(far, size)) if attained else worst
    return Check(
        "4.5",
        "|g_t| <= E sqrt(Var(h_t|y_<t) J_t) <= sqrt(I_t E J_t), attained for scores ~ innovations",
        f"gradient_bounds in {CASES} worlds, random and proportional scores",
        "autograd gradients and scores of listed sequences (largest excess or slack)",
        worst,
        1e-10,
    )


def row_4_6() -> Check:
    """[S] Thm 14, Cor 15: the optimum over all policies, its conditionals, and `D_t = lambda^2/2 I_t` at leading order."""
    worst, strength = 0.0, 1.5
    for world in worlds()[:3]:
        policy, base = world.policy, world.chances
        best = oracle.best_sequences(base, world.harm, strength)
        tilted = policy.equilibrium(world.harm, strength)
        worst = max(worst, gap(oracle.sequence_probabilities(tilted.logits), best))
        worst = max(worst, gap(tilted.per_position_kl(policy), oracle.kl_by_position(best, base, V, T)))
        moments = oracle.expected_by_depth(base, np.exp(-strength * world.harm), V, T)
        for t, rows in enumerate(policy.logits):
            z = moments[:: V ** (T - t - 1), t + 1].reshape(rows.shape)
            worst = max(worst, gap(gibbs_conditionals(rows, z), tilted.logits[t]))
            worst = max(worst, gap(tilted.logits[t], rows) if t >= world.horizon else 0.0)

        def nats(x: float, world: World = world) -> Array:
            return oracle.kl_by_position(oracle.best_sequences(world.chances, world.harm, x), world.chances, V, T)

        found = curvature(nats)
        worst = max(worst, gap(leading_order_kl(policy.harm_information(world.harm).information, 1.0), found))
        blocks = zip(policy.gradient(world.harm), (policy.fisher(t + 1) for t in range(T)), strict=True)
        free = [sum(decoupled_kl(g, f, 1.0) for g, f in zip(table, fishers, strict=True)) for table, fishers in blocks]
        worst = max(worst, gap(free, found))
    return Check(
        "4.6",
        "optimum pi_0 exp(-lambda H)/Z, by position Z(y_<=t)/Z(y_<t); D_t = lambda^2/2 I_t; base beyond the horizon",
        "TabularPolicy.equilibrium, gibbs_conditionals, leading_order_kl, decoupled_kl in 3 worlds",
        "descent on the law of whole sequences, KL by the chain rule, limit of small lambda",
        worst,
        1e-8,
    )


def row_4_7() -> Check:
    """[S] Prop 25, Prop 26, Thm 27: the shared optimum at leading order, and functional + incidental + cross."""
    worst = 0.0
    for seed in (0, 1, 3):
        world = World.draw(seed)
        tables, harm = world.policy.logits, world.harm
        shared = SharedPolicy.random(world.policy, 4, np.random.default_rng([47, seed]))
        split = split_shared_kl(shared.gradients(harm), shared.fishers(), 1.0)
        best = [
            oracle.best_shared(tables, shared.features, harm, x) / x for x in (SMALL, -SMALL, 2 * SMALL, -2 * SMALL)
        ]
        worst = max(worst, gap((4 * (best[0] + best[1]) - (best[2] + best[3])) / 6, split.step))
        worst = max(worst, gap(shared.natural_step(harm, 1.0).theta, split.step))
        own = oracle.shared_gradients(tables, shared.features, harm)
        solved = -np.linalg.solve(oracle.shared_fishers(tables, shared.features).sum(axis=0), own.T).T
        for t in range(T):
            parts = [
                bought(world, shared, move)[t]
                for move in (solved.sum(axis=0), solved[t], solved.sum(axis=0) - solved[t])
            ]
            found = [split.kl[t], split.functional[t], split.incidental[t], split.cross[t]]
            worst = max(worst, gap(found, [*parts, parts[0] - parts[1] - parts[2]]))
        late = slice(world.horizon, T)
        worst = (
            max(worst, gap(split.functional[late], 0.0), gap(split.cross[late], 0.0)) if world.horizon < T else worst
        )
    return Check(
        "4.7",
        "shared step -lambda F^+ g; D_t = functional + incidental + cross; beyond the horizon incidental alone",
        "split_shared_kl, SharedPolicy.natural_step in 3 worlds",
        "descent on theta, and brute-force KL along each part of the step, in the limit of small lambda",
        worst,
        1e-6,
    )


def row_4_8() -> Check:
    """[S] §8: the KL profile of a pair by position, under masks, padding and impossible tokens."""
    rng = np.random.default_rng(48)
    p, q = 2.0 * rng.standard_normal((2, 6, 5, 40))
    p[0, 1, :7] = q[1, 2, 3] = -np.inf
    p[1, 2, 3] = -np.inf
    mask = np.arange(5) < rng.integers(1, 6, size=(6, 1))
    p[~mask] = np.nan
    profile = kl_profile(p, q, mask, text="forced")
    wanted = [[oracle.kl_of_tokens(p[i, t], q[i, t]) for i in range(6) if mask[i, t]] for t in range(mask.any(0).sum())]
    worst = max(
        gap(profile.mean, [np.mean(nats) for nats in wanted]), gap(profile.count, [len(nats) for nats in wanted])
    )
    world = World.draw(0)
    other = world.policy.equilibrium(world.harm, 2.0)
    chance = other.prefix_probabilities()
    found = [chance[t] @ token_kl(other.logits[t], world.policy.logits[t]) for t in range(T)]
    listed = oracle.kl_by_position(oracle.sequence_probabilities(other.logits), world.chances, V, T)
    return Check(
        "4.8",
        "D_t by position in nats: masks, padding, impossible tokens",
        "kl_profile on 6 masked responses, token_kl on all prefixes of a pair",
        "token-by-token sums in float64; chain rule over the listed sequences",
        max(worst, gap(found, listed)),
        2e-6,
    )


def row_4_9() -> Check:
    """[S] Rem 1: nats and variance for Gaussians, the chain rule; a reward with a horizon of its own."""
    rng, worst = np.random.default_rng(49), 0.0
    for _ in range(CASES):
        factor = rng.standard_normal((T + 1, T + 3))
        covariance = factor @ factor.T
        resolved = oracle.gaussian_resolved(covariance)
        nats = gaussian_information(resolved, float(covariance[-1, -1]))
        worst = max(worst, gap(nats, oracle.gaussian_mutual_information(covariance)))
    world = World.draw(2)
    reward = world.listed(world.harm)[:, 1]  # a judge that reads the first token only
    pairs = [(world.policy, world.harm)]
    drawn = sample_rollouts(pairs, range(T + 1), 400, np.random.default_rng(49))
    judged = sample_rollouts([(world.policy, reward)], range(T + 1), 400, np.random.default_rng(49))
    curves = [harm_curve(x.first, x.second, centred=True) for x in (drawn, judged)]
    planted = 1 - (int(np.flatnonzero(oracle.information_by_variances(world.chances, world.harm, V, T) > 1e-9)[-1]) + 1)
    worst = max(worst, abs(horizon_gap(curves[0], curves[1]).value - planted))
    return Check(
        "4.9",
        "Gaussian harm: I(H; y_t|y_<t) = 1/2 log(v_{t-1}/v_t); a reward's horizon differs from that of harm",
        f"gaussian_information on {CASES} covariances; horizon_gap on the same 400 rollouts, judged twice",
        "log-determinants; the horizons that were planted",
        worst,
        1e-9,
    )


ROWS: tuple[Row, ...] = (row_4_1, row_4_2, row_4_3, row_4_4, row_4_5, row_4_6, row_4_7, row_4_8, row_4_9)
"""The rows of section 4 in order."""
