"""Worlds of section 4: three tokens and four positions, 81 sequences, which an oracle can list one by one."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aligntax.depth.innovations import Array
from aligntax.lab import SharedPolicy, TabularPolicy
from aligntax.lab.oracles import depth as oracle

V, T = 3, 4
CASES = 6
SMALL = 0.04


@dataclass(frozen=True)
class World:
    """A policy, the harm of its sequences, decided by `horizon` tokens, and the probabilities that the oracle listed."""

    policy: TabularPolicy
    harm: Array
    horizon: int
    chances: Array

    @classmethod
    def draw(cls, seed: int) -> "World":
        """Harm decided by 2, 3 or 4 tokens in turn, common and rare in turn."""
        rng = np.random.default_rng([4, seed])
        policy, horizon = TabularPolicy.random(V, T, rng), 2 + seed % 3
        harm = np.repeat(rng.random(V**horizon) ** (0.3, 3.0)[seed % 2], V ** (T - horizon))
        return cls(policy, harm, horizon, oracle.sequence_probabilities(policy.logits))

    def rows(self) -> Array:
        """`h_0..h_T` of the room `(V^T, T+1)`, one row a sequence."""
        expected = self.policy.harm_information(self.harm).expected
        return np.column_stack([np.repeat(values, V ** (T - t)) for t, values in enumerate(expected)])

    def listed(self, values: Array) -> Array:
        """`E[f | y_<=t]` `(V^T, T+1)` by listing."""
        return oracle.expected_by_depth(self.chances, values, V, T)


def worlds() -> list[World]:
    """The worlds on which the rows agree or do not."""
    return [World.draw(seed) for seed in range(CASES)]


def gap(first: object, second: object) -> float:
    """Largest absolute difference; nan stays nan."""
    return float(np.max(np.abs(np.asarray(first) - np.asarray(second))))


def curvature(values: Callable[[float], Array]) -> Array:
    """`lim values(x)/x^2` at 0, from two steps on both sides: errors of order `x^4`."""
    near, far = ((values(x) + values(-x)) / (2 * x**2) for x in (SMALL, 2 * SMALL))
    return np.asarray((4 * near - far) / 3)


def spreads(world: World, features: list[Array]) -> tuple[Array, Array]:
    """`Var(h_t|y_<t)` and the Fisher trace `E[|s_t|^2|y_<t]` `(V^T, T)`, both by listing."""
    means = world.listed(world.harm)
    squares = np.square(oracle.sequence_scores(world.policy.logits, features)).sum(axis=2)
    variances = [world.listed(means[:, t + 1] ** 2)[:, t] - means[:, t] ** 2 for t in range(T)]
    traces = [world.listed(squares[:, t])[:, t] for t in range(T)]
    return np.maximum(np.column_stack(variances), 0.0), np.column_stack(traces)


def bought(world: World, shared: SharedPolicy, move: Array) -> Array:
    """KL by position `(T,)` per `x^2` of a move `x theta`, for small x."""
    return curvature(lambda x: oracle.shared_kl_by_position(world.policy.logits, shared.features, x * move))
