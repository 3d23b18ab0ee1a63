"""Several safety objectives at the selected layer: every pair and all together, with intervals (theory 3.1-3.7)."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np

from ..errors import GeometryError
from ..geometry import (
    absolute_loss,
    binding_weights,
    conflict_frontier,
    decompose_gains,
    effective_correlation,
    effective_correlations,
    equal_gain,
    equal_normalised_gain,
    preservation_effect,
    tax_rate,
    which_to_preserve,
)
from ..results import Conflict, JointConflict
from ..stats import Estimate, conflict_interval, jackknife_each
from .analysis import Evidence, with_direction

FRONTIER_POINTS = 11


def task_groups(evidence: Evidence, layer: int) -> tuple[list[str], np.ndarray]:
    """Names and group means `(m, J, d)` of the tasks that have a direction at `layer`."""
    tasks = with_direction(evidence.tasks, layer)
    _, _, d = evidence.safety.shape
    return list(tasks), np.array([groups[:, layer] for groups in tasks.values()]).reshape(-1, len(evidence.safety), d)


def pair_numbers(pair: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Taxes, equal absolute gain, absolute loss, margin, equal normalised gain, both gains there: `(8,)`, budget 1.

    What is undefined is nan: everything for an objective without direction, the last four for one inside the span.
    """
    found = np.full(8, np.nan)
    try:
        found[:2] = [tax_rate(v, caps) for v in pair]
        found[2:4] = equal_gain(pair, caps, 1.0)[0], absolute_loss(pair, caps, 1.0)
        parts = decompose_gains(pair, caps, 1.0)
        found[4:] = preservation_effect(pair[0], pair[1], caps).margin, parts.alignment, *parts.gains
    except GeometryError:  # the row says why, once, from all groups
        pass
    return found


def conflict_row(names: tuple[str, str], pair: np.ndarray, caps: np.ndarray, length: float) -> Conflict:
    """One pair: `pair` `(2, J, d)` and `caps` `(m, J, d)` are group means, `length` that of 0.1 nat."""
    found = conflict_interval(pair[0], pair[1], caps)
    tax1, tax2, equal, loss, margin, share, gain1, gain2 = jackknife_each(
        lambda keep: pair_numbers(pair[:, keep].mean(1), caps[:, keep].mean(1)), pair.shape[1]
    )
    equal, loss, gain1, gain2 = (_scaled(e, length) for e in (equal, loss, gain1, gain2))
    case, note = "undefined", ""
    try:
        case = preservation_effect(pair[0].mean(0), pair[1].mean(0), caps.mean(1)).case
    except GeometryError as error:
        note = str(error)
    return Conflict(
        *names,
        found.rho.value, found.rho.low, found.rho.high, found.rho_eff.value, found.rho_eff.low, found.rho_eff.high,
        tax1.value, tax2.value, share.value, equal.value, loss.value, case, [],
        found.rho_plain.value, found.rho_plain.low, found.rho_plain.high,
        tax1.low, tax1.high, tax2.low, tax2.high, margin.value, margin.low, margin.high, share.low, share.high,
        gain1.value, gain1.low, gain1.high, gain2.value, gain2.low, gain2.high,
        equal.low, equal.high, loss.low, loss.high, efficient_points(found.rho_eff.value), note=note,
    )  # fmt: skip


def _scaled(estimate: Estimate, length: float) -> Estimate:
    return Estimate(*(length * x for x in (estimate.value, estimate.low, estimate.high, estimate.se)))


def efficient_points(rho_eff: float) -> list[list[float]]:
    """The efficient part of the normalised frontier, from the second objective's maximum to the first's."""
    if not np.isfinite(rho_eff):
        return []
    first = np.linspace(rho_eff, 1.0, FRONTIER_POINTS)
    return np.stack([first, conflict_frontier(rho_eff, first)], axis=1).tolist()


def with_choice(row: Conflict, pair: np.ndarray, caps: np.ndarray, tasks: list[str], length: float) -> Conflict:
    """`row` with the tasks worth protecting: chosen on all groups, and again on even groups to be scored on odd ones."""
    try:
        chosen = which_to_preserve(pair[0].mean(0), pair[1].mean(0), caps.mean(1), length)
        even, odd = pair[:, ::2].mean(1), pair[:, 1::2].mean(1)
        half = list(which_to_preserve(even[0], even[1], caps[:, ::2].mean(1)).tasks)
        rows = caps[half, 1::2].mean(1)
        heldout = effective_correlation(odd[0], odd[1], rows) - effective_correlation(odd[0], odd[1], rows[:0])
    except GeometryError as error:
        return replace(row, note=row.note or str(error))
    return replace(
        row,
        preserve=[tasks[k] for k in chosen.tasks],
        preserve_gain=chosen.gain,
        preserve_gain_heldout=heldout,
        preserve_loss_per_decinat=chosen.absolute_loss,
        preserve_exact=chosen.exact,
    )


def conflict_rows(objectives: Mapping[str, np.ndarray], evidence: Evidence, layer: int) -> list[Conflict]:
    """Every pair of safety objectives at one layer; `objectives` are group means `(J, L, d)`.

    A pair whose numbers are undefined keeps its row: case "undefined", and a note that says why.
    """
    tasks, caps = task_groups(evidence, layer)
    length = evidence.norm[layer]
    rows = []
    for names in combinations(objectives, 2):
        pair = np.stack([objectives[name][:, layer] for name in names])
        rows.append(with_choice(conflict_row(names, pair, caps, length), pair, caps, tasks, length))
    return rows


def joint_numbers(objectives: np.ndarray, caps: np.ndarray) -> np.ndarray:
    """Equal absolute gain, absolute loss, equal normalised gain of all objectives `(k, d)`: `(3,)`, budget 1."""
    found = np.full(3, np.nan)
    try:
        found[:2] = equal_gain(objectives, caps, 1.0)[0], absolute_loss(objectives, caps, 1.0)
        found[2] = equal_normalised_gain(effective_correlations(objectives, caps))
    except GeometryError:  # the row says why, once, from all groups
        pass
    return found


def joint_conflict(objectives: Mapping[str, np.ndarray], evidence: Evidence, layer: int) -> JointConflict | None:
    """All objectives at once; None below three, where the pair's row says the same."""
    if len(objectives) < 3:
        return None
    _, caps = task_groups(evidence, layer)
    length, names = evidence.norm[layer], list(objectives)
    stack = np.stack([groups[:, layer] for groups in objectives.values()])
    equal, loss, share = jackknife_each(
        lambda keep: joint_numbers(stack[:, keep].mean(1), caps[:, keep].mean(1)), stack.shape[1]
    )
    equal, loss = _scaled(equal, length), _scaled(loss, length)
    table, weights, note = np.full((len(names), len(names)), np.nan), np.full(len(names), np.nan), ""
    try:
        weights = binding_weights(stack.mean(1), caps.mean(1))
        table = effective_correlations(stack.mean(1), caps.mean(1))
    except GeometryError as error:
        note = str(error)
    return JointConflict(
        names, table.tolist(), weights.tolist(), share.value, share.low, share.high, equal.value, equal.low, equal.high,
        loss.value, loss.low, loss.high, note,
    )  # fmt: skip
