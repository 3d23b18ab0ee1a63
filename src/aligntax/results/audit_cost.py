"""What alignment paid and bought, as an audit found it: refusals, tasks, cells, scores, diversity, the shift, the forecast.

Undefined numbers are null, never 0. `low` and `high` are ends of 90% intervals over prompts, over items for tasks. Rates and shares
in [0, 1]; tax in nats per token (positive is a loss).
"""

from dataclasses import dataclass, field

from .audit_depth import Number, Rate


@dataclass(frozen=True)
class RefusalRecord:
    """Share judged as refusing, base and aligned: held-out harmful prompts, harmless ones, harmless ones that sound alarming.

    `harmful_change`, `over_change`: share refused after less before, paired by prompt, of harmful and of all harmless ones, with
    the exact p of no change. `loops`, `truncated`: shares of the aligned model's replies, `_base` of the base model's.
    """

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
    loops_base: Number = None
    truncated_base: Number = None
    harmful_change: Rate | None = None
    harmful_p: Number = None
    over_change: Rate | None = None
    over_p: Number = None


@dataclass(frozen=True)
class SeparationRecord:
    """Whom the model could refuse by the odds of its first token, all harmful prompts against all harmless ones.

    Odds are those of the refusal tokens. `auc_base`, `auc_aligned`: chance that they are higher for a harmful prompt than for a
    harmless one. `ranked`: share of harmless prompts refused if the odds decided and as many harmful ones were refused as the
    judge found, null where that is all or none of them. `against`: share of harmless prompts judged as refused whose reply opens
    with a refusal token although the odds are against one: greedy replies take the likeliest single token. `readout`: area that
    the survey's linear readout of the untrained model reached on its own prompts, null without a survey of these weights.
    """

    auc_base: Rate
    auc_aligned: Rate
    ranked: Rate
    against: Rate
    readout: Rate | None = None


@dataclass(frozen=True)
class TaskTax:
    """One task, paired by item: what it lost. `tax` is the selective part (margin; the answer where there are no choices).

    `shared` is what the distractors lost too. `forecast` is the survey's change for the KL that was spent, sign turned to tax.
    `worst_decile`: mean loss of the tenth of items that lost most in the other format. `first_order`: what the mean shift at the
    survey's layer alone would cost by the task's gradient.
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
    worst_decile_low: Number = None
    worst_decile_high: Number = None
    first_order: Number = None
    first_order_low: Number = None
    first_order_high: Number = None


@dataclass(frozen=True)
class ShiftRecord:
    """The shift that training made at one layer on harmful prompts: its mean's length over the activations', noise taken out.

    `coherence` is the share of the mean squared shift that the mean shift holds; `cosine` that of the mean shift and the survey's
    safety direction (without a survey: the base model's difference in means). `turn`: cosine of that difference in means before
    and after, 1 where the direction stayed. `tax_rank`: rank correlation over tasks of the shift's first-order tax at this layer
    with what was paid, null without a survey.
    """

    layer: int
    relative_length: Number
    coherence: Number
    cosine: Number
    relative_length_low: Number = None
    relative_length_high: Number = None
    coherence_low: Number = None
    coherence_high: Number = None
    cosine_low: Number = None
    cosine_high: Number = None
    turn: Number = None
    turn_low: Number = None
    turn_high: Number = None
    tax_rank: Number = None


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
class EfficiencyRecord:
    """Measured gain of refusal log-odds on harmful prompts over the most that one layer's shift gives for the same KL and tasks.

    `share` of the `frontier` (nats), null where undefined, and `reason` why. `gap_full`, `gap_matched`: how far a straight line to
    the mean shift at `layer` stays below the frontier at `fraction` of the way (theory 1.13), nats of log-odds, to first order.
    """

    share: Number
    low: Number
    high: Number
    gain: Number
    gain_low: Number
    gain_high: Number
    frontier: Number
    nats: Number
    layer: int
    prompts: int
    reason: str
    fraction: list[float] = field(default_factory=list)
    gap_full: list[Number] = field(default_factory=list)
    gap_matched: list[Number] = field(default_factory=list)


@dataclass(frozen=True)
class CellsRecord:
    """Capability items by whether the reply refuses and whether the answer is known (the right answer scores highest), both models.

    Shares of the `items` judged for both. Of the `known` ones answered before, after training `held` still are, `refused` are
    refused, and `forgotten` are answered without the right answer scoring highest; `p_value` that as many were gained.
    """

    items: int
    unjudged: int
    length: int
    base: dict[str, Rate]
    aligned: dict[str, Rate]
    known: int
    held: int
    refused: int
    forgotten: int
    lost: Rate
    p_value: Number


@dataclass(frozen=True)
class ScoreRecord:
    """One of helpful, harmless, honest: share of `n` items on the good side for both models, and the paired change with its p."""

    name: str
    base: Rate
    aligned: Rate
    change: Rate | None
    p_value: Number
    measured: str


@dataclass(frozen=True)
class QualityRecord:
    """Replies drawn several times a harmless prompt: means over `prompts`, of `samples` replies in all, for one model.

    `distinct`: distinct over all 2-grams, `entropy` of token frequencies in nats, `similarity`: 2-grams that two samples share, all
    within a prompt. `tokens` is the mean length, on which the first two depend.
    """

    model: str
    prompts: int
    samples: int
    tokens: Number
    looping: Number
    truncated: Number
    empty: Number
    repeated: Number
    distinct: Number
    entropy: Number
    similarity: Number
