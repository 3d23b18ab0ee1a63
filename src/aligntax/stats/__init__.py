"""Pure statistics: grouped sums, debiased cosines, resampling, exact tests, the pipeline's quantities.

Knows numpy, scipy and moocore only.
"""

from aligntax.stats.adaptive_kl import adaptive_beta
from aligntax.stats.association import area_under_curve, pearson, slope_through_origin
from aligntax.stats.choice import constrained_choice, hypervolume, pareto_set, weighted_choice
from aligntax.stats.choose_confirm import (
    Choice,
    Confirmed,
    Halves,
    Observed,
    choose,
    confirm,
    mean_correlation,
    split_halves,
)
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
from aligntax.stats.losses import (
    bradley_terry_loss,
    clipped_policy_objective,
    kl_regularised_reward,
    language_model_loss,
    sft_loss,
    token_logprobs,
)
from aligntax.stats.observed_tax import ObservedTax, adjusted_p_values, mcnemar_interval, observed_tax, sign_flip_p
from aligntax.stats.overoptimisation import OverOptimisation, best_of_n_kl, fit_overoptimisation, peak_distance
from aligntax.stats.pairing import paired_ids
from aligntax.stats.partition import group_of, split_hash
from aligntax.stats.perplexity import bits_per_byte, perplexity
from aligntax.stats.power_law import PowerLaw, Resampling, fit_power_law
from aligntax.stats.rank_correlation import best_of_unrelated, spearman
from aligntax.stats.rank_reliability import RankReliability, rank_reliability
from aligntax.stats.readout import Readout, linear_readout, read_out
from aligntax.stats.regularised_optimum import RegularisedOptimum, regularised_optimum
from aligntax.stats.resample import Estimate, bootstrap_interval, jackknife
from aligntax.stats.separation import Separation, separation
from aligntax.stats.shared_selective import SplitTax, split_tax

__all__ = [
    "Choice",
    "Confirmed",
    "ConflictInterval",
    "CosineEstimate",
    "CosineTable",
    "CrossfitTax",
    "Estimate",
    "GroupSums",
    "Halves",
    "Observed",
    "ObservedTax",
    "OverOptimisation",
    "PowerLaw",
    "RankReliability",
    "Readout",
    "RegularisedOptimum",
    "Resampling",
    "Separation",
    "SplitTax",
    "adaptive_beta",
    "adjusted_p_values",
    "area_under_curve",
    "benjamini_hochberg",
    "best_of_n_kl",
    "best_of_unrelated",
    "bits_per_byte",
    "bootstrap_interval",
    "bradley_terry_loss",
    "choose",
    "clipped_policy_objective",
    "confirm",
    "conflict_interval",
    "constrained_choice",
    "crossfit_tax",
    "debiased_norm2",
    "debiased_squared_inner",
    "empirical_p",
    "estimate_cosine",
    "estimate_cosine_from_grams",
    "estimate_cosines_from_grams",
    "fit_overoptimisation",
    "fit_power_law",
    "group_of",
    "hypervolume",
    "jackknife",
    "jackknife_each",
    "kl_regularised_reward",
    "language_model_loss",
    "linear_readout",
    "mcnemar_exact",
    "mcnemar_interval",
    "mean_correlation",
    "observed_tax",
    "paired_ids",
    "pareto_set",
    "peak_distance",
    "pearson",
    "perplexity",
    "rank_reliability",
    "read_out",
    "regularised_optimum",
    "reliability",
    "separation",
    "sft_loss",
    "sign_flip_p",
    "slope_through_origin",
    "spearman",
    "split_halves",
    "split_hash",
    "split_tax",
    "token_logprobs",
    "weighted_choice",
]
