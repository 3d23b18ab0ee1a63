"""Pure theory of alignment depth: harm information, equilibria, recovery. Numpy in, no models, no files."""

from aligntax.depth.calibration import RecoveryCalibration, calibrate_recovery
from aligntax.depth.harm_curve import HarmCurve, harm_curve, horizon_gap
from aligntax.depth.harm_pressure import (
    decoupled_kl,
    gibbs_conditionals,
    gradient_bounds,
    gradient_by_position,
    leading_order_kl,
)
from aligntax.depth.innovations import gaussian_information, harm_information, innovations
from aligntax.depth.kl_by_position import KlProfile, kl_profile, token_kl
from aligntax.depth.objective import RecoveryForm, RecoveryPenalty, recovery_objective
from aligntax.depth.price import DepthPrice, price_of_depth
from aligntax.depth.recovery import (
    attack_length,
    least_prefill,
    log_form_recovery,
    optimal_recovery,
    recoverability,
    recovery_kl_bound,
    recovery_pressure,
    required_penalty,
    total_kl_bound,
)
from aligntax.depth.recovery_information import (
    RecoveryGradientBound,
    aggregate_recovery_kl,
    recovery_gradient_bound,
    recovery_information,
    small_penalty_kl,
)
from aligntax.depth.shared_pressure import SharedKl, split_shared_kl

__all__ = [
    "DepthPrice",
    "HarmCurve",
    "KlProfile",
    "RecoveryCalibration",
    "RecoveryForm",
    "RecoveryGradientBound",
    "RecoveryPenalty",
    "SharedKl",
    "aggregate_recovery_kl",
    "attack_length",
    "calibrate_recovery",
    "decoupled_kl",
    "gaussian_information",
    "gibbs_conditionals",
    "gradient_bounds",
    "gradient_by_position",
    "harm_curve",
    "harm_information",
    "horizon_gap",
    "innovations",
    "kl_profile",
    "leading_order_kl",
    "least_prefill",
    "log_form_recovery",
    "optimal_recovery",
    "price_of_depth",
    "recoverability",
    "recovery_gradient_bound",
    "recovery_information",
    "recovery_kl_bound",
    "recovery_objective",
    "recovery_pressure",
    "required_penalty",
    "small_penalty_kl",
    "split_shared_kl",
    "token_kl",
    "total_kl_bound",
]
