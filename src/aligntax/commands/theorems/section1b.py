"""Section 1 from 1.11 to 1.16: budgets in nats, the dual problem, straight lines, layers and regimes."""

import numpy as np
import scipy.linalg
import scipy.stats

from ...geometry import (
    Fisher,
    averaging_ratio,
    budget_to_norm,
    joint_layer_gain,
    layer_budget,
    layer_yields,
    max_capability,
    max_gain_per_nats,
    random_overlap,
    regime,
    straight_line_gaps,
    tax_rate,
    total_change_gain,
    whiten,
)
from ...lab.oracles import geometry as oracle
from ...stats import benjamini_hochberg, empirical_p, estimate_cosines_from_grams
from .check import Check
from .gap import gap, unit_draws, worst

CASES = 12
D, M = 6, 2
STANDARD_ERRORS = 4.5


def _nats_errors(rng: np.random.Generator, scores: np.ndarray) -> list[float]:
    """Optimum under a budget in nats, its whitened closed form, and the round budget of equal mean cost."""
    g, rows = rng.standard_normal(D), rng.standard_normal((M, D))
    nats, ridge, t = rng.uniform(0.05, 1), rng.uniform(0, 0.5), rng.uniform(0, 0.2, M)
    plain = scores.T @ scores / len(scores)
    cost = plain + ridge * np.trace(plain) / D * np.eye(D)
    fisher = Fisher(scores / np.sqrt(len(scores)), ridge)
    none = rows[:0], rows[:0, 0]
    found = max_gain_per_nats(g, rows, t, fisher, nats)
    best, _ = oracle.most_gain(g, none, (rows, -t), cost / (2 * nats))
    flat = max_gain_per_nats(g, rows, t, Fisher(scores / np.sqrt(len(scores))).isotropic(), nats)
    even, _ = oracle.most_gain(g, none, (rows, -t), np.trace(plain) / D * np.eye(D) / (2 * nats))
    v, u = whiten(g, rows, fisher)
    still = budget_to_norm(nats) * np.linalg.norm(v) * np.sqrt(1 - tax_rate(v, u))
    held, _ = oracle.most_gain(g, (rows, np.zeros(M)), none, cost / (2 * nats))
    return [
        gap(found.gain, best),
        gap(flat.gain, even),
        gap(still, held),
        gap(found.shift @ cost @ found.shift, 2 * nats),
    ]


def row_1_11() -> Check:
    """Budgets in nats, and the Fisher matrix from draws."""
    rng, exact = np.random.default_rng(111), []
    chain = oracle.Chain(rng.standard_normal((3, 4, D)), rng.standard_normal((3, 4, 4)))
    scores = chain.scores(rng, 20000)
    fisher, off = Fisher(scores / np.sqrt(len(scores))), []
    for x in 1e-3 * unit_draws(rng, CASES, D):
        spread = ((scores @ x) ** 2).std() / np.sqrt(len(scores))
        symmetric = chain.kl(x) + chain.kl(-x)  # the cubic term cancels
        off.append(gap(fisher.quad(x), symmetric) / spread)
    for _ in range(CASES):
        exact += _nats_errors(rng, scores[:200])
    return Check(
        "1.11",
        "a budget of K nats is delta^T F delta <= 2K; F is the mean of g g^T over sampled replies",
        f"Fisher.quad on 20000 draws, max_gain_per_nats, whiten, isotropic on {CASES} worlds (1e-6 counts as 4.5)",
        "KL of a small autoregressive model by enumeration, in standard errors; numeric optimisation in raw coordinates",
        worst([*off, STANDARD_ERRORS * worst(exact) / 1e-6]),
        STANDARD_ERRORS,
    )


def row_1_12() -> Check:
    """The dual problem."""
    rng, errors = np.random.default_rng(112), []
    for _ in range(CASES):
        v, rows, eps = unit_draws(rng, D), unit_draws(rng, M, D), rng.uniform(0.5, 2)
        weights = rng.uniform(-1, 1, M)
        target = weights @ rows / np.linalg.norm(weights @ rows)
        gain, shift = max_capability(v, rows, weights, eps)
        best = oracle.in_ball(target, v[None], np.zeros(1), eps)
        errors += [gap([gain, target @ shift], best), gap(v @ shift, 0), max(0.0, float(shift @ shift) - eps**2)]
    return Check(
        "1.12",
        "most of a capability target at unchanged safety: eps sqrt(1 - <w,v>^2)",
        f"max_capability on {CASES} random worlds",
        "numeric optimisation over shifts",
        worst(errors),
        1e-6,
    )


def row_1_13() -> Check:
    """Straight lines below the frontier."""
    rng, errors = np.random.default_rng(113), []
    for _ in range(CASES):
        v, rows, delta = unit_draws(rng, D), unit_draws(rng, M, D), rng.standard_normal(D)
        alpha = rng.uniform(0.05, 0.95)
        gaps, size = straight_line_gaps(v, rows, delta, [alpha]), float(np.linalg.norm(delta))
        full, matched = (oracle.in_ball(v, rows, alpha * rows @ delta, eps) for eps in (size, alpha * size))
        own = oracle.in_ball(v, rows, rows @ delta, size) - v @ delta
        line = alpha * v @ delta
        errors += [gap(gaps.full, full - line), gap(gaps.matched, matched - line), gap(gaps.matched, alpha * own)]
        errors.append(max(0.0, -float(gaps.full[0])))
    return Check(
        "1.13",
        "interpolation stays below the full-budget frontier; at matched budget by alpha times the endpoint's own gap",
        f"straight_line_gaps on {CASES} random worlds",
        "both frontiers optimised numerically at the line's own capability changes",
        worst(errors),
        1e-6,
    )


def row_1_14() -> Check:
    """Random overlap."""
    rng, off, draws = np.random.default_rng(114), [], 3000
    for r, d in ((1, 8), (3, 12), (6, 9), (2, 40)):
        sample, law = oracle.random_overlaps(r, d, draws, rng), random_overlap(r, d)
        off.append(float(scipy.stats.kstest(sample, law.cdf).statistic * np.sqrt(draws)))
        off.append(gap(law.mean(), r / d) * 1e12)
    return Check(
        "1.14",
        "an r-dimensional update overlaps a random direction by Beta(r/2, (d-r)/2), r/d on average",
        "random_overlap for four shapes",
        f"{draws} random subspaces each; Kolmogorov distance times sqrt(n), beyond 1.95 once in a thousand",
        worst(off),
        1.95,
    )


def row_1_15() -> Check:
    """Layers."""
    rng, errors, layers = np.random.default_rng(115), [], 3
    for _ in range(CASES // 2):
        g, rows = rng.standard_normal((layers, D)) * rng.uniform(0.2, 2, (layers, 1)), unit_draws(rng, layers, M, D)
        eps, joined = rng.uniform(0.5, 2), np.concatenate(list(rows), axis=1)
        each, found = scipy.linalg.block_diag(*rows), layer_budget(layer_yields(g, rows), eps)
        none = np.zeros(len(each))
        best, shift = oracle.most_gain(g.ravel(), (each, none), (each[:0], none[:0]), np.eye(g.size) / eps**2)
        even = sum(oracle.in_ball(x, u, np.zeros(M), eps / np.sqrt(layers)) for x, u in zip(g, rows, strict=True))
        errors += [gap([found.gain, found.equal_gain, found.ratio], [best, even, best / even])]
        errors.append(gap(found.spend, np.linalg.norm(shift.reshape(g.shape), axis=1)) / 100)
        total = oracle.in_ball(g.ravel(), joined, np.zeros(M), eps)
        errors += [gap(total_change_gain(g, rows, eps), total), max(0.0, found.gain - total)]
        errors += _joint_errors(rng, g, rows, each, joined)
        norms, gains = rng.uniform(0.2, 2, 4), rng.uniform(0.1, 1, 4)
        errors.append(gap(averaging_ratio(norms, gains), _ratio(gains, norms)))
    return Check(
        "1.15",
        "spend a budget over layers in proportion to |g_l| sqrt(1 - tax_l); compensation between layers gains more",
        f"layer_yields, layer_budget, total_change_gain, joint_layer_gain, averaging_ratio on {CASES // 2} random models",
        "numeric optimisation over the shifts of all layers at once, round and in joint nats",
        worst(errors),
        1e-5,
    )


def _ratio(gains: np.ndarray, norms: np.ndarray) -> float:
    """Best gain of per-layer fractions at unit length over that of one common fraction, optimised numerically."""
    none = np.zeros((0, gains.size)), np.zeros(0)
    best, _ = oracle.most_gain(gains, none, none, np.diag(norms**2))
    alike, _ = oracle.most_gain(
        np.array([gains.sum()]), (none[0][:, :1], none[1]), (none[0][:, :1], none[1]), np.array([[norms @ norms]])
    )
    return best / alike


def _joint_errors(
    rng: np.random.Generator, g: np.ndarray, rows: np.ndarray, each: np.ndarray, joined: np.ndarray
) -> list[float]:
    """Both protections under a joint Fisher matrix with off-diagonal blocks."""
    draws, nats = rng.standard_normal((40, g.size)) @ rng.standard_normal((g.size, g.size)) / 6, rng.uniform(0.1, 1)
    fisher = Fisher(draws, ridge=0.3)
    cost = draws.T @ draws + 0.3 * np.square(draws).sum() / g.size * np.eye(g.size)
    errors = []
    for protect, held in (("each", each), ("total", joined)):
        found, shifts = joint_layer_gain(g, rows, fisher, nats, protect)  # type: ignore[arg-type]
        none = held[:0], np.zeros(0)
        best, _ = oracle.most_gain(g.ravel(), (held, np.zeros(len(held))), none, cost / (2 * nats))
        errors += [gap([found, float(g.ravel() @ shifts.ravel())], best), gap(held @ shifts.ravel(), 0.0)]
    return errors


COSINES = {"tradeoff": (0.6, -0.6), "entangled": (0.95,)}
LABELS = ["free"] * 6 + [label for label, planted in COSINES.items() for _ in planted]


def _calls(rng: np.random.Generator, width: int) -> list[str]:
    """Regimes of nine noisy tasks, planted as `LABELS`, against 150 control directions."""
    v = unit_draws(rng, width)
    planted = oracle.at_cosines(v, np.array([c for some in COSINES.values() for c in some]), rng)
    every = np.concatenate([unit_draws(rng, 6, width), planted, unit_draws(rng, 150, width)])
    noise = 0.05 * rng.standard_normal((len(every) + 1, 8, width))
    own, others = v + noise[0], every[:, None] + noise[1:]
    crossed = np.einsum("ad,mbd->mab", own, others), np.einsum("mad,mbd->mab", others, others)
    table, count = estimate_cosines_from_grams(own @ own.T, *crossed), len(LABELS)
    adjusted = benjamini_hochberg(np.array([empirical_p(t, table.tax[count:]) for t in table.tax[:count]]))
    return [
        regime(bool(q <= 0.1), float(table.tax[k]), float(table.tax_low[k]), float(table.reliability_u[k]))
        for k, q in enumerate(adjusted)
    ]


def row_1_16() -> Check:
    """Regimes."""
    rng, false, wrong, width = np.random.default_rng(116), [], [], 64
    for _ in range(3 * CASES):
        calls = _calls(rng, width)
        found = [label for call, label in zip(calls, LABELS, strict=True) if call != "free"]
        false.append(found.count("free") / max(1, len(found)))
        wrong += [call != label for call, label in zip(calls, LABELS, strict=True) if label != "free"]
    return Check(
        "1.16",
        "free means not distinguishable from incidental overlap, not below a threshold picked by hand",
        f"regime on {len(false)} x {len(LABELS)} noisy tasks in {width} dimensions, tested against control directions",
        "planted overlaps: none beyond chance, .36, .90; false discoveries among calls plus planted ones miscalled",
        float(np.mean(false) + np.mean(wrong)),
        0.1,
    )
