"""Second opinions on the pipeline's quantities: exact fractions, torch, quadrature, search and enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, stats

Array = NDArray[np.float64]


def ideal_code_bits(probabilities: Sequence[float]) -> float:
    """Length in bits of the interval that an arithmetic coder ends with, its width multiplied out in exact fractions."""
    width = Fraction(1)
    for probability in probabilities:
        width *= Fraction(probability)
    return math.log2(width.denominator) - math.log2(width.numerator)


def torch_cross_entropy(logits: Array, tokens: NDArray[np.int64], scored: NDArray[np.bool_]) -> float:
    """Shifted cross-entropy (B, T, V), (B, T) with labels of -100 where `scored` is false, as trainers compute it."""
    labels = torch.tensor(np.where(scored, tokens, -100))[:, 1:]
    scores = torch.tensor(logits)[:, :-1]
    return float(torch.nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), labels.reshape(-1)))


def gumbel_race(first: float, second: float) -> float:
    """Probability that `first` plus Gumbel noise beats `second` plus Gumbel noise, by quadrature over the first's noise."""
    distribution = stats.gumbel_r
    won, _ = integrate.quad(
        lambda noise: distribution.pdf(noise) * distribution.cdf(first + noise - second),
        -8,
        60,
        epsabs=1e-13,
        limit=400,
    )
    return float(won)


def regularised_value(policy: Array, reference: Array, reward: Array, beta: float) -> float:
    """`E[r] - beta KL(policy || reference)` by summing over all responses."""
    return float(np.dot(policy, reward) - beta * stats.entropy(policy, reference))


def best_regularised(reward: Array, reference: Array, beta: float) -> tuple[float, float]:
    """Largest `E[r] - beta KL` and the expected reward there, found by climbing in logits."""

    def loss(logits: Array) -> float:
        policy = np.exp(logits - logits.max())
        return -regularised_value(policy / policy.sum(), reference, reward, beta)

    found = optimize.minimize(loss, np.log(reference), method="BFGS", options={"gtol": 1e-9})
    policy = np.exp(found.x - found.x.max())
    return -float(found.fun), float(policy @ reward / policy.sum())


def clipped_by_cases(ratio: float, advantage: float, clip: float) -> float:
    """A good token earns by its ratio until 1 + clip, a bad one costs by its ratio from 1 - clip on."""
    if advantage >= 0:
        return advantage * (ratio if ratio <= 1 + clip else 1 + clip)
    return advantage * (ratio if ratio >= 1 - clip else 1 - clip)


def grown_penalty(kl: float, beta0: float, rate: float, bounds: tuple[float, float]) -> float:
    """Solve `d beta / d KL = rate * beta` from `beta0`, then keep it within `bounds`."""
    grown = integrate.solve_ivp(lambda _, beta: rate * beta, (0.0, kl), [beta0], rtol=1e-11, atol=1e-14).y[0, -1]
    return float(sorted((bounds[0], grown, bounds[1]))[1])


def coin_flip_p(lost: int, gained: int) -> float:
    """Share of all 2^m ways to turn m discordant items that are at least as lopsided."""
    flips = product((-1, 1), repeat=lost + gained)
    return float(np.mean([abs(sum(flip)) >= abs(lost - gained) for flip in flips]))


def paired_coverage(low: Array, high: Array, p_lost: float, p_gained: float) -> float:
    """Probability that the interval holds `p_lost - p_gained`, summed over all tables of n items.

    `low` and `high` (n+1, n+1) are the interval's ends by (lost, gained).
    """
    n = len(low) - 1
    tables = np.array([(lost, gained) for lost, gained in product(range(n + 1), repeat=2) if lost + gained <= n])
    held = [low[a, b] - 1e-12 <= p_lost - p_gained <= high[a, b] + 1e-12 for a, b in tables]
    cells = np.column_stack([tables, n - tables.sum(axis=1)])
    return float(stats.multinomial.pmf(cells, n, [p_lost, p_gained, 1 - p_lost - p_gained])[held].sum())


def false_alarm_levels(p: Sequence[float]) -> Array:
    """For each p-value the least level at which the step-up procedure, run as such, rejects it."""
    order = np.argsort(p)
    levels = np.full(len(p), np.inf)
    for level in sorted({min(p[i] * len(p) / (rank + 1), 1.0) for rank, i in enumerate(order)}, reverse=True):
        passed = [rank for rank, i in enumerate(order) if p[i] <= (rank + 1) / len(p) * level * (1 + 1e-12)]
        levels[order[: max(passed, default=-1) + 1]] = level
    return np.minimum(levels, 1.0)


def best_of_n_kl_by_quadrature(n: int) -> float:
    """KL in nats of the law `n u^(n-1)` of the largest of n uniforms against one uniform."""
    value, _ = integrate.quad(lambda u: n * u ** (n - 1) * (math.log(n) + (n - 1) * math.log(u)), 0, 1, epsabs=1e-12)
    return float(value)


def gold_curve(alpha: float, beta: float, distance: float, form: str) -> float:
    """Gold reward over its start at `distance = sqrt(KL) > 0`."""
    return distance * (alpha - beta * (distance if form == "best-of-n" else math.log(distance)))


def curve_by_search(kl: Array, gold: Array, form: str) -> Array:
    """(alpha, beta) of least squares by simplex search, one residual at a time."""

    def loss(c: Array) -> float:
        return sum((gold_curve(c[0], c[1], math.sqrt(x), form) - y) ** 2 for x, y in zip(kl, gold, strict=True))

    return _simplex(loss, np.array([1.0, 0.3]))


def peak_by_search(alpha: float, beta: float, form: str, top: float) -> tuple[float, float]:
    """The distance in (0, top) where `gold_curve` is highest, and its height: best point of a grid, then golden section."""
    grid = np.linspace(top / 4000, top, 4000)
    near = grid[int(np.argmax([gold_curve(alpha, beta, float(x), form) for x in grid]))]
    found = optimize.minimize_scalar(
        lambda x: -gold_curve(alpha, beta, float(x), form),
        bounds=(max(near - top / 2000, 1e-12), near + top / 2000),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(found.x), -float(found.fun)


def power_law_by_search(x: Array, y: Array, weights: Array, floor: bool) -> Array:
    """(log scale, exponent, floor) of weighted least squares of log y by simplex search from many starts."""

    def loss(c: Array) -> float:
        bottom = c[2] ** 2 if floor else 0.0  # a square, so that it stays at or above 0
        law = np.exp(np.clip(c[0] + c[1] * np.log(x), -700, 700)) + bottom
        return float(np.sum(weights * (np.log(y) - np.log(law)) ** 2))

    starts = [np.array([math.log(y[0]), slope, root]) for slope in (-0.6, -0.2, 0.4) for root in (0.2, 1.0)]
    best = min((_simplex(loss, start) for start in starts), key=loss)
    best = _simplex(loss, best)
    return np.array([best[0], best[1], best[2] ** 2 if floor else 0.0])


def best_by_loop(scores: Sequence[Sequence[float]], minimum: float, weight: float) -> int:
    """Of the candidates (C, A) with A >= `minimum` the first with the largest `weight C + (1 - weight) A`, one by one."""
    best = -1
    for index, (c, a) in enumerate(scores):
        if a >= minimum:
            better = (
                best < 0 or weight * c + (1 - weight) * a > weight * scores[best][0] + (1 - weight) * scores[best][1]
            )
            best = index if better else best
    return best


def undominated(points: Array) -> list[int]:
    """Indices of the points to which no other is at least equal everywhere and better somewhere, pair by pair."""
    return [
        i
        for i, p in enumerate(points)
        if not any((q >= p).all() and (q > p).any() for j, q in enumerate(points) if j != i)
    ]


def union_of_boxes(points: Array, corner: Array) -> float:
    """Volume of the union of the boxes from `corner` up to each point, by inclusion and exclusion over all subsets."""
    edges = np.maximum(points - corner, 0.0)
    return float(
        sum(
            (-1) ** (size + 1) * np.prod(edges[list(chosen)].min(axis=0))
            for size in range(1, len(points) + 1)
            for chosen in combinations(range(len(points)), size)
        )
    )


def _simplex(loss: Callable[[Array], float], start: Array) -> Array:
    options = {"xatol": 1e-10, "fatol": 1e-16, "maxiter": 4000, "maxfev": 4000}
    once = optimize.minimize(loss, start, method="Nelder-Mead", options=options).x
    return np.asarray(optimize.minimize(loss, once, method="Nelder-Mead", options=options).x)
