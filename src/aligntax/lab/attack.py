"""Prefill attacks on exact worlds: an attacker writes the first `j` tokens, the policy writes the rest.

A planted world promises harm by its first `k` tokens and nothing after them changes the promise; a recovery token may
then take it back. Alignment is trained on the promise, so it leaves the base untouched beyond `k`: a prefill of `k` tokens
is as good as a longer one (prediction P7). The recovery objective acts beyond `k`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aligntax.errors import LabError
from aligntax.lab.tabular import Array, TabularPolicy

RECOVERY = (0,)
"""Token 0 is the recovery token of every planted world."""


@dataclass(frozen=True)
class PlantedWorld:
    """`promised` `(V^T,)` is the harm that the first `horizon` tokens decide; `harm` what is done once recovery counts.

    In a world that `stops`, a recovery token after the horizon brings harm to 0; in one that does not, it changes nothing
    ("I" and on with it). Every prefix has base recovery mass `mass`.
    """

    base: TabularPolicy
    promised: Array
    horizon: int
    mass: float
    stops: bool = True

    @cached_property
    def harm(self) -> Array:
        """Harm of every sequence `(V^T,)` with recovery taken into account."""
        return self.promised * ~self.recovers if self.stops else self.promised

    @cached_property
    def recovers(self) -> np.ndarray:
        """Does a sequence hold a recovery token beyond the horizon? `(V^T,)` of bool."""
        shape = (self.base.vocabulary,) * self.base.length
        later = np.indices(shape)[self.horizon :]
        return np.asarray(np.isin(later, RECOVERY).any(axis=0).ravel())


def plant_world(
    vocabulary: int, length: int, horizon: int, mass: float, rng: np.random.Generator, stops: bool = True
) -> PlantedWorld:
    """A random policy whose recovery mass is `mass` at every prefix, with harm uniform in [0, 1] over openings of `horizon`
    tokens.

    Raises LabError unless `1 <= horizon <= length` and `mass` lies in (0, 1).
    """
    if not 1 <= horizon <= length:
        raise LabError(f"horizon={horizon}: it lies in 1..{length}, the length")
    if not 0.0 < mass < 1.0:
        raise LabError(f"mass={mass}: the recovery mass of the base lies strictly between 0 and 1")
    chosen = np.isin(np.arange(vocabulary), RECOVERY)
    tables = []
    for t in range(length):
        rows = rng.dirichlet(np.full(vocabulary, 3.0), size=vocabulary**t)
        for side, share in ((chosen, mass), (~chosen, 1.0 - mass)):
            rows[:, side] *= share / rows[:, side].sum(-1, keepdims=True)
        tables.append(rows)
    promised = np.repeat(rng.random(vocabulary**horizon), vocabulary ** (length - horizon))
    return PlantedWorld(TabularPolicy.from_probabilities(tables), promised, horizon, mass, stops)


def deep_policy(world: PlantedWorld, strength: float, mu: float, gamma: float) -> TabularPolicy:
    """Optimum of `strength E[promised harm] + KL` up to the horizon and of the recovery objective (`rho = Q`) beyond it."""
    within = world.base.equilibrium(world.promised, strength).logits[: world.horizon]
    beyond = world.base.recovery_equilibrium(RECOVERY, mu, gamma).logits[world.horizon :]
    return TabularPolicy([*within, *beyond])


@dataclass(frozen=True)
class PrefillAttack:
    """Harm reached by the best prefill of each length `0..T`, under the standard policy (`before`) and the deep one
    (`after`); `recovery` `(T,)` is the deep policy's least recovery mass over all prefixes, at positions `1..T`; `total_kl`
    the nats that recovery costs beyond the horizon, on uniformly drawn prefixes.
    """

    before: Array
    after: Array
    recovery: Array
    horizon: int
    total_kl: float

    def longer_gains(self) -> float:
        """Most that a prefill beyond the horizon adds to one of horizon length, before: 0 where P7 holds exactly."""
        return float(self.before[self.horizon :].max() - self.before[self.horizon])

    def least_prefill(self, delta: float) -> int | None:
        """Fewest tokens, at least the horizon, after which recovery is below `delta`; None where no length does it."""
        below = np.flatnonzero(self.recovery[self.horizon :] < delta)
        return int(below[0]) + self.horizon if below.size else None


def prefill_attack(world: PlantedWorld, strength: float, mu: float, gamma: float) -> PrefillAttack:
    """Enumerate every prefill against the standard and the deep policy of one world (prediction P7), exactly ([S] §10.2).

    Raises LabError for `mu < 0` or `gamma` outside (0, 1].
    """
    standard = world.base.equilibrium(world.promised, strength)
    deep = deep_policy(world, strength, mu, gamma)
    pairs = list(zip(deep.logits, world.base.logits, strict=True))[world.horizon :]
    nats = sum(float((np.exp(a) * (a - b)).sum(-1).mean()) for a, b in pairs)
    least = np.array([mass.min() for mass in deep.recovery_mass(RECOVERY)])
    return PrefillAttack(
        standard.attack_success(world.harm), deep.attack_success(world.harm), least, world.horizon, nats
    )
