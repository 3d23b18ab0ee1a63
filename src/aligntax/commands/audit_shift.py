"""The shift that training made, layer by layer, and where along a reply the two models stand apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..audit import (
    RealisedShift,
    direction_turn,
    kl_by_position,
    realised_shift,
    representation_profile,
    same_horizon,
)
from ..audit.reading import PairReading
from ..results import HorizonRecord, RepresentationRecord, ShiftRecord, TaskTax
from ..stats import Estimate, GroupSums, spearman
from .audit_bearings import Bearings

GROUPS = 8
FEWEST = 3
LEAST_TASKS = 4
EVERY, STEP = 10, 5
"""A profile is kept at each of the first positions, then at every fifth."""

States = tuple[np.ndarray, np.ndarray]
"""The same rows under base and aligned, `(n, L, d)` each."""


def shift_on(states: States, safety: np.ndarray | None, gradients: Mapping[str, np.ndarray]) -> RealisedShift | None:
    """The realised shift of some texts; None for fewer than three of them."""
    n = len(states[0])
    return None if n < FEWEST else realised_shift(*states, safety, gradients, min(GROUPS, n))


def turned(harmful: States, harmless: States) -> np.ndarray:
    """Cosine `(3, L)` of the difference in means before and after, with its ends; nan where undefined. Last-token states."""
    groups = min(GROUPS, len(harmful[0]), len(harmless[0]))
    if groups < FEWEST:
        return np.full((3, harmful[0].shape[1]), np.nan)
    before, after = (_means(bad, groups) - _means(good, groups) for bad, good in zip(harmful, harmless, strict=True))
    found = direction_turn(before, after).cosine
    return np.stack([found.value, found.low, found.high])


def _means(states: np.ndarray, groups: int) -> np.ndarray:
    return GroupSums.empty(groups, states.shape[1:]).update(states, np.arange(len(states)) % groups).means()


def shift_records(
    shift: RealisedShift | None, turn: np.ndarray, costs: RealisedShift | None, tax: Sequence[TaskTax]
) -> list[ShiftRecord]:
    """One row a layer; empty where too few prompts were read. `costs` is the shift on the tasks' own texts."""
    if shift is None:
        return []
    found = []
    for layer, (length, coherence, cosine) in enumerate(
        zip(shift.relative_length, shift.coherence, shift.cosine, strict=True)
    ):
        value, low, high = turn[:, layer].tolist()
        found.append(
            ShiftRecord(
                layer, length.value, coherence.value, cosine.value, length.low, length.high, coherence.low, coherence.high,
                cosine.low, cosine.high, value, low, high, _rank(costs, layer, tax),
            )
        )  # fmt: skip
    return found


def _rank(costs: RealisedShift | None, layer: int, tax: Sequence[TaskTax]) -> float | None:
    pairs = [
        (costs.tax[t.task][layer].value, t.tax) for t in tax if costs and t.task in costs.tax and t.tax is not None
    ]
    if len(pairs) < LEAST_TASKS:
        return None
    first_order, paid = np.array(pairs, dtype=float).T
    return float(spearman(first_order, paid)) if np.isfinite(pairs).all() else float("nan")


def with_first_order(tax: Sequence[TaskTax], costs: RealisedShift | None, layer: int) -> list[TaskTax]:
    """The bill with what the mean shift at `layer` alone would cost each task."""
    found = []
    for row in tax:
        cost = costs.tax[row.task][layer] if costs and row.task in costs.tax else None
        found.append(
            row
            if cost is None
            else replace(row, first_order=cost.value, first_order_low=cost.low, first_order_high=cost.high)
        )
    return found


def representation_record(
    reading: PairReading,
    along: States,
    bearings: Bearings,
    horizon: HorizonRecord | None,
    rng: np.random.Generator,
) -> RepresentationRecord:
    """Projections `(n, L, T)` of both models on the rows of `reading` (the aligned model's own replies), and the conjecture."""
    found = representation_profile(*along, kl_by_position(reading, "aligned"), rng)
    last = found.base.shape[1]
    position = [t for t in range(1, last + 1) if t <= EVERY or t % STEP == 0]
    columns = [t - 1 for t in position]
    verdict, reason = _conjecture(found.horizon[bearings.layer], horizon)
    return RepresentationRecord(
        direction=bearings.name,
        layer=bearings.layer,
        position=position,
        base=_rounded(found.base[:, columns]),
        aligned=_rounded(found.aligned[:, columns]),
        horizon=[e.value for e in found.horizon],
        horizon_low=[e.low for e in found.horizon],
        horizon_high=[e.high for e in found.horizon],
        gap=[e.value for e in found.gap],
        gap_low=[e.low for e in found.gap],
        gap_high=[e.high for e in found.gap],
        responses=len(along[0]),
        verdict=verdict,
        reason=reason,
    )


def _conjecture(found: Estimate, horizon: HorizonRecord | None) -> tuple[str, str]:
    if horizon is None:
        return "undecided", "the harm horizon was not measured; it takes --attacks all"
    if horizon.tokens is None or horizon.tokens_low is None or horizon.tokens_high is None:
        return "undecided", "the harm horizon itself is undecided"
    harm = Estimate(horizon.tokens, horizon.tokens_low, horizon.tokens_high, 0.0)
    verdict = same_horizon(found, harm)
    said = {"supported": "within a factor of 2 of", "contradicted": "beyond a factor of 2 of"}
    return verdict, f"{said.get(verdict, 'not to be told from, nor apart from,')} the harm horizon, by both intervals"


def _rounded(values: np.ndarray) -> list[list[float | None]]:
    return [[float(f"{v:.4g}") for v in row] for row in values]
