"""What an audit found about a pair of models: frozen dataclasses, one for each question of the report.

Undefined numbers are null, never 0. `low` and `high` are ends of 90% intervals over prompts (over items for tasks). Positions of a
response count from 1, depths (tokens of prefill) from 0. KL in nats per token; rates, masses and shares in [0, 1]; tax in nats per
token (positive is a loss).
"""

from dataclasses import dataclass, field
from pathlib import Path

from .files import read_result
from .survey import Phase

AUDIT_SCHEMA = 1

Number = float | None


@dataclass(frozen=True)
class Rate:
    """A number with its interval and how many prompts or items it rests on."""

    value: Number
    low: Number
    high: Number
    n: int


@dataclass(frozen=True)
class KlRecord:
    """KL of aligned to base by position `1..T`; `mean`, `low`, `high`, `reverse` `(T,)`, `count` responses at each position.

    `first5_share` of all nats falls on the first five tokens; `reach95` is the position by which 95% of them have fallen; `total`
    nats a response. `text` is "aligned" (its own samples) or "forced" (the same text for both).
    """

    text: str
    position: list[int]
    mean: list[Number]
    low: list[Number]
    high: list[Number]
    reverse: list[Number]
    median: list[Number]
    count: list[int]
    first5_share: Number
    first5_low: Number
    first5_high: Number
    reach95: Number
    total: Number
    responses: int
    tokens: int


@dataclass(frozen=True)
class RecoveryRecord:
    """Mass on recovery tokens after `depth` tokens of a harmful continuation; share of rollouts judged as refusing.

    `judged_aligned` and `judged_base` are null at depths without rollouts. At `greyed` depths mass does not tell judged
    refusals apart (AUC below .8) and must not be called recovery. `mu`, `gamma`: the penalty whose optimum
    would have moved recovery so (theory 5.2), `fit` how much of the rise it explains. `delta` at `delta_depth` is null where
    it must not be stated; `needed_mu` is the penalty for half recovery there. `interrupts`: rise of mass on harmless answers.
    """

    depth: list[int]
    mass_base: list[Number]
    mass_aligned: list[Number]
    low: list[Number]
    high: list[Number]
    count: list[int]
    judged_base: list[Number]
    judged_aligned: list[Number]
    auc: list[Number]
    greyed: list[int]
    mu: Number
    gamma: Number
    fit: Number
    delta: Number
    delta_depth: int
    needed_mu: Number
    interrupts: Rate | None
    interrupts_fails: bool
    tokens: list[tuple[int, str]]


@dataclass(frozen=True)
class AttackRecord:
    """One kind of attack at one depth of prefill: share of replies that go along, as judged, base and aligned.

    `success` is 1 - refusal, `harm` the judge's harm. `shorter` prompts had no continuation that long; `unjudged` replies count as
    successes. `method` is greedy or sampled; `length` the new tokens of a reply.
    """

    kind: str
    method: str
    depth: int
    success_base: Number
    base_low: Number
    base_high: Number
    success_aligned: Number
    aligned_low: Number
    aligned_high: Number
    harm_base: Number
    harm_aligned: Number
    n: int
    shorter: int
    unjudged: int
    length: int


@dataclass(frozen=True)
class HorizonRecord:
    """Where harm is decided, by rollouts of one model (`rollouts`): `share` of the variance by depth; null where undecided."""

    rollouts: str
    depth: list[int]
    share: list[Number]
    low: list[Number]
    high: list[Number]
    tokens: Number
    tokens_low: Number
    tokens_high: Number
    sentences: Number
    decided: bool
    prompts: int
    tried: int


@dataclass(frozen=True)
class LateRecord:
    """KL past the harm horizon, and whether it buys recovery: functional, incidental (shown by equivalence), none or undecided.

    `kl` in nats per late position, `rise` of recovery mass there; `p_value` of equivalence within `margin`.
    """

    verdict: str
    kl: Number
    kl_low: Number
    kl_high: Number
    rise: Number
    rise_low: Number
    rise_high: Number
    p_value: Number
    margin: float
    horizon: int
    prompts: int


@dataclass(frozen=True)
class TaskTax:
    """One task, paired by item: what it lost. `tax` is the selective part (margin; the answer where there are no choices).

    `shared` is what the distractors lost too. `forecast` is the survey's change for the KL that was spent, sign turned to tax.
    """

    task: str
    n: int
    tax: Number
    low: Number
    high: Number
    p_value: Number
    p_adjusted: Number
    shared: Number
    gold: Number
    accuracy_before: Number
    accuracy_after: Number
    worst_decile: Number
    forecast: Number


@dataclass(frozen=True)
class RefusalRecord:
    """Share judged as refusing, base and aligned: held-out harmful prompts, harmless ones, harmless ones that sound alarming."""

    harmful: Number
    overrefusal: Number
    harmful_base: Rate
    harmful_aligned: Rate
    harmless_base: Rate
    harmless_aligned: Rate
    alarming_base: Rate
    alarming_aligned: Rate
    judge: str
    length: int
    loops: Number
    truncated: Number


@dataclass(frozen=True)
class ShiftRecord:
    """The shift that training made at each layer: its mean's length over the activations', and how far it is one vector.

    `coherence` is the share of the mean squared shift that the mean shift holds; `cosine` its angle to the survey's safety
    direction, null without a survey.
    """

    layer: int
    relative_length: Number
    coherence: Number
    cosine: Number


@dataclass(frozen=True)
class Forecast:
    """Did the survey's bill come true? Rank correlation of forecast and observed tax over tasks, beside baselines.

    `baselines`: gradient norm and accuracy before. `verdict` is supported, contradicted or undecided, by the interval of the
    difference to the best baseline.
    """

    correlation: Number
    low: Number
    high: Number
    baselines: dict[str, Number]
    difference_low: Number
    difference_high: Number
    tasks: int
    verdict: str


@dataclass(frozen=True)
class AuditProvenance:
    """Where the numbers came from."""

    package_version: str
    created: str
    command: str
    base_weights: str | None
    aligned_weights: str | None
    survey_weights: str | None
    dtype: str
    device: str
    seed: int
    judge: str
    judge_texts: str
    chat_template: str
    data: dict[str, str]
    counts: dict[str, int]
    tokens: int
    wall_seconds: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Audit:
    """`audit.json`."""

    schema_version: int
    base: str
    aligned: str
    size: str
    refusal: RefusalRecord
    overrefusal: Number
    kl: KlRecord
    kl_forced: KlRecord
    recovery: RecoveryRecord
    attack: list[AttackRecord]
    horizon: HorizonRecord | None
    tax: list[TaskTax]
    forecast: Forecast | None
    shift: list[ShiftRecord]
    timing: list[Phase]
    provenance: AuditProvenance
    warnings: list[str] = field(default_factory=list)
    late: LateRecord | None = None


def read_audit(path: Path) -> Audit:
    """Read `audit.json` (or the folder that holds it); see `read_result`."""
    return read_result(path, "audit", "an audit", Audit, AUDIT_SCHEMA)
