"""What a survey found: frozen dataclasses, one for each table a reader meets.

Numbers that are undefined are `None` in the file (never 0); every estimate stands beside `low` and `high`, the ends of
its 90% interval. Layers are counted from 0, at the *output* of the decoder block. Units: log-probabilities in nats per
answer token, KL in nats per response token, lengths of shifts in activation units, times in seconds.
"""

from dataclasses import dataclass, field
from typing import Any

from .conflict import Conflict, JointConflict
from .readout import ReadoutRecord
from .steering import FrontierCurve, Linearity, Selection, ToleranceTable

SCHEMA_VERSION = 1

Number = float | None


@dataclass(frozen=True)
class TaskAtLayer:
    """One capability at one layer (theory 1.3, 1.4, 1.17): how safety and the task meet.

    `cosine` in [-1, 1] is the debiased signed cosine between safety direction and capability gradient: negative is a
    cost, positive a subsidy. `tax` is the unbiased estimate of its square (may be negative). `p_value` is against the
    control tasks, `p_adjusted` after Benjamini-Hochberg. `change_per_decinat` is the first-order change of the task's
    metric (its own unit) when 0.1 nat per response token is spent on moving along the safety direction.
    """

    cosine: Number
    low: Number
    high: Number
    tax: Number
    tax_low: Number
    tax_high: Number
    p_value: Number
    p_adjusted: Number
    reliability: Number
    regime: str
    change_per_decinat: Number
    change_low: Number
    change_high: Number
    gradient_norm: Number


@dataclass(frozen=True)
class LayerSurvey:
    """One layer: joint tax (raw, cross-fitted, floor of rotated controls), sum of single taxes, chance levels.

    `shift_norm_per_decinat` is the length of the safety shift that costs 0.1 nat; `activation_norm` the median length of
    an activation there (sinks left out), so that their ratio says how large the push is.
    """

    layer: int
    joint_tax: Number
    joint_tax_crossfit: Number
    joint_tax_floor: Number
    sum_tax: Number
    safety_norm: Number
    safety_reliability: Number
    gain_per_decinat: Number
    tax_free_gain_per_decinat: Number
    shift_norm_per_decinat: Number
    activation_norm: Number
    chance_isotropic: float
    chance_anisotropic: Number
    chance_joint: float
    sinks: list[int]
    tasks: dict[str, TaskAtLayer]


@dataclass(frozen=True)
class TaskInfo:
    """One capability task as it was run. `score` is the mean metric before any training, in `unit`."""

    name: str
    kind: str
    unit: str
    items: int
    heldout: int
    score: Number
    score_low: Number
    score_high: Number
    accuracy: Number
    chance: Number
    headroom: bool
    notes: list[str]
    source: str
    sha256: str


@dataclass(frozen=True)
class Agreement:
    """Signed cosine between two estimators of the safety direction at one layer, with interval where groups allow."""

    layer: int
    first: str
    second: str
    cosine: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class RefusalToken:
    """A first token that counts as refusing: id, text, share of its mass among refusal tokens on harmful prompts."""

    id: int
    text: str
    origin: str
    mass: Number


@dataclass(frozen=True)
class FisherInfo:
    """How the KL budget was calibrated: texts, sampled draws, rank reached per layer, mean response length (tokens)."""

    texts: int
    draws: int
    rank: int
    mean_response_tokens: float
    ridge: float


@dataclass(frozen=True)
class LayerBudget:
    """Spending one total budget over layers (theory 1.15): share per layer, and the gain ratio over equal spending."""

    spend: list[float]
    ratio_isotropic: Number
    ratio_total_change: Number
    note: str


@dataclass(frozen=True)
class Controls:
    """The empirical null (theory 2.4): number of control tasks, pool of control items, and median control tax."""

    tasks: int
    pool_items: int
    items_per_task: int
    median_tax: Number
    p95_tax: Number


@dataclass(frozen=True)
class Phase:
    """Wall time of one phase in seconds and the tokens that it processed (0 where none)."""

    name: str
    seconds: float
    tokens: int


@dataclass(frozen=True)
class Provenance:
    """Everything needed to repeat the run or to doubt it."""

    package_version: str
    created: str
    command: str
    model_source: str
    revision: str | None
    weights_sha256: str | None
    adapter: str | None
    dtype: str
    device: str
    seed: int
    groups: int
    shift: str
    capability: str
    formats: list[str]
    chat_template: str
    data: dict[str, str]
    counts: dict[str, int]
    tokens: int
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Survey:
    """The result of `aligntax survey`: what safety will cost this model, before training it."""

    model: str
    size: str
    estimator: str
    layer: int
    layers: list[LayerSurvey]
    tasks: list[TaskInfo]
    selection: Selection
    agreement: list[Agreement]
    frontier: list[FrontierCurve]
    tolerances: ToleranceTable
    linearity: Linearity | None
    conflicts: list[Conflict]
    refusal_tokens: list[RefusalToken]
    fisher: FisherInfo
    layer_budget: LayerBudget
    controls: Controls
    over_refusal: TaskAtLayer | None
    formats: dict[str, dict[str, Number]]
    subspace_singular_values: list[float]
    timing: list[Phase]
    provenance: Provenance
    warnings: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    joint_conflict: JointConflict | None = None
    readout: ReadoutRecord | None = None
    schema_version: int = SCHEMA_VERSION

    def at_layer(self, layer: int | None = None) -> LayerSurvey:
        """The row of `layer` (the selected one by default)."""
        wanted = self.layer if layer is None else layer
        return next(row for row in self.layers if row.layer == wanted)
