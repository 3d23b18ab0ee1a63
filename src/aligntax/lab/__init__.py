"""Exact worlds: small enough that every expectation is a sum, so that estimators have something to be wrong about."""

from aligntax.lab.attack import PlantedWorld, PrefillAttack, deep_policy, plant_world, prefill_attack
from aligntax.lab.optimise import DeepObjective, Descent, descend, steps_to_recover, worst_kl
from aligntax.lab.packing import PackingDraws, PackingWorld
from aligntax.lab.rollouts import (
    Rollouts,
    debiased_curve,
    exact_curve,
    plug_in_bias,
    plug_in_curve,
    pooled_bias,
    pooled_curve,
    sample_rollouts,
)
from aligntax.lab.shared import SharedPolicy
from aligntax.lab.stationary import Stationary, StationaryProblem, recovery_stationary, tilt_agreement
from aligntax.lab.tabular import HarmInformation, TabularPolicy

__all__ = [
    "DeepObjective",
    "Descent",
    "HarmInformation",
    "PackingDraws",
    "PackingWorld",
    "PlantedWorld",
    "PrefillAttack",
    "Rollouts",
    "SharedPolicy",
    "Stationary",
    "StationaryProblem",
    "TabularPolicy",
    "debiased_curve",
    "deep_policy",
    "descend",
    "exact_curve",
    "plant_world",
    "plug_in_bias",
    "plug_in_curve",
    "pooled_bias",
    "pooled_curve",
    "prefill_attack",
    "recovery_stationary",
    "sample_rollouts",
    "steps_to_recover",
    "tilt_agreement",
    "worst_kl",
]
