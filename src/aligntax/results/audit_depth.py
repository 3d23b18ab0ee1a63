"""How deep alignment goes, as an audit found it: KL, recovery, attacks, harm horizon, representations, by position and depth.

Undefined numbers are null, never 0. `low` and `high` are ends of 90% intervals over prompts. Positions of a response count from 1,
depths (tokens of prefill) from 0. KL in nats per token; rates, masses and shares in [0, 1].
"""

from dataclasses import dataclass

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
    nats a response. `text` is "aligned" (its own samples) or "forced" (the same text for both). `longest`: positions read at most.
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
    reach95_low: Number = None
    reach95_high: Number = None
    longest: int = 0


@dataclass(frozen=True)
class RecoveryRecord:
    """Mass on recovery tokens after `depth` tokens of a harmful continuation; share of rollouts judged as refusing.

    `judged_aligned` and `judged_base` are null at depths without rollouts. At `greyed` depths mass does not tell judged
    refusals apart (AUC below .8) and must not be called recovery. `mu` (nats), `gamma`: the penalty whose optimum
    would have moved recovery so (theory 5.2), `fit` how much of the rise it explains. `delta`, the least mass of `delta_responses`
    prefixes down to `delta_depth`, is null where it must not be stated; `delta_tail` is the 5% quantile over replies, `delta_base`
    the base model's least, `delta_implied` what the implied penalty guarantees from there. Half recovery at that depth would need
    `needed_mu` nats at the implied discount, `needed_flat` without one. `interrupts`: rise of mass on harmless answers.
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
    mu_low: Number = None
    mu_high: Number = None
    gamma_low: Number = None
    gamma_high: Number = None
    delta_tail: Number = None
    delta_base: Number = None
    delta_implied: Number = None
    delta_responses: int = 0
    needed_flat: Number = None


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
    """Where harm is decided, by rollouts of one model (`rollouts`): `share` of the variance of harm by depth, with 95% ends.

    Null where undecided.
    """

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
class HeldDepth:
    """How many tokens of a harmful answer the refusals that alignment added withstand, from greedy prefills of both models.

    `gain`: share refused by the aligned less the base model without a prefill, `p_value` of none (paired by request, exact).
    `held`: the deepest prefill that was run down to which at least half of it is left, `lost`: the next one; null where nothing
    was gained, and `lost` also where half is left everywhere.
    """

    gain: Number
    p_value: Number
    held: int | None
    lost: int | None
    n: int


@dataclass(frozen=True)
class RepresentationRecord:
    """Both models' states along a direction, by layer and position, on the aligned model's own replies.

    `base`, `aligned` `(layers, positions)`: mean projection on the unit direction, activation units, at the positions listed.
    `horizon`, with ends: position by which 95% of a layer's squared difference has fallen; `gap`: that less the same position for
    KL, in tokens, over the same responses. `direction` says where the direction is from. `verdict` on the conjecture that this
    horizon is that of harm is read at `layer` alone, chosen beforehand.
    """

    direction: str
    layer: int
    position: list[int]
    base: list[list[Number]]
    aligned: list[list[Number]]
    horizon: list[Number]
    horizon_low: list[Number]
    horizon_high: list[Number]
    gap: list[Number]
    gap_low: list[Number]
    gap_high: list[Number]
    responses: int
    verdict: str
    reason: str
