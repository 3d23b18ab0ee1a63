"""The audit: what alignment changed in a pair of models, what it cost, and how many tokens deep it goes."""

from aligntax.audit.calibration import MassCalibration, calibrate_mass, rollout_auc
from aligntax.audit.implied_penalty import ImpliedPenalty, fit_decay, implied_penalty
from aligntax.audit.late import LateKl, equivalence_p, late_kl, late_numbers
from aligntax.audit.profile import KlByPosition, KlSummary, kl_by_position, reached_by, summarise_kl
from aligntax.audit.prompt_draws import Band, PromptDraws
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
from aligntax.audit.sides import LiveSide, Side, StoredSide, adapter_sides

__all__ = [
    "Band",
    "ImpliedPenalty",
    "Interruption",
    "KlByPosition",
    "KlSummary",
    "LateKl",
    "LiveSide",
    "MassCalibration",
    "PairReading",
    "PromptDraws",
    "Recoverability",
    "RecoveryCurves",
    "RepresentationProfile",
    "Side",
    "StoredSide",
    "adapter_sides",
    "calibrate_mass",
    "equivalence_p",
    "fit_decay",
    "implied_penalty",
    "interruption",
    "kl_by_position",
    "late_kl",
    "late_numbers",
    "masses",
    "projections",
    "reached_by",
    "read_pair",
    "recoverability_at",
    "recovery_curves",
    "representation_profile",
    "rollout_auc",
    "summarise_kl",
]
