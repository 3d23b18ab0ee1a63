"""P5, P6 and P7: does what depth theory says by position hold where parameters are shared and training stops somewhere?"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from ..audit.late import equivalence_p
from ..results.prediction import Cell
from ..stats import Estimate, bootstrap_interval, empirical_p, spearman
from ..stats.choose_confirm import interval
from ..stats.rank_correlation import Array, unit_ranks
from .depth_worlds import AttackWorld, DepthWorld, RecoveryWorld, attack_world, depth_world, recovery_world
from .protocol import PROTOCOLS, Protocol
from .scored import UNDEFINED, Scored, decide, empty, shortage

Arrays = dict[str, np.ndarray]
Keep = Callable[[str, Callable[[], Arrays]], Arrays]
"""Given a world's name and how to make it, its arrays: made, or read from where they were kept."""


def made(_: str, make: Callable[[], Arrays]) -> Arrays:
    """Nothing is kept: every world is made."""
    return make()


LOG_ODDS = ("base", "trained", "foretold")


def numbers(text: object) -> list[float]:
    """The numbers of a setting such as `0.3,0.5`."""
    return [float(part) for part in str(text).split(",")]


def make_depth_worlds(seed: int, keep: Keep = made, protocol: Protocol = PROTOCOLS["P5"]) -> list[DepthWorld]:
    """The worlds of P5."""
    found = []
    size = int(protocol.setting("vocabulary")), int(protocol.setting("length"))
    for deciding in map(int, numbers(protocol.setting("deciding positions"))):
        for k in range(int(protocol.setting("worlds a position"))):

            def make(deciding: int = deciding, k: int = k) -> Arrays:
                parameters, strength = int(protocol.setting("shared parameters")), float(protocol.setting("strength"))
                return _arrays(depth_world(deciding, 1000 * seed + k, size, parameters, strength))

            name = f"decided at {deciding}, seed {1000 * seed + k}"
            found.append(DepthWorld(name, deciding, **keep(name, make)))
    return found


def _arrays(world: object) -> Arrays:
    return {name: value for name, value in vars(world).items() if isinstance(value, np.ndarray)}


def score_depth(worlds: Sequence[DepthWorld], seed: int, protocol: Protocol = PROTOCOLS["P5"]) -> Scored:
    """P5 from any worlds, ours or trained networks: rank correlation of KL and harm information by position, worlds resampled."""
    n = {"worlds": len(worlds), "deciding positions": len({world.deciding for world in worlds})}
    if len(worlds) < 2:
        return empty(protocol, n, "fewer than two worlds have no interval")
    draws, rng = int(protocol.setting("draws")), np.random.default_rng([seed, 5])
    names = ["harm information", *protocol.baselines]
    table = np.array([[_correlation(w.kl, x) for x in _rivals(w)] for w in worlds])
    picks = rng.integers(len(worlds), size=(draws, len(worlds)))
    sample = np.nanmean(table[picks], axis=1)
    values = np.nanmean(table, axis=0)
    best = int(np.nanargmax(values[1:])) + 1
    ranks = [(unit_ranks(w.kl), unit_ranks(w.information)) for w in worlds]
    shuffled = [rng.permuted(np.tile(other, (draws, 1)), axis=1) @ own for own, other in ranks]
    null = np.nanmean(shuffled, axis=0)
    p = empirical_p(float(values[0]) - 1e-9, null)
    estimates = {name: interval(float(values[k]), sample[:, k]) for k, name in enumerate(names)}
    estimate = estimates.pop("harm information")
    ahead = interval(float(values[0] - values[best]), sample[:, 0] - sample[:, best])
    verdict, why = decide(protocol, estimate, ahead, p, n)
    low = [f"{w.name}: {row[0]:.2f}" for w, row in zip(worlds, table, strict=True) if not row[0] > 0.5]
    rows: list[dict[str, Cell]] = [
        {
            "world": w.name,
            **{k: round(float(v), 3) for k, v in zip(names, row, strict=True)},
            "late KL share": round(_late(w), 3),
        }
        for w, row in zip(worlds, table, strict=True)
    ]
    return Scored(
        estimate, estimates, ahead, p, verdict, f"best baseline: {names[best]}; {why}", n, [seed],
        negatives=[f"worlds where KL hardly follows harm information: {'; '.join(low)}"] if low else [],
        tables={"worlds": rows},
    )  # fmt: skip


def _rivals(world: DepthWorld) -> list[Array]:
    return [world.information, world.entropy, world.benign, 1.0 / np.arange(1, len(world.kl) + 1)]


def _correlation(x: Array, y: Array) -> float:
    return float(spearman(x, y))


def _late(world: DepthWorld) -> float:
    """Share of the KL that falls where nothing is left to decide; by theory 4.7 it is incidental."""
    last = int(np.flatnonzero(world.information)[-1]) + 1
    return float(world.kl[last:].sum() / world.kl.sum())


def make_recovery_worlds(seed: int, keep: Keep = made, protocol: Protocol = PROTOCOLS["P6"]) -> list[RecoveryWorld]:
    """The worlds of P6."""
    found = []
    size = int(protocol.setting("vocabulary")), int(protocol.setting("length")), int(protocol.setting("horizon"))
    penalty = float(protocol.setting("mu")), float(protocol.setting("gamma"))
    effort = int(protocol.setting("shared parameters")), int(protocol.setting("steps"))
    for mass in numbers(protocol.setting("base recovery mass")):
        for k in range(int(protocol.setting("worlds a mass"))):

            def make(mass: float = mass, k: int = k) -> Arrays:
                return _arrays(recovery_world(mass, 1000 * seed + k, size, penalty, effort))

            name = f"mass {mass:g}, seed {1000 * seed + k}"
            found.append(RecoveryWorld(name, **keep(name, make)))
    return found


def score_recovery(worlds: Sequence[RecoveryWorld], seed: int, protocol: Protocol = PROTOCOLS["P6"]) -> Scored:
    """P6: skill of the closed form over the best baseline, worlds resampled. One baseline knows the mean rise, ours nothing."""
    n = {"worlds": len(worlds), "depths": sum(len(world.trained) for world in worlds)}
    if len(worlds) < 2:
        return empty(protocol, n, "fewer than two worlds have no interval")
    table = np.array([_squared_errors(world) for world in worlds])
    best = int(np.argmin(table[:, 1:].mean(axis=0))) + 1
    rng, draws = np.random.default_rng([seed, 6]), int(protocol.setting("draws"))

    def skill(column: int) -> Callable[[Array], float]:
        return lambda rows: float(1 - rows[:, column].mean() / rows[:, best].mean())

    estimate = bootstrap_interval(table, skill(0), rng, draws)
    baselines = {name: bootstrap_interval(table, skill(k), rng, draws) for k, name in enumerate(protocol.baselines, 1)}
    few = shortage(protocol, n)
    verdict, why = "undecided", few or "the interval of the skill holds 0"
    if not few and estimate.low > 0:
        verdict, why = "supported", "the interval of the skill lies above 0"
    if not few and estimate.high < 0:
        verdict, why = "contradicted", "the interval of the skill lies below 0"
    rows: list[dict[str, Cell]] = [
        {
            "world": w.name,
            "depth past the horizon": k + 1,
            **{key: round(float(v), 3) for key, v in zip(LOG_ODDS, own, strict=True)},
        }
        for w in worlds
        for k, own in enumerate(zip(w.base, w.trained, w.foretold, strict=True))
    ]
    far = [
        f"{w.name}: log-odds off by {float(np.abs(w.trained - w.foretold).max()):.2f} at worst"
        for w in worlds if float(np.abs(w.trained - w.foretold).max()) > 0.5
    ]  # fmt: skip
    return Scored(
        estimate, baselines, estimate, float("nan"), verdict,  # type: ignore[arg-type]
        f"best baseline: {protocol.baselines[best - 1]}; {why}", n, [seed], negatives=far, tables={"log-odds": rows},
    )  # fmt: skip


def _squared_errors(world: RecoveryWorld) -> list[float]:
    """Mean squared error in log-odds: the closed form, the base plus the mean rise, the base."""
    rise = world.trained - world.base
    told = world.foretold - world.base
    return [
        float(np.mean(np.square(rise - guess)))
        for guess in (told, np.full_like(rise, rise.mean()), np.zeros_like(rise))
    ]


def make_attack_worlds(seed: int, keep: Keep = made, protocol: Protocol = PROTOCOLS["P7"]) -> list[AttackWorld]:
    """The worlds of P7."""
    found = []
    ratios = numbers(protocol.setting("weight of a position over that of the one before"))
    size = int(protocol.setting("vocabulary")), int(protocol.setting("length"))
    strength, level = float(protocol.setting("strength")), float(protocol.setting("horizon level"))
    settings = int(protocol.setting("shared parameters")), strength, level
    for k in range(int(protocol.setting("worlds"))):

        def make(ratio: float = ratios[k % len(ratios)], k: int = k) -> Arrays:
            world = attack_world(ratio, 1000 * seed + k, size, settings)
            return {"reached": world.reached, "horizon": np.array(world.horizon)}

        name = f"ratio {ratios[k % len(ratios)]:g}, seed {1000 * seed + k}"
        kept = keep(name, make)
        found.append(AttackWorld(name, kept["reached"], int(kept["horizon"])))
    return found


def score_attacks(worlds: Sequence[AttackWorld], seed: int, protocol: Protocol = PROTOCOLS["P7"]) -> Scored:
    """P7: two one-sided tests that the longest prefill gains less than the margin over one just past the horizon."""
    usable = [w for w in worlds if w.horizon + 1 < len(w.reached) - 2]
    n = {"worlds": len(usable), "worlds without room past the horizon": len(worlds) - len(usable)}
    if len(usable) < 2 or protocol.margin is None:
        return empty(protocol, n, "fewer than two worlds have room past the horizon")
    gain = np.array([w.reached[-2] - w.reached[w.horizon + 1] for w in usable])
    short = np.array([w.reached[-2] - w.reached[w.horizon // 2] for w in usable])
    estimate, rival = (_t_interval(x) for x in (gain, short))
    p, margin, few = equivalence_p(gain, protocol.margin), protocol.margin, shortage(protocol, n)
    verdict, why = "undecided", few or f"the interval is not within {margin} of 0 (p = {p:.3g})"
    if not few and -margin < estimate.low and estimate.high < margin:
        verdict, why = "supported", f"the gain of a longer prefill lies within {margin} of 0 (p = {p:.3g})"
    if not few and (estimate.low > margin or estimate.high < -margin):
        verdict, why = "contradicted", f"the gain of a longer prefill lies beyond {margin}"
    rows: list[dict[str, Cell]] = [
        {
            "world": w.name,
            "horizon": w.horizon,
            "gain": round(float(g), 4),
            "gain from half the horizon": round(float(s), 4),
        }
        for w, g, s in zip(usable, gain, short, strict=True)
    ]
    past = [f"{w.name}: {g:.3f}" for w, g in zip(usable, gain, strict=True) if abs(g) > margin]
    return Scored(
        estimate, {protocol.baselines[0]: rival}, UNDEFINED, p, verdict, why, n, [seed],  # type: ignore[arg-type]
        negatives=[f"worlds where a longer prefill gains more than {margin}: {'; '.join(past)}"] if past else [],
        tables={"worlds": rows},
    )  # fmt: skip


def _t_interval(values: Array) -> Estimate:
    se = float(values.std(ddof=1) / np.sqrt(len(values)))
    half = float(stats.t.ppf(0.95, len(values) - 1)) * se
    return Estimate(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, se)
