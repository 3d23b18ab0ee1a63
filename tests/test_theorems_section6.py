"""Each row of section 6 is green, and red as soon as the function it checks is plausibly wrong."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from aligntax import stats
from aligntax.commands.theorems import section6
from aligntax.stats import Estimate


@pytest.mark.parametrize("row", section6.ROWS, ids=lambda row: row.__name__)
def test_row_is_green(row: Callable[[], Any]) -> None:
    check = row()
    assert check.passed, check
    assert row.__name__ == f"row_{check.item.replace('.', '_')}"


def wald_interval(lost: int, gained: int, n: int, level: float = 0.9) -> Estimate:
    value = (lost - gained) / n
    se = math.sqrt(max(lost + gained - n * value**2, 0)) / n
    z = reference.norm.ppf(0.5 + level / 2)
    return Estimate(value, value - z * se, value + z * se, se)


def conditional_interval(lost: int, gained: int, n: int, level: float = 0.9) -> Estimate:
    m = lost + gained
    if not m:
        return Estimate(0.0, 0.0, 0.0, 0.0)
    share = reference.binomtest(lost, m).proportion_ci(level)
    return Estimate((lost - gained) / n, m * (2 * share.low - 1) / n, m * (2 * share.high - 1) / n, 0.0)


def swapped_parts(*args: Any, **kwargs: Any) -> Any:
    split = stats.split_tax(*args, **kwargs)
    return dataclasses.replace(split, selective=split.gold)


def items_only(before: Any, after: Any, rng: np.random.Generator, draws: int = 2000, level: float = 0.9) -> Any:
    split = stats.split_tax(before, after, rng, draws, level)
    per_item = [
        np.mean(
            [before[f][i][0] - after[f][i][0] - np.mean(before[f][i][1:]) + np.mean(after[f][i][1:]) for f in before]
        )
        for i in before["f0"]
    ]
    se = float(reference.sem(per_item))
    return dataclasses.replace(split, selective=dataclasses.replace(split.selective, se=se))


def unpaired_p(before: Any, after: Any, rng: np.random.Generator, **kwargs: Any) -> Any:
    p = reference.fisher_exact([[sum(x.values()), len(x) - sum(x.values())] for x in (before, after)]).pvalue
    return dataclasses.replace(stats.observed_tax(before, after, rng, **kwargs), p_value=float(p))


def by_position(before: Any, after: Any, rng: np.random.Generator, **kwargs: Any) -> Any:
    return stats.observed_tax(before, dict(zip(before, after.values(), strict=True)), rng, **kwargs)


def no_clip(shift: Any, old: Any, gain: Any) -> float:
    return float((np.exp(shift - old) * gain).mean())


def always_clipped(shift: Any, old: Any, gain: Any) -> float:
    return float((np.clip(np.exp(shift - old), 0.8, 1.2) * gain).mean())


def wrong_peak(*args: Any, **kwargs: Any) -> Any:
    fit = stats.fit_overoptimisation(*args, **kwargs)
    return dataclasses.replace(fit, peak_kl=dataclasses.replace(fit.peak_kl, value=math.sqrt(fit.peak_kl.value)))


def other_form(kl: Any, gold: Any, form: str, rng: np.random.Generator, draws: int) -> Any:
    return stats.fit_overoptimisation(kl, gold, "policy" if form == "best-of-n" else "best-of-n", rng, draws)


def unweighted(x: Any, y: Any, floor: bool = False, weights: Any = None, resampling: Any = None) -> Any:
    return stats.fit_power_law(x, y, floor, None, resampling)


def without_floor(x: Any, y: Any, floor: bool = False, weights: Any = None, resampling: Any = None) -> Any:
    return stats.fit_power_law(x, y, False, weights, resampling)


def normal_interval(*args: Any, **kwargs: Any) -> Any:
    law = stats.fit_power_law(*args, **kwargs)
    g, shrink = law.exponent, 1.2  # about what a normal quantile and sum/n in place of sum/(n-p) do to six points
    narrow = dataclasses.replace(
        g, low=g.value - (g.value - g.low) / shrink**2, high=g.value + (g.high - g.value) / shrink**2
    )
    return dataclasses.replace(law, exponent=narrow)


def strongly_undominated(scores: Any) -> np.ndarray:
    return np.flatnonzero(
        [not any((q >= p).all() for j, q in enumerate(scores) if j != i) for i, p in enumerate(scores)]
    )


MUTATIONS: list[tuple[str, str, Callable[..., Any]]] = [
    ("6_1", "perplexity", lambda logp, scored: stats.perplexity(logp)),
    ("6_1", "perplexity", lambda logp, scored: 2 ** -np.mean(logp[scored])),
    ("6_1", "bits_per_byte", lambda logp, size, scored: -logp[scored].sum() / size),
    ("6_1", "bits_per_byte", lambda logp, size, scored: stats.bits_per_byte(logp, int(scored.sum()), scored)),
    ("6_2", "language_model_loss", lambda logits, tokens, mask: stats.language_model_loss(logits, tokens)),
    (
        "6_2",
        "language_model_loss",
        lambda logits, tokens, mask: stats.sft_loss(logits, tokens, mask & (np.arange(7) > 0)),
    ),
    ("6_2", "sft_loss", lambda logits, tokens, answer: stats.language_model_loss(logits, tokens, answer)),
    ("6_2", "sft_loss", lambda logits, tokens, answer: stats.sft_loss(logits[:, ::-1], tokens, answer)),
    ("6_2", "bradley_terry_loss", lambda won, lost: stats.bradley_terry_loss(lost, won)),
    ("6_2", "bradley_terry_loss", lambda won, lost: stats.bradley_terry_loss(np.divide(won, 2), np.divide(lost, 2))),
    ("6_2", "kl_regularised_reward", lambda r, p, q, beta: r + beta * (p - q)),
    ("6_2", "kl_regularised_reward", lambda r, p, q, beta: r - beta * p),
    ("6_2", "clipped_policy_objective", no_clip),
    ("6_2", "clipped_policy_objective", always_clipped),
    ("6_2", "regularised_optimum", lambda r, p, beta: stats.regularised_optimum(r, p, 1 / beta)),
    ("6_3", "adaptive_beta", lambda kl, beta0, rate, bounds: beta0 * math.exp(rate * kl)),
    ("6_3", "adaptive_beta", lambda kl, beta0, rate, bounds: stats.adaptive_beta(kl, beta0, -rate, bounds)),
    ("6_3", "adaptive_beta", lambda kl, beta0, rate, bounds: min(max(beta0 * (1 + rate * kl), bounds[0]), bounds[1])),
    ("6_4", "observed_tax", unpaired_p),
    ("6_4", "observed_tax", by_position),
    ("6_4", "observed_tax", lambda before, after, rng, **kw: stats.observed_tax(after, before, rng, **kw)),
    ("6_4", "adjusted_p_values", lambda taxes: {task: min(6 * tax.p_value, 1.0) for task, tax in taxes.items()}),
    ("6_4", "mcnemar_interval", wald_interval),
    ("6_4", "mcnemar_interval", conditional_interval),
    ("6_4", "split_tax", swapped_parts),
    ("6_4", "split_tax", items_only),
    ("6_5", "best_of_n_kl", np.log),
    ("6_5", "fit_overoptimisation", wrong_peak),
    ("6_5", "fit_overoptimisation", other_form),
    ("6_6", "fit_power_law", unweighted),
    ("6_6", "fit_power_law", without_floor),
    ("6_6", "fit_power_law", normal_interval),
    ("6_7", "weighted_choice", lambda c, a, weight: stats.weighted_choice(a, c, weight)),
    ("6_7", "constrained_choice", lambda c, a, least: int(np.argmax(c))),
    ("6_7", "pareto_set", lambda scores: stats.pareto_set(-scores)),
    ("6_7", "pareto_set", strongly_undominated),
    ("6_7", "hypervolume", lambda scores, corner: stats.hypervolume(scores, np.zeros(3))),
]


@pytest.mark.parametrize(
    ("row", "name", "wrong"), MUTATIONS, ids=[f"{m[0]}-{m[1]}-{i}" for i, m in enumerate(MUTATIONS)]
)
def test_row_turns_red(row: str, name: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section6, name, wrong)
    assert not getattr(section6, f"row_{row}")().passed


def test_every_row_has_a_mutation() -> None:
    assert {f"row_{mutation[0]}" for mutation in MUTATIONS} == {row.__name__ for row in section6.ROWS}
