"""Safety depth in a trained network whose harm is exact: one world and seed, from pretraining to curves by position (theory 4, 5).

The question of P5: KL of the aligned model must lie where harm is decided, and move when the deciding word moves. Beside it stands
all that could put it there without theory: entropy of the base, KL of a benign fine-tune, 1/t. For P6 the same base is taught the
recovery objective alone, whose optimum is known with `mu` and `gamma` as they were set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.special

from ..audit import late_kl, late_numbers, masses
from ..depth import HarmCurve, harm_curve, horizon_gap, log_form_recovery
from ..geometry.arrays import Array
from ..lab.world import World, harm_information, requests
from ..predictions import DepthWorld, RecoveryWorld
from ..results import plain, write_json
from .scale_depth_read import (
    Bench,
    by_position,
    compare,
    entropy_by_position,
    equilibrium,
    gold_judge,
    harmful_rows,
    longest,
    opened,
    reward_judge,
    text_of,
)
from .scale_depth_score import DepthScore, score_profiles
from .scale_depth_train import DepthPlan, Trained, trained

DECIDED = (1, 8, 20)
SEEDS = (0, 1, 2)
PREDICTORS = ("harm information", "base entropy by position", "KL of a benign fine-tune", "1/t")
FEWEST = 8
"""Harmful replies that must reach a depth for its mean to count."""
PLAN = DepthPlan()
Number = float | None


@dataclass(frozen=True)
class DepthReading:
    """One world and seed; curves are by position 1..T of a reply to held-out harmful requests, in nats unless said otherwise.

    `kl`, `benign_kl`: of the model's own replies to the base. `information`, `exact_information`: squared harm, of the base's
    rollouts and of the law of the documents. `equilibrium_kl`: the closed form. `horizon`: tokens, under gold harm;
    `reward_horizon` under the trained reward on the same rollouts, `horizon_gap` the difference. `late_*`: KL past the deciding
    word a position and what recovery it bought. `recovery_*`: mean log-odds of recovery after prefixes of 0.. tokens of harmful
    replies: base, taught, foretold, and under the standard objective; `taught_kl` what the teaching cost there.
    """

    decided: int
    seed: int
    strength: float
    mu: float
    gamma: float
    harm_base: float
    harm_aligned: float
    refusal_aligned: float
    equilibrium_harm: float
    kl: list[float]
    information: list[float]
    exact_information: list[float]
    equilibrium_kl: list[float]
    entropy: list[float]
    benign_kl: list[float]
    horizon: Number
    reward_horizon: Number
    horizon_gap: list[Number]
    late_verdict: str
    late_kl: list[Number]
    late_rise: list[Number]
    recovery_base: list[float]
    recovery_taught: list[float]
    recovery_foretold: list[float]
    recovery_standard: list[float]
    taught_kl: list[float]


def depth_reading(folder: Path, decided: int, seed: int, plan: DepthPlan = PLAN) -> DepthReading:
    """Train and read one world and seed in `folder`; what is there is not made again."""
    record = folder / "reading.json"
    if record.exists():
        return msgspec.json.decode(record.read_bytes(), type=DepthReading)
    world = World(0, decided)
    models = trained(folder, world, seed, plan)
    found = _read(folder, world, models, seed, plan)
    write_json(record, plain(found))
    return msgspec.json.decode(record.read_bytes(), type=DepthReading)


def depth_readings(folder: Path, plan: DepthPlan = PLAN) -> list[DepthReading]:
    """Every deciding position and seed."""
    return [depth_reading(folder / f"{decided}-{seed}", decided, seed, plan) for seed in SEEDS for decided in DECIDED]


def depth_worlds(readings: Sequence[DepthReading]) -> list[DepthWorld]:
    """The readings as `score_depth` of the predictions takes them (P5); as JSON they are inputs of `aligntax predict P5`."""
    return [
        DepthWorld(
            f"network, decided at {one.decided}, seed {one.seed}", one.decided,
            *(np.asarray(row) for row in (one.kl, one.information, one.entropy, one.benign_kl)),
        )
        for one in readings
    ]  # fmt: skip


def recovery_worlds(readings: Sequence[DepthReading]) -> list[RecoveryWorld]:
    """The readings as `score_recovery` of the predictions takes them (P6): mean log-odds by depth of prefix."""
    return [
        RecoveryWorld(
            f"network, decided at {one.decided}, seed {one.seed}",
            *(np.asarray(row) for row in (one.recovery_base, one.recovery_taught, one.recovery_foretold)),
        )
        for one in readings
    ]  # fmt: skip


def score_shares(readings: Sequence[DepthReading]) -> DepthScore:
    """P5 by another measure, fixed as well: the share of KL that lies where harm information says ([S] Cor 15)."""
    profiles: dict[str, list[Array]] = {name: [] for name in PREDICTORS}
    for one in readings:
        steps = np.arange(1, len(one.kl) + 1)
        for name, values in zip(PREDICTORS, (one.information, one.entropy, one.benign_kl, 1 / steps), strict=True):
            profiles[name].append(np.asarray(values))
    return score_profiles([np.asarray(one.kl) for one in readings], profiles, [one.decided for one in readings])


def _read(folder: Path, world: World, models: Trained, seed: int, plan: DepthPlan) -> DepthReading:
    bench = Bench(world, tuple(requests(world, True, plan.prompts, seed, "held")), plan.rows, seed)
    base, aligned, benign = (opened(place) for place in (models.base, models.aligned, models.benign))
    length = longest(world)
    own, other, calm = (bench.replies(loaded) for loaded in (base, aligned, benign))
    harm_base, _ = np.mean(bench.scores(base, own), axis=0)
    harm_aligned, refusal = np.mean(bench.scores(aligned, other), axis=0)
    exact_kl, exact_harm = equilibrium(world, plan.strength)
    exact = np.zeros(length)
    exact[: world.decided] = harm_information(world, world.decided)
    typical = [(bench.asked[row.item].prompt, text_of(base, row)) for row in own[:: plan.rows]]
    gold, learned = _horizons(bench, models, folder, typical)
    gap = horizon_gap(gold, learned)
    return DepthReading(
        decided=world.decided, seed=seed, strength=plan.strength, mu=plan.mu, gamma=plan.gamma,
        harm_base=float(harm_base), harm_aligned=float(harm_aligned), refusal_aligned=float(refusal),
        equilibrium_harm=exact_harm,
        kl=by_position(compare(base, aligned, other).forward, length).tolist(),
        information=by_token(gold, length).tolist(),
        exact_information=exact.tolist(),
        equilibrium_kl=exact_kl.tolist(),
        entropy=entropy_by_position(base, own, length).tolist(),
        benign_kl=by_position(compare(base, benign, calm).forward, length).tolist(),
        horizon=_number(gold.horizon()), reward_horizon=_number(learned.horizon()),
        horizon_gap=[gap.value, gap.low, gap.high],
        **_late_and_recovery(bench, models, plan),
    )  # fmt: skip


def _horizons(bench: Bench, models: Trained, folder: Path, typical: Sequence[tuple[str, str]]) -> tuple[HarmCurve, ...]:
    """Curves of the same rollouts of the base, under exact harm and under the trained reward."""
    found = []
    for judge in (gold_judge(bench.world), reward_judge(models.reward, typical)):
        pairs = bench.paired(opened(models.base), judge, folder / "shards")
        found.append(
            harm_curve(pairs.first, pairs.second, pairs.prompts, depths=pairs.depths, rollouts="base", centred=True)
        )
    return tuple(found)


def by_token(curve: HarmCurve, length: int) -> Array:
    """Harm information of each token `(length,)` from the isotonic fit: a step of the grid is spread evenly over its tokens."""
    found, depths = np.zeros(length), np.minimum(curve.depths.astype(int), length)
    for start, stop, amount in zip(depths[:-1], depths[1:], np.diff(curve.fitted), strict=True):
        found[start:stop] = amount / max(1, stop - start)
    return found


def _late_and_recovery(bench: Bench, models: Trained, plan: DepthPlan) -> dict[str, Any]:
    """Late KL on harmful continuations of the base, and log-odds of recovery after their prefixes under every objective."""
    base, aligned, taught = (opened(place) for place in (models.base, models.aligned, models.recovering))
    rows = harmful_rows(base, bench.world, bench.asked, bench.seed + 7, plan.rows)
    standard, recovering = compare(base, aligned, rows), compare(base, taught, rows)
    before, after = masses(standard)
    late = late_kl(*late_numbers(standard.forward, after - before, standard.prompts, bench.world.decided))
    said = ~np.isnan(recovering.forward)
    deep = said.sum(axis=0) >= FEWEST
    p0 = masses(recovering)[0][:, :-1]
    x = np.broadcast_to(plan.mu * plan.gamma ** np.arange(1, p0.shape[1] + 1), p0.shape)
    foretold = np.full(p0.shape, np.nan)
    foretold[said] = scipy.special.logit(log_form_recovery(p0[said], x[said])[0])

    def mean(odds: Array) -> list[float]:
        return [float(v) for v in np.nanmean(np.where(said, odds[:, : p0.shape[1]], np.nan)[:, deep], axis=0)]

    return {
        "late_verdict": late.verdict,
        "late_kl": [late.kl.value, late.kl.low, late.kl.high],
        "late_rise": [late.rise.value, late.rise.low, late.rise.high],
        "recovery_base": mean(scipy.special.logit(masses(recovering)[0])),
        "recovery_taught": mean(scipy.special.logit(masses(recovering)[1])),
        "recovery_foretold": mean(foretold),
        "recovery_standard": mean(scipy.special.logit(after)),
        "taught_kl": [float(v) for v in np.nanmean(recovering.forward[:, deep], axis=0)],
    }


def _number(depth: float | str) -> Number:
    return None if isinstance(depth, str) else float(depth)
