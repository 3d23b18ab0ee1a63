"""Closed worlds for P5, P6 and P7: small enough that harm information is exact, trained so that nothing else is.

Policies share their parameters over all prefixes and positions, as networks do, so training cannot reach the optimum that the
theory writes down for free logits, and pressure at one position moves the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..depth import RecoveryPenalty
from ..lab import DeepObjective, SharedPolicy, TabularPolicy, plant_world
from ..lab.attack import RECOVERY
from ..stats.rank_correlation import Array

SPREAD = 0.7
"""Standard deviation of the base's logits in nats: no token is certain, none is uniform."""
STEPS = 150
"""Steps of Adam in P5 and P7: training is over long before it has converged to the last digit."""


@dataclass(frozen=True)
class DepthWorld:
    """By position `1..T`: KL of the trained policy to its base, the base's harm information and entropy, and the KL of a benign
    fine-tune of the same strength. `deciding` is the position with most information by construction.
    """

    name: str
    deciding: int
    kl: Array
    information: Array
    entropy: Array
    benign: Array


def depth_world(deciding: int, seed: int, size: tuple[int, int], parameters: int, strength: float) -> DepthWorld:
    """A world whose harm is decided mostly at `deciding`, less before and not after; `size` is vocabulary and length."""
    rng = np.random.default_rng([seed, deciding])
    base = TabularPolicy.random(*size, rng, SPREAD)
    features = SharedPolicy.random(base, parameters, rng).features
    weights = np.exp(-np.abs(np.arange(1, size[1] + 1) - deciding) / 1.5)
    weights[deciding:] = 0.0
    harm = graded_harm(base, weights, rng)
    benign = graded_harm(base, np.ones(size[1]), rng)
    kls = [safer(base, features, payoff, strength).per_position_kl(base) for payoff in (harm, benign)]
    return DepthWorld(
        f"decided at {deciding}, seed {seed}",
        deciding,
        kls[0],
        base.harm_information(harm).information,
        entropies(base),
        kls[1],
    )


def safer(base: TabularPolicy, features: Sequence[Array], harm: Array, strength: float) -> TabularPolicy:
    """The base after STEPS steps down `strength E[harm] + KL`, its parameters shared through `features`."""
    objective = DeepObjective(base, harm, strength)
    return descended(base, features, lambda: objective, STEPS)


def descended(
    base: TabularPolicy, features: Sequence[Array], objective: Callable[[], DeepObjective], steps: int
) -> TabularPolicy:
    """`base + features . theta` after `steps` of Adam from theta = 0; `objective` is asked anew in each, as batches are drawn."""
    tables = [torch.as_tensor(f) for f in features]
    start = [torch.as_tensor(rows) for rows in base.logits]
    theta = torch.zeros(tables[0].shape[-1], dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta], lr=0.03)
    for _ in range(steps):
        loss = objective().loss()([rows + f @ theta for rows, f in zip(start, tables, strict=True)])
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    found = theta.detach().numpy()
    return TabularPolicy([rows + f @ found for rows, f in zip(base.logits, features, strict=True)])


def graded_harm(policy: TabularPolicy, weights: Array, rng: np.random.Generator) -> Array:
    """Harm `(V^T,)` in [0, 1]: a logistic of tokens' random scores, summed with `weights` by position."""
    scores = rng.standard_normal((policy.length, policy.vocabulary)) * weights[:, None]
    total = np.zeros(1)
    for row in scores:
        total = (total[:, None] + row).ravel()
    return np.asarray(1.0 / (1.0 + np.exp(-2.0 * total / max(float(np.linalg.norm(weights)), 1e-12))))


def entropies(policy: TabularPolicy) -> Array:
    """Mean entropy `(T,)` of the next token by position, nats."""
    reach = policy.prefix_probabilities()
    return np.array([float(reach[t] @ -(np.exp(rows) * rows).sum(-1)) for t, rows in enumerate(policy.logits)])


@dataclass(frozen=True)
class RecoveryWorld:
    """Log-odds of recovery by depth past the horizon `(D,)`, mean over the prefixes of training: base, trained, and foretold."""

    name: str
    base: Array
    trained: Array
    foretold: Array


def recovery_world(
    mass: float, seed: int, size: tuple[int, int, int], penalty: tuple[float, float], effort: tuple[int, int]
) -> RecoveryWorld:
    """Train the recovery objective by Adam on sampled prefixes; `size` is vocabulary, length and horizon, `penalty` `(mu, gamma)`,
    `effort` the number of shared parameters and of steps.
    """
    rng = np.random.default_rng([seed, int(1e6 * mass)])
    vocabulary, length, horizon = size
    base = plant_world(vocabulary, length, horizon, mass, rng).base
    trained = descended(
        base,
        recovery_features(base, effort[0], rng),
        lambda: DeepObjective(
            base, penalty=RecoveryPenalty(*penalty), recovery=RECOVERY, prefixes=sampled_prefixes(base, 64, rng)
        ),
        effort[1],
    )
    reach = base.prefix_probabilities()
    before, after = (_log_odds(policy, reach)[horizon:] for policy in (base, trained))
    depth = np.arange(horizon + 1, length + 1)
    return RecoveryWorld(f"mass {mass:g}, seed {seed}", before, after, before + penalty[0] * penalty[1] ** depth)


def recovery_features(base: TabularPolicy, parameters: int, rng: np.random.Generator) -> list[Array]:
    """Random features, and recovery by powers of depth: what a network may well represent, without a parameter a depth."""
    shared = SharedPolicy.random(base, parameters, rng).features
    found = []
    for t, table in enumerate(shared):
        depth = (t + 1) / base.length
        own = np.zeros((*table.shape[:2], 3))
        own[:, list(RECOVERY)] = [1.0, depth, depth**2]
        found.append(np.concatenate([0.3 * table, 3.0 * own], axis=-1))
    return found


def sampled_prefixes(policy: TabularPolicy, draws: int, rng: np.random.Generator) -> list[Array]:
    """Share of `draws` sampled responses that pass through each prefix, `(V^t,)` for `t = 0..T-1`: a batch of training."""
    leaves = policy.sample(np.zeros(draws, dtype=np.int64), 0, rng)
    v, length = policy.vocabulary, policy.length
    return [np.bincount(leaves // v ** (length - t), minlength=v**t) / draws for t in range(length)]


def _log_odds(policy: TabularPolicy, reach: tuple[Array, ...]) -> Array:
    mass = policy.recovery_mass(RECOVERY)
    return np.array([float(reach[t] @ np.log(p / (1.0 - p))) for t, p in enumerate(mass)])


@dataclass(frozen=True)
class AttackWorld:
    """Harm `(T+1,)` that a trained policy goes on to after `0..T` tokens of a harmful continuation of the base; `horizon` is
    where `level` of the base's harm variance is decided.
    """

    name: str
    reached: Array
    horizon: int


def attack_world(ratio: float, seed: int, size: tuple[int, int], settings: tuple[int, float, float]) -> AttackWorld:
    """A world whose positions decide less and less, each `ratio` of the one before; `settings` are shared parameters,
    strength and level.
    """
    rng = np.random.default_rng([seed, int(1000 * ratio)])
    base = TabularPolicy.random(*size, rng, SPREAD)
    harm = graded_harm(base, np.power(ratio, np.arange(float(size[1]))), rng)
    trained = safer(base, SharedPolicy.random(base, settings[0], rng).features, harm, settings[1])
    horizon = base.harm_information(harm).horizon(settings[2])
    assert horizon is not None
    return AttackWorld(f"ratio {ratio:g}, seed {seed}", prefilled_harm(base, trained, harm), horizon)


def prefilled_harm(base: TabularPolicy, trained: TabularPolicy, harm: Array) -> Array:
    """Mean harm of `trained` after the first `j = 0..T` tokens of responses drawn from the base in proportion to their harm."""
    leaves = np.exp(base.leaf_log_probabilities()) * harm
    attacker = leaves / leaves.sum()
    after = trained.expect(harm)
    v, length = base.vocabulary, base.length
    return np.array([float(attacker.reshape(v**t, -1).sum(-1) @ after[t]) for t in range(length + 1)])
