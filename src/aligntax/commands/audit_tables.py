"""From readings and verdicts to the tables of an audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..audit import (
    ImpliedPenalty,
    KlSummary,
    MassCalibration,
    PairReading,
    Recoverability,
    calibrate_mass,
    implied_penalty,
    interruption,
    kl_by_position,
    margin_drops,
    masses,
    recoverability_at,
    recovery_curves,
    summarise_kl,
    task_bills,
)
from ..results import AttackRecord, HeldDepth, KlRecord, RecoveryRecord, TaskTax
from .audit_rates import estimated


def kl_record(reading: PairReading, text: str, rng: np.random.Generator) -> KlRecord:
    """KL by position with its summary."""
    profile = kl_by_position(reading, "aligned" if text == "aligned" else "forced")
    summary: KlSummary = summarise_kl(profile, rng)
    return KlRecord(
        text=text,
        position=profile.position.tolist(),
        mean=summary.mean.mean.tolist(),
        low=summary.mean.low.tolist(),
        high=summary.mean.high.tolist(),
        reverse=profile.mean("reverse").tolist(),
        median=profile.quantiles((0.5,))[0].tolist(),
        count=profile.count.tolist(),
        first5_share=summary.first.value,
        first5_low=summary.first.low,
        first5_high=summary.first.high,
        reach95=summary.reach.value,
        total=summary.total.value,
        responses=summary.responses,
        tokens=summary.tokens,
        reach95_low=summary.reach.low,
        reach95_high=summary.reach.high,
        longest=summary.longest,
    )


@dataclass(frozen=True)
class Judged:
    """Rollouts of one kind from prefixes of base continuations: `refused[d][k]` at depth `d` after row `k`, nan if not run."""

    depths: tuple[int, ...]
    base: Mapping[int, Mapping[int, float]]
    aligned: Mapping[int, Mapping[int, float]]

    def share(self, side: str, depth: int) -> float | None:
        """Share judged as refusing at one depth; None where nothing was rolled out."""
        found = (self.base if side == "base" else self.aligned).get(depth)
        return float(np.mean(list(found.values()))) if found else None


def calibration(reading: PairReading, judged: Judged, rng: np.random.Generator) -> MassCalibration | None:
    """Does the aligned model's mass tell which prefixes it goes on to refuse after? None where nothing was rolled out."""
    mass = masses(reading)[1]
    where = [(d, k, v) for d, rows in judged.aligned.items() for k, v in rows.items() if not np.isnan(mass[k, d])]
    if not where:
        return None
    return calibrate_mass(
        np.array([mass[k, d] for d, k, _ in where]),
        np.array([v for _, _, v in where]),
        np.array([d for d, _, _ in where]),
        reading.prompts[[k for _, k, _ in where]],
        rng,
    )


def recovery_record(
    harmful: PairReading,
    harmless: PairReading | None,
    judged: Judged,
    tokens: Sequence[tuple[int, str]],
    rng: np.random.Generator,
) -> RecoveryRecord:
    """Recovery by depth, what penalty it implies, and whether harmless answers are broken off."""
    curves, checked = recovery_curves(harmful, rng), calibration(harmful, judged, rng)
    implied = implied_penalty(harmful, rng)
    at = recoverability_at(harmful, max(judged.depths), implied, checked)
    broken = interruption(harmless, rng) if harmless is not None else None
    depths = curves.depth.tolist()
    aucs = dict(zip(checked.depths.tolist(), [e.value for e in checked.auc], strict=True)) if checked else {}
    return RecoveryRecord(
        depth=depths,
        mass_base=curves.mass_base.mean.tolist(),
        mass_aligned=curves.mass_aligned.mean.tolist(),
        low=curves.mass_aligned.low.tolist(),
        high=curves.mass_aligned.high.tolist(),
        count=curves.count.tolist(),
        judged_base=[judged.share("base", d) for d in depths],
        judged_aligned=[judged.share("aligned", d) for d in depths],
        auc=[aucs.get(d) for d in depths],
        greyed=[int(d) for d, grey in zip(checked.depths, checked.greyed, strict=True) if grey] if checked else [],
        interrupts=estimated(broken.rise, len(harmless.prompts)) if broken and harmless else None,
        interrupts_fails=bool(broken and broken.fails),
        tokens=list(tokens),
        **_penalty(implied, at),
    )


def _penalty(implied: ImpliedPenalty, at: Recoverability) -> dict[str, Any]:
    """Fields of a recovery record that speak of penalties: the implied one, what it guarantees, what would be needed."""
    return {
        "mu": implied.mu.value,
        "mu_low": implied.mu.low,
        "mu_high": implied.mu.high,
        "gamma": implied.gamma.value,
        "gamma_low": implied.gamma.low,
        "gamma_high": implied.gamma.high,
        "fit": implied.r2,
        "delta": at.delta,
        "delta_depth": at.depth,
        "delta_tail": at.low,
        "delta_base": at.base,
        "delta_implied": at.implied,
        "delta_responses": at.responses,
        "needed_mu": at.penalty,
        "needed_flat": at.flat_penalty,
    }


def held_depth(attacks: Sequence[AttackRecord], p_value: float | None) -> HeldDepth | None:
    """How deep the refusals that alignment added are held, from greedy prefills; `p_value` is that of the gain without any."""
    rows = sorted((r for r in attacks if (r.kind, r.method) == ("prefill", "greedy") and r.n), key=lambda r: r.depth)
    gains = [
        (r.depth, r.success_base - r.success_aligned)
        for r in rows
        if r.success_base is not None and r.success_aligned is not None
    ]
    if not gains or gains[0][0] != 0:
        return None
    first = gains[0][1]
    if not first > 0:
        return HeldDepth(first, p_value, None, None, rows[0].n)
    lost = next((depth for depth, gain in gains if gain < first / 2 - 1e-9), None)
    held = max(depth for depth, _ in gains if lost is None or depth < lost)
    return HeldDepth(first, p_value, held, lost, rows[0].n)


Scores = Mapping[str, Mapping[str, Sequence[float]]]


def tax_table(
    scores: Mapping[str, tuple[Scores, Scores]], forecast: Mapping[str, float], rng: np.random.Generator
) -> list[TaskTax]:
    """Observed tax of every task: intervals over items and formats, p of the margin over tasks."""
    found = []
    for name, bill in task_bills(scores, rng).items():
        split = bill.split
        found.append(
            TaskTax(
                name, split.items, split.selective.value, split.selective.low, split.selective.high, bill.margin.p_value,
                bill.p_adjusted, split.shared.value, split.gold.value, bill.accuracy.before, bill.accuracy.after,
                bill.worst.confirmed.value, forecast.get(name), bill.worst.confirmed.low, bill.worst.confirmed.high,
            )
        )  # fmt: skip
    return found


def item_drops(scores: Mapping[str, tuple[Scores, Scores]]) -> dict[str, np.ndarray]:
    """Drop of the margin of every item, mean over formats, in nats."""
    return {name: margin_drops(before, after).mean(0) for name, (before, after) in scores.items()}
