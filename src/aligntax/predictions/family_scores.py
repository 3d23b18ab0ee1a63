"""P2 and P3: what a family of widths, and many merged pairs, say about the scaling of the tax and about averaging by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..results import Merge
from ..results.prediction import Cell
from ..results.scale import Scale
from ..stats import empirical_p, spearman
from ..stats.choose_confirm import interval
from ..stats.rank_correlation import Array
from .protocol import PROTOCOLS, Protocol
from .scored import Scored, decide, empty, shortage


def score_scaling(
    scale: Scale | None, intrinsic: Sequence[str], seed: int, protocol: Protocol = PROTOCOLS["P2"]
) -> Scored:
    """P2: do tasks that share structure with safety by construction keep larger plateaus? Tasks resampled within both kinds."""
    rows = [] if scale is None else [row for row in scale.rows if row.t is not None and row.points]
    flags = np.array([row.task in intrinsic for row in rows], dtype=bool)
    widths = 0 if scale is None else len({source.width for source in scale.sources})
    n = {"widths": widths, "intrinsic tasks": int(flags.sum()), "incidental tasks": int((~flags).sum())}
    if shortage(protocol, n):
        return empty(
            protocol,
            n,
            "give scale.json of a family (--inputs) and name the tasks built to be intrinsic (--intrinsic)",
        )
    table = np.array([[row.t, row.points[0].tax, row.points[-1].tax] for row in rows], dtype=float).T
    names = ["plateau", *protocol.baselines]
    rng, draws = np.random.default_rng([seed, 22]), int(protocol.setting("draws"))
    values = np.array([above(row, flags) for row in table])
    sample = np.empty((draws, len(table)))
    for k in range(draws):
        picks = np.concatenate([rng.choice(np.flatnonzero(side), side.sum()) for side in (flags, ~flags)])
        sample[k] = [above(row[picks], flags[picks]) for row in table]
    null = np.array([above(table[0], rng.permutation(flags)) for _ in range(draws)])
    best = int(np.argmax(values[1:])) + 1
    estimates = {name: interval(float(values[k]), sample[:, k]) for k, name in enumerate(names)}
    estimate = estimates.pop("plateau")
    ahead = interval(float(values[0] - values[best]), sample[:, 0] - sample[:, best])
    p = empirical_p(float(values[0]), null)
    verdict, why = decide(protocol, estimate, ahead, p, n)
    shown: list[dict[str, Cell]] = [
        {"task": row.task, "by construction": "intrinsic" if flag else "incidental", "call": row.call, "plateau": row.t}
        for row, flag in zip(rows, flags, strict=True)
    ]
    wrong = [
        f"{r['task']}, {r['by construction']}, is called {r['call']}"
        for r in shown
        if r["call"] != r["by construction"]
    ]
    return Scored(estimate, estimates, ahead, p, verdict, why, n, negatives=wrong, tables={"tasks": shown})


def above(values: Array, flags: np.ndarray) -> float:
    """Chance that a flagged value lies above another one, ties count half, in [0, 1]."""
    gaps = values[flags][:, None] - values[~flags][None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


@dataclass(frozen=True)
class MergedPair:
    """One aligned pair: predicted and measured ratio of safety gains, per layer over uniform at one mean fraction."""

    name: str
    predicted: float
    measured: float
    spread: float
    capability: float


def merged_pair(merge: Merge) -> MergedPair | None:
    """What a merge with per-layer fractions and a scored front says; None where it lacks either or the uniform gain is not above 0.

    The measured ratio is at the mean fraction nearest to a half that both schemes were scored at, on test items.
    """
    if merge.geometry is None or merge.geometry.predicted_ratio is None:
        return None
    own = {round(p.fraction, 3): p for p in merge.points if p.split == "test" and p.scheme not in ("uniform", "random")}
    flat = {round(p.fraction, 3): p for p in merge.points if p.split == "test" and p.scheme == "uniform"}
    both = sorted((f for f in own if f in flat and 0 < f < 1), key=lambda f: abs(f - 0.5))
    if not both:
        return None
    first, second = own[both[0]].safety_gain, flat[both[0]].safety_gain
    capability = flat[both[0]].capability
    if first is None or second is None or capability is None or second <= 0:
        return None
    yields = np.array(merge.geometry.yields)
    return MergedPair(
        merge.provenance.aligned.name, merge.geometry.predicted_ratio, first / second,
        float(yields.std() / yields.mean()), capability,
    )  # fmt: skip


def score_averaging(pairs: Sequence[MergedPair], seed: int, protocol: Protocol = PROTOCOLS["P3"]) -> Scored:
    """P3: rank correlation over aligned pairs of the predicted with the measured ratio, pairs resampled."""
    n = {"aligned pairs": len(pairs)}
    if shortage(protocol, n):
        return empty(
            protocol, n, "give folders of `aligntax merge --scheme per-layer --survey ... --points 3` (--inputs)"
        )
    table = np.array([[p.predicted, p.spread, p.capability] for p in pairs]).T
    measured = np.array([p.measured for p in pairs])
    values = np.asarray(spearman(table, measured))
    rng, draws = np.random.default_rng([seed, 33]), int(protocol.setting("draws"))
    picks = rng.integers(len(pairs), size=(draws, len(pairs)))
    sample = np.array([spearman(table[:, own], measured[own]) for own in picks])
    null = np.array([spearman(table[0], rng.permutation(measured)) for _ in range(draws)])
    best = int(np.nanargmax(values[1:])) + 1
    rivals = {name: interval(float(values[k]), sample[:, k]) for k, name in enumerate(protocol.baselines, 1)}
    estimate = interval(float(values[0]), sample[:, 0])
    ahead = interval(float(values[0] - values[best]), sample[:, 0] - sample[:, best])
    p = empirical_p(float(values[0]) - 1e-12, null)
    verdict, why = decide(protocol, estimate, ahead, p, n)
    rows: list[dict[str, Cell]] = [
        {"pair": each.name, "predicted": round(each.predicted, 3), "measured": round(each.measured, 3)}
        for each in pairs
    ]
    return Scored(estimate, rivals, ahead, p, verdict, why, n, tables={"pairs": rows})
