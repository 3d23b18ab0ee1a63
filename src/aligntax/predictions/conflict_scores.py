"""P4: does holding the task that theory names ease the conflict of two objectives, on items that did not name it?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..geometry import absolute_loss
from ..results.prediction import Cell
from ..stats import Estimate, jackknife
from ..stats.rank_correlation import Array
from .protocol import PROTOCOLS, Protocol
from .scored import Scored, decide, empty, shortage


@dataclass(frozen=True)
class ConflictGroups:
    """Group means of one partition: objectives `first` and `second` `(J, L, d)`, tasks `(m, J, L, d)` with their names."""

    first: Array
    second: Array
    tasks: Array
    names: tuple[str, ...]


def unit(rows: Array) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-300))


def gains(first: Array, second: Array, tasks: Array) -> tuple[Array, Array]:
    """By task: what holding it alone adds to the cosine of two objectives `(m,)`, and the tax of both `tau_1 + tau_2` `(m,)`.

    `(rho - ab)/sqrt((1-a^2)(1-b^2)) - rho`, the partial correlation of theory 3.1 with one task.
    """
    v, w, u = unit(first), unit(second), unit(tasks)
    rho, a, b = float(v @ w), u @ v, u @ w
    return (rho - a * b) / np.sqrt((1 - a**2) * (1 - b**2)) - rho, a**2 + b**2


def held_out(groups: ConflictGroups, kept: NDArray[np.int64], layers: Sequence[int]) -> tuple[float, float]:
    """Mean over halvings of the `kept` groups and over layers: gain of the named task and of its rival, on the other half."""
    found = []
    for half in combinations(range(len(kept)), len(kept) // 2):
        one = kept[list(half)]
        other = np.setdiff1d(kept, one)
        for layer in layers:
            naming, scoring = (
                gains(
                    groups.first[own, layer].mean(0),
                    groups.second[own, layer].mean(0),
                    groups.tasks[:, own, layer].mean(1),
                )
                for own in (one, other)
            )
            named = int(np.argmax(naming[0]))
            apart = np.abs(naming[1] - naming[1][named])
            apart[named] = np.inf
            found.append((scoring[0][named], scoring[0][int(np.argmin(apart))]))
    mine, rival = np.mean(found, axis=0)
    return float(mine), float(rival)


def score_conflict(groups: ConflictGroups, protocol: Protocol = PROTOCOLS["P4"]) -> Scored:
    """Named on one half of the groups, scored on the other; intervals by leaving groups out in turn."""
    count, layers = len(groups.first), range(0, groups.first.shape[1], 3)
    n = {"groups": count, "tasks": len(groups.names), "layers": len(layers)}
    if shortage(protocol, n):
        return empty(protocol, n, "too few groups or tasks")
    whole: dict[tuple[int, ...], tuple[float, float]] = {}

    def part(index: int) -> Estimate:
        def value(kept: NDArray[np.int64]) -> float:
            key = tuple(kept.tolist())
            if key not in whole:
                whole[key] = held_out(groups, kept, layers)
            mine, rival = whole[key]
            return (mine, rival, mine - rival)[index]

        return jackknife(value, count)

    estimate, rival, ahead = (part(k) for k in range(3))
    p = float(stats.t.sf(ahead.value / ahead.se, count - 1)) if ahead.se > 0 else float("nan")
    verdict, why = decide(protocol, estimate, ahead, p, n)
    losses = [absolute_loss_of(groups, layer) for layer in layers]
    if verdict == "supported" and min(losses) < -1e-9:
        verdict, why = "contradicted", "the absolute equal gain rose with the task held"
    rows: list[dict[str, Cell]] = []
    best_gains: list[float] = []
    for layer, loss in zip(layers, losses, strict=True):
        added, _ = gains(
            groups.first[:, layer].mean(0), groups.second[:, layer].mean(0), groups.tasks[:, :, layer].mean(1)
        )
        best = int(np.argmax(added))
        best_gains.append(float(added[best]))
        rows.append(
            {
                "layer": layer,
                "named": groups.names[best],
                "gain in rho_eff": round(float(added[best]), 4),
                "absolute loss": loss,
            }
        )
    idle = [
        f"layer {row['layer']}: no task held alone eases the conflict"
        for row, gain in zip(rows, best_gains, strict=True)
        if gain <= 0
    ]
    return Scored(
        estimate, {protocol.baselines[0]: rival}, ahead, p, verdict, why, n, negatives=idle, tables={"all groups": rows}
    )


def absolute_loss_of(groups: ConflictGroups, layer: int) -> float:
    """Absolute equal gain lost at unit budget by holding the task that all groups name; by theory 3.6 never below 0."""
    first, second = groups.first[:, layer].mean(0), groups.second[:, layer].mean(0)
    tasks = groups.tasks[:, :, layer].mean(1)
    named = int(np.argmax(gains(first, second, tasks)[0]))
    return round(float(absolute_loss(np.stack([first, second]), tasks[[named]], 1.0)), 4)
