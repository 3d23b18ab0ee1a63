"""The tables that follow from the layer's geometry: frontier, tolerances, layer budget, agreement."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ..geometry import (
    layer_budget,
    layer_yields,
    max_gain_per_nats,
    single_frontier,
    total_change_gain,
)
from ..results import Agreement, FrontierCurve, LayerBudget, ToleranceRow, ToleranceTable
from ..stats import estimate_cosine
from .analysis import Evidence, measured_scale, with_direction
from .estimators import Direction

RIDGE = 1.0
"""Shrinkage of the Fisher matrix towards its mean eigenvalue: few draws leave most directions unmeasured, and an
unmeasured direction must not look free."""


def frontier_curves(evidence: Evidence, layer: int) -> list[FrontierCurve]:
    """Exact frontier of refusal log-odds against each task's metric, in metric units, at 0.1 nat (round budget)."""
    v = evidence.safety[:, layer].mean(0)
    unit, length = v / np.linalg.norm(v), evidence.norm[layer]
    gain = abs(evidence.gradient[:, layer].mean(0) @ unit)
    curves = []
    for name, groups in with_direction(evidence.effects, layer).items():
        u = groups[:, layer].mean(0)
        size = np.linalg.norm(u)
        cosine = float(unit @ u / size)
        changes = np.linspace(-1, 1, 41) * length
        gains = np.array([single_frontier(cosine, c, length) for c in changes])
        curves.append(FrontierCurve(name, (changes * size).tolist(), (gains * gain).tolist()))
    return curves


def tolerance_table(evidence: Evidence, layer: int, tolerances: Mapping[str, float], nats: float) -> ToleranceTable:
    """Most refusal log-odds at `nats` nats when task i may lose at most its tolerance (theory 1.10, 1.11).

    Fisher with ridge, scaled so that the safety direction costs what was measured. `heldout_gain`: solved on even groups,
    its gain taken on odd ones.
    """
    effects = with_direction(evidence.effects, layer)
    names = list(effects)
    gradient = evidence.gradient[:, layer]
    stack = np.stack([groups[:, layer] for groups in effects.values()])
    limits = np.array([tolerances[name] for name in names])
    fisher = evidence.fisher(layer, RIDGE)
    v = evidence.safety[:, layer].mean(0)
    scale = measured_scale(fisher, v, evidence.norm[layer])
    budget = nats / scale
    mean = gradient.mean(0)
    solution = max_gain_per_nats(mean, stack.mean(1), limits, fisher, budget, names)
    free = max_gain_per_nats(mean, stack.mean(1), np.full(len(names), np.inf), fisher, budget, names)
    half = max_gain_per_nats(gradient[::2].mean(0), stack[:, ::2].mean(1), limits, fisher, budget, names)
    rows = [
        ToleranceRow(
            name, float(limits[k]), float(stack[k].mean(0) @ solution.shift), bool(solution.active[k]),
            float(solution.prices[k]), float(solution.price_low[k]), float(solution.price_high[k]),
        )
        for k, name in enumerate(names)
    ]  # fmt: skip
    heldout = float(gradient[1::2].mean(0) @ half.shift)
    return ToleranceTable(nats, solution.gain, free.gain, heldout, solution.budget_price / scale, rows)


def layer_spending(evidence: Evidence) -> LayerBudget:
    """Theory 1.15: how unequal layers are once every task is protected in each of them."""
    gradients = evidence.gradient.mean(0)
    layers = range(len(gradients))
    moving = [
        g.mean(0) for name, g in evidence.effects.items() if all(name in with_direction({name: g}, k) for k in layers)
    ]
    capabilities = np.stack(moving, axis=1)
    yields = layer_yields(gradients, capabilities)
    spent = layer_budget(yields, 1.0)
    return LayerBudget(
        (spent.spend**2).tolist(),
        spent.ratio,
        total_change_gain(gradients, capabilities, 1.0) / spent.gain,
        "shares of a total squared shift length; per-layer nats do not add (theory 1.11), so none are given",
    )


def agreement_rows(directions: Sequence[Direction], layers: Sequence[int]) -> list[Agreement]:
    """Debiased cosine between every pair of estimators at every layer of `layers`."""
    rows = []
    for first, second in combinations(directions, 2):
        for layer in layers:
            a, b = first.groups[:, layer], second.groups[:, layer]
            if not (np.linalg.norm(a) > 0 and np.linalg.norm(b) > 0):
                continue
            found = estimate_cosine(a, b)
            rows.append(Agreement(layer, first.estimator, second.estimator, found.value, found.low, found.high))
    return rows
