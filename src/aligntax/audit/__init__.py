"""The audit: what alignment changed in a pair of models, what it cost, and how many tokens deep it goes."""

from aligntax.audit.attacks import (
    cliff_edge_cases,
    cliff_edge_depth,
    multi_turn_cases,
    rank_assisted_cases,
    refusal_prefix_cases,
    wrapper_cases,
)
from aligntax.audit.calibration import MassCalibration, calibrate_mass, rollout_auc
from aligntax.audit.cases import NEW_TOKENS, Answer, Case, Examinee, Request, make_requests
from aligntax.audit.conversation import encode_turns
from aligntax.audit.horizon import (
    HarmHorizon,
    PairedRollouts,
    choose_open,
    first_pass,
    harm_horizon,
    paired_rollouts,
    sentences_by,
)
from aligntax.audit.implied_penalty import ImpliedPenalty, fit_decay, implied_penalty
from aligntax.audit.late import LateKl, equivalence_p, late_kl, late_numbers
from aligntax.audit.prefill import (
    DEPTHS,
    AttackRate,
    Share,
    attack_rates,
    harmful_continuations,
    prefill_cases,
    sampled,
    share_interval,
    success_gap,
    too_short,
)
from aligntax.audit.profile import KlByPosition, KlSummary, kl_by_position, reached_by, summarise_kl
from aligntax.audit.prompt_draws import Band, PromptDraws
from aligntax.audit.quality import (
    Quality,
    distinct_n,
    entropy,
    is_looping,
    quality,
    repeated_ngrams,
    self_similarity,
)
from aligntax.audit.reading import PairReading, read_pair
from aligntax.audit.recovery import (
    Interruption,
    Recoverability,
    RecoveryCurves,
    interruption,
    masses,
    recoverability_at,
    recovery_curves,
)
from aligntax.audit.representation import RepresentationProfile, projections, representation_profile
from aligntax.audit.sampler import ModelSampler, Sampler
from aligntax.audit.sides import LiveSide, Side, StoredSide, adapter_sides
from aligntax.audit.texts import inert, text_hash, write_texts
from aligntax.audit.wrappers import WRAPPERS

__all__ = [
    "DEPTHS",
    "NEW_TOKENS",
    "WRAPPERS",
    "Answer",
    "AttackRate",
    "Band",
    "Case",
    "Examinee",
    "HarmHorizon",
    "ImpliedPenalty",
    "Interruption",
    "KlByPosition",
    "KlSummary",
    "LateKl",
    "LiveSide",
    "MassCalibration",
    "ModelSampler",
    "PairReading",
    "PairedRollouts",
    "PromptDraws",
    "Quality",
    "Recoverability",
    "RecoveryCurves",
    "RepresentationProfile",
    "Request",
    "Sampler",
    "Share",
    "Side",
    "StoredSide",
    "adapter_sides",
    "attack_rates",
    "calibrate_mass",
    "choose_open",
    "cliff_edge_cases",
    "cliff_edge_depth",
    "distinct_n",
    "encode_turns",
    "entropy",
    "equivalence_p",
    "first_pass",
    "fit_decay",
    "harm_horizon",
    "harmful_continuations",
    "implied_penalty",
    "inert",
    "interruption",
    "is_looping",
    "kl_by_position",
    "late_kl",
    "late_numbers",
    "make_requests",
    "masses",
    "multi_turn_cases",
    "paired_rollouts",
    "prefill_cases",
    "projections",
    "quality",
    "rank_assisted_cases",
    "reached_by",
    "read_pair",
    "recoverability_at",
    "recovery_curves",
    "refusal_prefix_cases",
    "repeated_ngrams",
    "representation_profile",
    "rollout_auc",
    "sampled",
    "self_similarity",
    "sentences_by",
    "share_interval",
    "success_gap",
    "summarise_kl",
    "text_hash",
    "too_short",
    "wrapper_cases",
    "write_texts",
]
