"""Rollouts from exact worlds on a grid of depths: what the harm curve is fed with, and what its rivals are.

A world is a policy and its harm; several worlds stand for several prompts. Every prefix is drawn from the policy itself, so the
answers are known: `exact_curve` for the truth, `plug_in_bias` and `pooled_bias` for how wrong the rivals are on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aligntax.errors import LabError
from aligntax.lab.tabular import Array, Harm, TabularPolicy

World = tuple[TabularPolicy, Harm]


@dataclass(frozen=True, eq=False)
class Rollouts:
    """`harm` `(n, depths, K)` of K independent continuations per prefix; `prompts` `(n,)` is the world of each row.

    `depths` `(D,)` tokens; `tokens` is the number of tokens that had to be sampled, a response counted once though it is the
    first continuation of all its own prefixes.
    """

    harm: Array
    prompts: NDArray[np.int64]
    depths: NDArray[np.int64]
    tokens: int

    @property
    def first(self) -> Array:
        """First continuations `(n, depths)`."""
        return np.asarray(self.harm[:, :, 0])

    @property
    def second(self) -> Array:
        """Second continuations `(n, depths)`."""
        return np.asarray(self.harm[:, :, 1])


def sample_rollouts(
    worlds: Sequence[World], depths: Sequence[int], rows: int, rng: np.random.Generator, continuations: int = 2
) -> Rollouts:
    """`rows` responses a world; each prefix of `depths` tokens is continued until there are `continuations` of it.

    Two continuations are the pairs of `harm_curve`; more are nested Monte Carlo. The response itself is the first
    continuation of each of its prefixes: given the prefix it is one more independent draw. Raises LabError for no worlds, depths
    outside 0..T or not rising from 0, and fewer than 2 continuations or 1 row.
    """
    grid = _grid(worlds, depths)
    if rows < 1 or continuations < 2:
        raise LabError(
            f"rows={rows}, continuations={continuations}: give at least 1 row and 2 continuations of a prefix"
        )
    found = [_of_world(policy, harm, grid, (rows, continuations), rng) for policy, harm in worlds]
    length = worlds[0][0].length
    tokens = len(worlds) * rows * (length + (continuations - 1) * int((length - grid).sum()))
    return Rollouts(np.concatenate(found), np.repeat(np.arange(len(worlds)), rows), grid, tokens)


def _of_world(
    policy: TabularPolicy, harm: Harm, grid: NDArray[np.int64], size: tuple[int, int], rng: np.random.Generator
) -> Array:
    rows, count = size
    values = policy.leaf_values(harm)
    whole = policy.sample(np.zeros(rows, dtype=np.int64), 0, rng)
    found = np.empty((rows, grid.size, count))
    found[:, :, 0] = values[whole][:, None]
    for j, depth in enumerate(grid.tolist()):
        prefix = whole // policy.vocabulary ** (policy.length - depth)
        fresh = policy.sample(np.repeat(prefix, count - 1), depth, rng)
        found[:, j, 1:] = values[fresh].reshape(rows, count - 1)
    return found


def exact_curve(worlds: Sequence[World], depths: Sequence[int]) -> Array:
    """`V(t) = mean over worlds of Var(h_t)` `(D,)` by the dynamic programme: what the harm curve estimates."""
    grid = _grid(worlds, depths)
    curves = [np.concatenate([[0.0], np.cumsum(policy.harm_information(harm).information)]) for policy, harm in worlds]
    return np.asarray(np.mean(curves, axis=0)[grid])


def plug_in_curve(sampled: Rollouts) -> Array:
    """Rival 1 `(D,)`: the variance within prompts of K-sample means, too large by `plug_in_bias` on average."""
    means = sampled.harm.mean(axis=2)
    return np.array([means[sampled.prompts == x].var(axis=0, ddof=1) for x in np.unique(sampled.prompts)]).mean(axis=0)


def debiased_curve(sampled: Rollouts) -> Array:
    """Nested Monte Carlo without its bias `(D,)`: `plug_in_curve` less the variance within prefixes over K."""
    noise = sampled.harm.var(axis=2, ddof=1) / sampled.harm.shape[2]
    within = [noise[sampled.prompts == x].mean(axis=0) for x in np.unique(sampled.prompts)]
    return plug_in_curve(sampled) - np.mean(within, axis=0)


def pooled_curve(sampled: Rollouts) -> Array:
    """Rival 2 `(D,)`: the covariance of paired continuations over all rows, prompts forgotten; too large by `pooled_bias`."""
    a, b = sampled.first, sampled.second
    return np.asarray(((a - a.mean(axis=0)) * (b - b.mean(axis=0))).sum(axis=0) / (len(a) - 1))


def plug_in_bias(worlds: Sequence[World], depths: Sequence[int], continuations: int) -> Array:
    """`mean over worlds of E Var(H | y_<=t) / K` `(D,)`, exact: decided harm leaves no noise to be mistaken for signal.

    One response shared by all depths changes nothing about it.
    """
    grid = _grid(worlds, depths)
    total = np.mean([policy.harm_information(harm).variance for policy, harm in worlds])
    return np.asarray((total - exact_curve(worlds, grid.tolist())) / continuations)


def pooled_bias(worlds: Sequence[World], rows: int) -> float:
    """`n/(n-1) Var over worlds of h_0`, `n = rows x worlds`: the variance between prompts, booked at every depth."""
    n = rows * len(worlds)
    return n / (n - 1) * float(np.var([policy.harm_information(harm).mean for policy, harm in worlds]))


def _grid(worlds: Sequence[World], depths: Sequence[int]) -> NDArray[np.int64]:
    if not worlds:
        raise LabError("no worlds: give at least one (policy, harm)")
    lengths = {policy.length for policy, _ in worlds}
    if len(lengths) > 1:
        raise LabError(f"worlds of {sorted(lengths)} tokens; one grid of depths needs one length")
    grid = np.asarray(depths, dtype=np.int64)
    length = lengths.pop()
    if grid.ndim != 1 or grid.size < 2 or grid[0] != 0 or not (np.diff(grid) > 0).all() or grid[-1] > length:
        raise LabError(f"depths {grid.tolist()}: give at least two, rising from 0 to at most {length}")
    return grid
