"""Alignment training that pays little and goes deep: callbacks for TRL trainers, usable in anyone's script.

Each is made from the model before training and handed to an otherwise unmodified trainer as a callback.
"""

from aligntax.training.adaptive import AdaptiveKL
from aligntax.training.gradients import GradientProjection
from aligntax.training.guard import StopOnNonFinite
from aligntax.training.held import DirectionPenalty, ReferenceKL
from aligntax.training.nullspace import NullSpaceProjection, Subspace, leak, subspace_of
from aligntax.training.positions import KLCallback
from aligntax.training.recovery import RecoveryObjective, RecoveryRows, RecoverySettings
from aligntax.training.reference import Reference, freeze_head
from aligntax.training.tax import ScoredItem, TaxCallback
from aligntax.training.terms import LossTerm

__all__ = [
    "AdaptiveKL",
    "DirectionPenalty",
    "GradientProjection",
    "KLCallback",
    "LossTerm",
    "NullSpaceProjection",
    "RecoveryObjective",
    "RecoveryRows",
    "RecoverySettings",
    "Reference",
    "ReferenceKL",
    "ScoredItem",
    "StopOnNonFinite",
    "Subspace",
    "TaxCallback",
    "freeze_head",
    "leak",
    "subspace_of",
]
