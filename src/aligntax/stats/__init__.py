"""Pure statistics: grouped sums, debiased cosines, resampling, exact tests. Knows numpy and scipy only."""

from aligntax.stats.association import pearson, slope_through_origin
from aligntax.stats.conflict import ConflictInterval, conflict_interval, jackknife_each
from aligntax.stats.cosine import (
    CosineEstimate,
    CosineTable,
    debiased_norm2,
    debiased_squared_inner,
    estimate_cosine,
    estimate_cosine_from_grams,
    estimate_cosines_from_grams,
    reliability,
)
from aligntax.stats.crossfit import CrossfitTax, crossfit_tax
from aligntax.stats.exact import benjamini_hochberg, empirical_p, mcnemar_exact
from aligntax.stats.grouped import GroupSums
from aligntax.stats.partition import group_of, split_hash
from aligntax.stats.resample import Estimate, bootstrap_interval, jackknife

__all__ = [
    "ConflictInterval",
    "CosineEstimate",
    "CosineTable",
    "CrossfitTax",
    "Estimate",
    "GroupSums",
    "benjamini_hochberg",
    "bootstrap_interval",
    "conflict_interval",
    "crossfit_tax",
    "debiased_norm2",
    "debiased_squared_inner",
    "empirical_p",
    "estimate_cosine",
    "estimate_cosine_from_grams",
    "estimate_cosines_from_grams",
    "group_of",
    "jackknife",
    "jackknife_each",
    "mcnemar_exact",
    "pearson",
    "reliability",
    "slope_through_origin",
    "split_hash",
]
