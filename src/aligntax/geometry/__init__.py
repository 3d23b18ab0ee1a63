"""Pure geometry of the alignment tax: tax rates, frontiers, tolerances, budgets, conflict, chance. Numpy or torch in,
no models, no files.
"""

from aligntax.geometry.conflict import (
    GainDecomposition,
    absolute_loss,
    binding_weights,
    conflict_frontier,
    decompose_gains,
    effective_correlation,
    effective_correlations,
    efficient_gains,
    equal_gain,
    equal_normalised_gain,
)
from aligntax.geometry.feasible import directions_with
from aligntax.geometry.fisher import Fisher, budget_to_norm, whiten
from aligntax.geometry.frontier import (
    LineGaps,
    full_frontier,
    max_capability,
    max_safety,
    single_frontier,
    single_frontier_shift,
    straight_line_gaps,
    subsidy_threshold,
    tax_free_safety,
)
from aligntax.geometry.layers import (
    LayerBudget,
    averaging_ratio,
    joint_layer_gain,
    layer_budget,
    layer_yields,
    total_change_gain,
)
from aligntax.geometry.nats import max_gain_at_changes, max_gain_per_nats
from aligntax.geometry.packing import TaxLaw, anisotropic_null, packing_law, packing_mean_paper, random_overlap
from aligntax.geometry.preserve import PreserveChoice, Preserving, preservation_effect, which_to_preserve
from aligntax.geometry.regimes import Regime, regime
from aligntax.geometry.tax import (
    LayersTax,
    capability_basis,
    layers_tax,
    principal_angles,
    signed_cosines,
    sum_tax,
    tax_rate,
)
from aligntax.geometry.tolerances import ToleranceSolution, max_safety_with_tolerances

__all__ = [
    "Fisher",
    "GainDecomposition",
    "LayerBudget",
    "LayersTax",
    "LineGaps",
    "PreserveChoice",
    "Preserving",
    "Regime",
    "TaxLaw",
    "ToleranceSolution",
    "absolute_loss",
    "anisotropic_null",
    "averaging_ratio",
    "binding_weights",
    "budget_to_norm",
    "capability_basis",
    "conflict_frontier",
    "decompose_gains",
    "directions_with",
    "effective_correlation",
    "effective_correlations",
    "efficient_gains",
    "equal_gain",
    "equal_normalised_gain",
    "full_frontier",
    "joint_layer_gain",
    "layer_budget",
    "layer_yields",
    "layers_tax",
    "max_capability",
    "max_gain_at_changes",
    "max_gain_per_nats",
    "max_safety",
    "max_safety_with_tolerances",
    "packing_law",
    "packing_mean_paper",
    "preservation_effect",
    "principal_angles",
    "random_overlap",
    "regime",
    "signed_cosines",
    "single_frontier",
    "single_frontier_shift",
    "straight_line_gaps",
    "subsidy_threshold",
    "sum_tax",
    "tax_free_safety",
    "tax_rate",
    "total_change_gain",
    "which_to_preserve",
    "whiten",
]
