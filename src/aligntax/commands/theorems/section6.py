"""Section 6, pipeline quantities: each against a second way of getting it.

A row that checks several quantities gives each its own allowance; the error is the largest share of an allowance used, so
the tolerance is 1.
"""

from __future__ import annotations

import math

import numpy as np

from ...lab.oracles import pipeline as oracle
from ...stats import (
    adaptive_beta,
    adjusted_p_values,
    best_of_n_kl,
    bits_per_byte,
    bradley_terry_loss,
    clipped_policy_objective,
    constrained_choice,
    fit_overoptimisation,
    fit_power_law,
    hypervolume,
    kl_regularised_reward,
    language_model_loss,
    mcnemar_interval,
    observed_tax,
    pareto_set,
    perplexity,
    regularised_optimum,
    sft_loss,
    split_tax,
    weighted_choice,
)
from ...stats.overoptimisation import Form
from ...stats.power_law import Resampling
from .check import Check, Row


def _used(*pairs: tuple[float, float]) -> float:
    """Largest error as a share of its allowance; nan stays nan."""
    return float(np.max([error / allowed for error, allowed in pairs]))


def row_6_1() -> Check:
    """Perplexity and bits per byte against exact code lengths."""
    rng = np.random.default_rng(61)
    worst = 0.0
    for _ in range(60):
        p = rng.uniform(1e-4, 1, size=30)
        scored = rng.random(30) < 0.6
        scored[0] = True
        bits, text = oracle.ideal_code_bits(p[scored].tolist()), "äb" * int(rng.integers(1, 40))
        found = perplexity(np.log(p), scored), bits_per_byte(np.log(p), len(text.encode()), scored)
        expected = 2 ** (bits / scored.sum()), bits / sum(len(c.encode()) for c in text)
        worst = np.max([worst, *(abs(a / b - 1) for a, b in zip(found, expected, strict=True))])
    return Check(
        "6.1",
        "perplexity = exp(-mean log p), bits per byte beside it",
        "perplexity, bits_per_byte on 60 masked texts",
        "arithmetic-coder interval in exact fractions (relative error)",
        float(worst),
        1e-12,
    )


def row_6_2() -> Check:
    """Stage losses and the KL-regularised optimum."""
    rng = np.random.default_rng(62)
    worst = max(_used(*_token_losses(rng), *_reward_losses(rng)) for _ in range(8))
    reward, reference = rng.normal(size=4), rng.dirichlet(np.ones(4))
    for beta in (0.3, 1.0, 3.0):
        found, (value, expected) = (
            regularised_optimum(reward, reference, beta),
            oracle.best_regularised(reward, reference, beta),
        )
        worst = max(worst, _used((abs(found.value - value), 1e-8), (abs(found.reward - expected), 1e-4)))
    return Check(
        "6.2",
        "stage losses: LM, SFT on completions, Bradley-Terry, KL-regularised, clipped; larger beta, less reward",
        "the losses on 8 random batches, regularised_optimum at beta .3, 1, 3",
        "torch cross-entropy, Gumbel race by quadrature, enumeration, cases, BFGS (share of allowance)",
        worst,
        1.0,
    )


def _token_losses(rng: np.random.Generator) -> list[tuple[float, float]]:
    logits, tokens = rng.normal(size=(3, 7, 5)), rng.integers(5, size=(3, 7))
    real = np.arange(7) >= np.array([[0], [2], [3]])
    answer = np.arange(7) >= np.array([[4], [3], [6]])
    follows = real & np.roll(real, 1, axis=1)
    follows[:, 0] = False
    return [
        (abs(language_model_loss(logits, tokens, real) - oracle.torch_cross_entropy(logits, tokens, follows)), 1e-10),
        (abs(sft_loss(logits, tokens, answer) - oracle.torch_cross_entropy(logits, tokens, answer)), 1e-10),
    ]


def _reward_losses(rng: np.random.Generator) -> list[tuple[float, float]]:
    won, lost = rng.normal(size=2) * 2
    policy, reference = rng.dirichlet(np.ones(6), size=2)
    reward, beta = rng.normal(size=6), float(rng.uniform(0.1, 2))
    sampled = policy @ kl_regularised_reward(reward, np.log(policy), np.log(reference), beta)
    shift, advantage = rng.normal(size=(4, 5)) * 0.4, rng.normal(size=(4, 1))
    cases = [
        oracle.clipped_by_cases(math.exp(s), a, 0.2) for row, (a,) in zip(shift, advantage, strict=True) for s in row
    ]
    return [
        (abs(bradley_terry_loss([won], [lost]) + math.log(oracle.gumbel_race(won, lost))), 1e-9),
        (abs(sampled - oracle.regularised_value(policy, reference, reward, beta)), 1e-10),
        (abs(clipped_policy_objective(shift - 2, np.full((4, 5), -2.0), advantage) - float(np.mean(cases))), 1e-10),
    ]


def row_6_3() -> Check:
    """The adaptive penalty against its differential equation."""
    rng = np.random.default_rng(63)
    worst = 0.0
    for _ in range(40):
        kl, beta0, rate = rng.uniform(0, 20), rng.uniform(0.01, 0.5), rng.uniform(-0.2, 0.5)
        bounds = (0.02, 2.0)
        expected = oracle.grown_penalty(kl, beta0, rate, bounds)
        worst = np.max([worst, abs(adaptive_beta(kl, beta0, rate, bounds) / expected - 1)])
    return Check(
        "6.3",
        "adaptive KL: beta_0 exp(lambda KL), clipped",
        "adaptive_beta at 40 random settings",
        "d beta = lambda beta d KL integrated, then clipped (relative error)",
        float(worst),
        1e-8,
    )


def row_6_4() -> Check:
    """The observed tax: test, interval, discovery rate, split."""
    rng = np.random.default_rng(64)
    worst = _used(*_paired_test(rng), *_interval_coverage(), *_planted_split(rng))
    return Check(
        "6.4",
        "observed tax paired by item; shared and selective parts, formats resampled",
        "observed_tax, adjusted_p_values, mcnemar_interval (n = 24, 90%), split_tax on planted drops",
        "all 2^m coin flips, coverage by enumeration, planted parts and their scatter (share of allowance)",
        worst,
        1.0,
    )


def _paired_test(rng: np.random.Generator) -> list[tuple[float, float]]:
    taxes, p_values, off = {}, [], []
    for task in range(6):
        before = {f"q{i}": float(rng.random() < 0.8) for i in range(12)}
        after = {key: float(right and rng.random() < 0.3 + 0.1 * task) for key, right in reversed(before.items())}
        taxes[str(task)] = found = observed_tax(before, after, rng, draws=50)
        changes = [before[key] - after[key] for key in before]
        p_values.append(oracle.coin_flip_p(changes.count(1.0), changes.count(-1.0)))
        off += [abs(found.tax.value - sum(changes) / 12), abs(found.p_value - p_values[-1])]
    adjusted = np.array([adjusted_p_values(taxes)[task] for task in taxes])
    return [(max(off), 1e-12), (float(np.abs(adjusted - oracle.false_alarm_levels(p_values)).max()), 1e-12)]


def _interval_coverage() -> list[tuple[float, float]]:
    n = 24
    low, high = np.full((2, n + 1, n + 1), np.nan)
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            interval = mcnemar_interval(lost, gained, n)
            low[lost, gained], high[lost, gained] = interval.low, interval.high
    planted = ((0.1, 0.0), (0.3, 0.0), (0.2, 0.1), (0.05, 0.05), (0.4, 0.2))
    short = [0.9 - oracle.paired_coverage(low, high, lost, gained) for lost, gained in planted]
    return [(max(lack, 0.0), 0.03) for lack in short]


def _planted_split(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Parts by construction, exact for each data set; and the scatter over data sets against the stated one."""
    errors, found, variances = [], [], []
    for _ in range(120):
        drops = rng.normal(0.1, 0.1, size=(2, 1)) + rng.normal(0, 0.3, size=(1, 16)) + rng.normal(0, 0.02, size=(2, 16))
        leak = rng.normal(0.5, 0.2, size=(2, 16))
        before = rng.normal(size=(2, 16, 4))
        after = before - leak[..., None]
        after[..., 0] -= drops
        split = split_tax(_by_name(before), _by_name(after), rng, draws=100)
        errors += [abs(split.selective.value - drops.mean()), abs(split.shared.value - leak.mean())]
        found.append(split.selective.value)
        variances.append(split.selective.se**2)
    return [(max(errors), 1e-10), (abs(float(np.mean(variances) / np.var(found, ddof=1)) - 1), 0.4)]


def _by_name(scores: np.ndarray) -> dict[str, dict[str, list[float]]]:
    return {f"f{f}": {f"q{i}": row.tolist() for i, row in enumerate(rows)} for f, rows in enumerate(scores)}


def row_6_5() -> Check:
    """Over-optimisation curves, their peaks, KL of best-of-n."""
    rng = np.random.default_rng(65)
    pairs = [(abs(float(best_of_n_kl(n)) - oracle.best_of_n_kl_by_quadrature(n)), 1e-9) for n in (1, 2, 5, 16, 60)]
    forms: tuple[Form, Form] = ("best-of-n", "policy")
    for form in forms * 3:
        kl = np.geomspace(0.05, 12, 9)
        alpha, beta = rng.uniform(0.8, 1.4), rng.uniform(0.3, 0.6)
        gold = np.array([oracle.gold_curve(alpha, beta, math.sqrt(x), form) for x in kl]) + rng.normal(0, 0.02, size=9)
        fit = fit_overoptimisation(kl, gold, form, rng, draws=100)
        a, b = (float(c) for c in oracle.curve_by_search(kl, gold, form))
        distance, height = oracle.peak_by_search(a, b, form, 40.0)
        pairs += [(abs(fit.alpha.value - a), 1e-6), (abs(fit.beta.value - b), 1e-6)]
        pairs += [(abs(fit.peak_kl.value / distance**2 - 1), 1e-4), (abs(fit.peak_gold.value / height - 1), 1e-5)]
    return Check(
        "6.5",
        "over-optimisation d(alpha - beta d) and d(alpha - beta log d), their peaks; KL of best-of-n",
        "fit_overoptimisation on 6 noisy curves, best_of_n_kl up to 60",
        "simplex search, golden section on the curve, quadrature (share of allowance)",
        _used(*pairs),
        1.0,
    )


def row_6_6() -> Check:
    """Power laws with and without a floor, and what their intervals cover."""
    rng = np.random.default_rng(66)
    pairs, covered = [], []
    for floor in (False, True, True):
        x, weights = np.geomspace(1, 1e4, 7), rng.uniform(0.5, 2, size=7)
        y = (4 * x**-0.4 + 1.2 * floor) * np.exp(0.01 * rng.normal(size=7))
        law = fit_power_law(x, y, floor, weights, Resampling(draws=20))
        scale, exponent, bottom = oracle.power_law_by_search(x, y, weights, floor)
        pairs += [(abs(law.exponent.value - exponent), 1e-4), (abs(math.log(law.scale) - scale), 1e-4)]
        pairs += [(abs(law.floor.value - bottom), 1e-4)]
    for seed in range(250):
        x = np.geomspace(1, 100, 6)
        law = fit_power_law(x, x**1.2 * np.exp(0.1 * rng.normal(size=6)), resampling=Resampling(400, seed=seed))
        covered.append(law.exponent.low <= 1.2 <= law.exponent.high)
    return Check(
        "6.6",
        "power laws L = (N_c/N)^alpha (+ L_inf), weighted, with bootstrap intervals",
        "fit_power_law on 3 noisy laws; coverage of 90% intervals over 250 laws of 6 points",
        "simplex search from many starts; planted exponent (share of allowance)",
        _used(*pairs, (abs(float(np.mean(covered)) - 0.9), 0.05)),
        1.0,
    )


def row_6_7() -> Check:
    """Choice among candidates."""
    rng = np.random.default_rng(67)
    wrong = 0.0
    for _ in range(60):
        scores = rng.integers(0, 7, size=(8, 3)).astype(float) + (rng.random() < 0.5) * rng.random((8, 3))
        both, weight = scores[:, :2] + 1e-6 * rng.random((8, 2)), float(rng.uniform(0.05, 0.95))
        minimum = float(np.median(both[:, 1]))
        chosen = weighted_choice(both[:, 0], both[:, 1], weight), constrained_choice(both[:, 0], both[:, 1], minimum)
        expected = (
            oracle.best_by_loop(both.tolist(), -math.inf, weight),
            oracle.best_by_loop(both.tolist(), minimum, 1.0),
        )
        volume, boxes = hypervolume(scores, [1.0, 2.0, 1.5]), oracle.union_of_boxes(scores, np.array([1.0, 2.0, 1.5]))
        differ = chosen != expected or pareto_set(scores).tolist() != oracle.undominated(scores)
        wrong = np.max([wrong, float(differ), abs(volume - boxes)])
    return Check(
        "6.7",
        "weighted choice, best C with A >= A_min, Pareto set, hypervolume",
        "the choices on 60 sets of 8 candidates, with ties",
        "one after the other, pair by pair, inclusion and exclusion of boxes (a wrong index counts 1)",
        float(wrong),
        1e-9,
    )


ROWS: tuple[Row, ...] = (row_6_1, row_6_2, row_6_3, row_6_4, row_6_5, row_6_6, row_6_7)
