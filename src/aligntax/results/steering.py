"""Steering along the safety direction, as a survey records it: the layer's choice, the frontier, and how far predictions hold.

Gains are of refusal log-odds in nats; a budget in nats is KL per response token. Undefined numbers are `None`, never 0.
"""

from dataclasses import dataclass, field

Number = float | None


@dataclass(frozen=True)
class Candidate:
    """A candidate layer (and position) for the safety shift, scored at a measured KL on the selection split."""

    layer: int
    position: str
    estimator: str
    kl_nats: Number
    norm: Number
    gain: Number
    low: Number
    high: Number
    chosen: bool


@dataclass(frozen=True)
class Selection:
    """How the layer was chosen. Gains are refusal log-odds (nats) gained at `target_kl` nats per response token.

    `final_gain` is the chosen candidate on a third split of prompts; `runner_up_gap` the paired difference to the next
    best on the selection split.
    """

    target_kl: float
    candidates: list[Candidate]
    final_gain: Number
    final_low: Number
    final_high: Number
    runner_up_gap: Number
    gap_low: Number
    gap_high: Number


@dataclass(frozen=True)
class FrontierCurve:
    """Safety gain against the change of one task along the exact frontier (theory 1.6) at a budget of 0.1 nat.

    `change` in the task's unit, `gain` in nats of refusal log-odds; equal lengths.
    """

    task: str
    change: list[float]
    gain: list[float]


@dataclass(frozen=True)
class ToleranceRow:
    """One task in the tolerance problem (theory 1.10). `price` is the gain bought by one more unit of tolerance."""

    task: str
    tolerance: float
    predicted_change: Number
    active: bool
    price: Number
    price_low: Number
    price_high: Number


@dataclass(frozen=True)
class ToleranceTable:
    """Most safety at `budget_nats` while each task loses at most its tolerance.

    `free_gain` is the gain with no tolerance constraint at all; `heldout_gain` the gain of the same shift measured on
    the gradient of the half of the groups that was not used to find it (optimizer's curse).
    """

    budget_nats: float
    gain: Number
    free_gain: Number
    heldout_gain: Number
    budget_price: Number
    rows: list[ToleranceRow]


@dataclass(frozen=True)
class LinearityPoint:
    """Measured and predicted change of one task, steering along `direction` with a measured KL."""

    direction: str
    task: str
    budget_nats: float
    kl_nats: float
    predicted: float
    measured: float
    noise: float


@dataclass(frozen=True)
class Linearity:
    """How far first-order predictions hold (issue 7). `validity_radius_nats` is None when below the smallest budget.

    `refusal_gain_by_budget` is the measured gain of refusal log-odds on the final prompts, beside what was predicted.
    `error_by_budget` is sum|measured - predicted| / sum|measured| after the noise floor, keyed by budget as text.
    """

    correlation: Number
    correlation_low: Number
    correlation_high: Number
    slope: Number
    slope_by_budget: dict[str, Number]
    error_by_budget: dict[str, Number]
    curvature: Number
    validity_radius_nats: Number
    smallest_budget_nats: float
    random_correlation: Number
    random_slope: Number
    random_validity_radius_nats: Number
    refusal_gain_by_budget: dict[str, Number]
    points: list[LinearityPoint]
    refusal_predicted_by_budget: dict[str, Number] = field(default_factory=dict)
