"""What an answer about harm by depth costs: pairs of rollouts against nested Monte Carlo with K = 16 continuations.

The number is squared error summed over depths 1..T, times sampled tokens, as a ratio of the pairs to the rival; below one
the pairs need fewer tokens for the same answer. `plain` and `centred` are the two forms of the harm curve. Rivals at K = 16:
`squares`, the formula of the plain form with squared 16-sample means in place of products (goal 1/5), and the variance of
16-sample means as it comes (`plug-in`, goal 1/5; its squared error is mostly bias, and so the ratio falls with more tokens) or
with its bias taken out (`debiased`, no goal: pairs are better where prefixes differ in harm, and 16 continuations where hardly
any does). All estimates of one world use about the same number of tokens; `variance alone` leaves bias out.
The room is numpy, so that --device changes nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from measure import Line, calibrated, options

from aligntax.depth import harm_curve
from aligntax.lab import (
    Rollouts,
    TabularPolicy,
    debiased_curve,
    exact_curve,
    plug_in_curve,
    sample_rollouts,
)

V, T, K, PROMPTS = 4, 6, 16, 8
DEPTHS = list(range(T + 1))
RATIOS = [
    ("centred", "plug-in", "<= 0.2"),
    ("plain", "squares", "<= 0.2"),
    ("centred", "squares", "<= 0.2"),
    ("plain", "plug-in", ""),
    ("centred", "debiased", ""),
    ("plain", "debiased", ""),
]
UNIT = "error^2 x tokens"
World = tuple[TabularPolicy, np.ndarray]


def decided(horizon: int, common: float) -> Callable[[np.random.Generator], World]:
    """Harm 0 or 1, settled by the first `horizon` tokens, harmful with probability `common`."""

    def make(rng: np.random.Generator) -> World:
        early = (rng.random(V**horizon) < common).astype(float)
        return TabularPolicy.random(V, T, rng), np.repeat(early, V ** (T - horizon))

    return make


def smooth(rng: np.random.Generator) -> World:
    """Graded harm, to which every token adds, the early ones more."""
    tokens = np.indices((V,) * T).reshape(T, -1)
    total = sum(0.8**t * rng.standard_normal(V)[tokens[t]] for t in range(T))
    return TabularPolicy.random(V, T, rng), 1.0 / (1.0 + np.exp(-2.0 * np.asarray(total)))


WORLDS = {
    "settled by 2 of 6": decided(2, 0.5),
    "settled by 4 of 6": decided(4, 0.5),
    "rare, settled by 4": decided(4, 0.1),
    "last token decides": decided(6, 0.5),
    "smooth": smooth,
}


def squares_curve(sampled: Rollouts) -> np.ndarray:
    """The contract's formula with squares of K-sample means in place of products of pairs."""
    means = sampled.harm.mean(axis=2) ** 2
    return np.asarray((means - means[:, :1]).mean(axis=0))


def pairs_curve(centred: bool) -> Callable[[Rollouts], np.ndarray]:
    """The harm curve of the package, plain or centred."""
    return lambda x: harm_curve(x.first, x.second, x.prompts, depths=x.depths, centred=centred).variance


ESTIMATORS: dict[str, tuple[int, Callable[[Rollouts], np.ndarray]]] = {
    "plain": (2, pairs_curve(False)),
    "centred": (2, pairs_curve(True)),
    "plug-in": (K, plug_in_curve),
    "squares": (K, squares_curve),
    "debiased": (K, debiased_curve),
}


def costs(make: Callable[[np.random.Generator], World], repeats: int) -> dict[str, tuple[float, float]]:
    """Squared error x tokens and variance x tokens of every estimator, summed over depths."""
    rng = np.random.default_rng(1)
    worlds = [make(rng) for _ in range(PROMPTS)]
    truth = exact_curve(worlds, DEPTHS)
    pair = sample_rollouts(worlds, DEPTHS, 1, rng).tokens
    nested = sample_rollouts(worlds, DEPTHS, 1, rng, K).tokens
    rows = {2: round(24 * nested / pair), K: 24}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ESTIMATORS}
    tokens = {}
    for seed in range(repeats):
        for count, number in rows.items():
            drawn = sample_rollouts(worlds, DEPTHS, number, np.random.default_rng([seed, count]), count)
            tokens[count] = drawn.tokens
            for name, (continuations, estimate) in ESTIMATORS.items():
                if continuations == count:
                    found[name].append(estimate(drawn) - truth)
    answer = {}
    for name, errors in found.items():
        spread, used = np.array(errors), tokens[ESTIMATORS[name][0]]
        answer[name] = float((spread**2).mean(0).sum() * used), float(spread.var(axis=0).sum() * used)
    return answer


def line(ours: str, rival: str, goal: str, world: str, cost: dict[str, tuple[float, float]]) -> Line:
    """One estimator over one rival in one world."""
    value = cost[ours][0] / cost[rival][0]
    note = f"variance alone {cost[ours][1] / cost[rival][1]:.3g}"
    peers = {rival: cost[rival][0]}
    return Line(f"{world}: {ours} / {rival}", value, goal, note, UNIT, cost[ours][0], peers, "less", detail=True)


def main() -> None:
    """Every world, every rival; the worst world of each; print and save."""
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=300)
    given = parser.parse_args()
    with calibrated("cpu", given.json, "float64") as run:
        found: dict[tuple[str, str, str], list[Line]] = {ratio: [] for ratio in RATIOS}
        for name, make in WORLDS.items():
            cost = costs(make, given.repeats)
            for ratio in RATIOS:
                found[ratio].append(line(*ratio, name, cost))
                run.add(found[ratio][-1])
        for (ours, rival, goal), lines in found.items():
            worst = max(lines, key=lambda x: x.value)
            name = f"{ours} pairs / {rival}, worst of {len(lines)} worlds"
            run.add(replace(worst, name=name, note=worst.name.partition(":")[0], detail=not goal))


if __name__ == "__main__":
    main()
