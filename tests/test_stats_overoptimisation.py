"""Gold reward that rises and falls: planted peaks are found, absent ones are not."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from aligntax.errors import AligntaxError, DataError
from aligntax.stats import best_of_n_kl, fit_overoptimisation, peak_distance
from aligntax.stats.line_fit import line_fit


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 3), st.floats(0.2, 2), st.sampled_from(["best-of-n", "policy"]))
def test_exact_curves_are_recovered_with_their_peaks(alpha: float, beta: float, form) -> None:
    kl = np.geomspace(0.01, 30, 7)
    d = np.sqrt(kl)
    gold = d * (alpha - beta * (d if form == "best-of-n" else np.log(d)))
    fit = fit_overoptimisation(kl, gold, form, rng(), draws=20)
    assert (fit.alpha.value, fit.beta.value) == pytest.approx((alpha, beta))
    assert fit.gold(kl) == pytest.approx(gold)
    around = fit.peak_kl.value * np.array([0.98, 1.0, 1.02])
    assert fit.gold(around).argmax() == 1 and fit.gold(fit.peak_kl.value) == pytest.approx(fit.peak_gold.value)


def test_gold_starts_at_nothing() -> None:
    kl = [0.0, 0.1, 1.0, 4.0, 9.0]
    fit = fit_overoptimisation(kl, np.sqrt(kl), "policy", rng())
    assert fit.gold([0.0, 4.0]) == pytest.approx([0.0, 2.0], abs=1e-12)


def test_a_reward_that_never_turns_has_no_peak() -> None:
    kl = np.geomspace(0.1, 20, 8)
    rising = 0.5 * np.sqrt(kl) + 0.1 * kl
    assert fit_overoptimisation(kl, rising, "best-of-n", rng()).peak_kl.value == np.inf
    noisy = 0.5 * np.sqrt(kl) + 0.2 * np.random.default_rng(1).normal(size=8)
    assert fit_overoptimisation(kl, noisy, "best-of-n", rng()).peak_kl.high == np.inf
    assert peak_distance([[-1.0, 0.5], [1.0, 0.5], [1.0, -0.5]], "best-of-n").tolist() == [0.0, 1.0, np.inf]


@pytest.mark.parametrize("form", ["best-of-n", "policy"])
def test_peak_intervals_cover(form) -> None:
    kl, held = np.geomspace(0.1, 20, 8), []
    d = np.sqrt(kl)
    peak = (1 / 0.8) ** 2 if form == "best-of-n" else math.exp(1 / 0.4 - 1) ** 2
    for seed in range(200):
        source = np.random.default_rng(seed)
        gold = d * (1 - 0.4 * (d if form == "best-of-n" else np.log(d))) + 0.1 * source.normal(size=8)
        found = fit_overoptimisation(kl, gold, form, source, draws=300).peak_kl
        held.append(found.low <= peak <= found.high)
    assert 0.82 <= np.mean(held) <= 0.97


def test_kl_of_best_of_n_by_simulation() -> None:
    """KL(best || one) = E log(density ratio) = E log(n u^(n-1)) over the largest u of n."""
    best = np.random.default_rng(2).random((200_000, 8)).max(axis=1)
    assert float(best_of_n_kl(8)) == pytest.approx(np.mean(np.log(8 * best**7)), abs=0.01)
    assert best_of_n_kl([1, 2, 1000])[0] == 0 and (np.diff(best_of_n_kl(np.arange(1, 50))) > 0).all()


def test_line_fit_is_weighted_least_squares_with_t_intervals() -> None:
    source = np.random.default_rng(3)
    x, weights = np.linspace(0, 1, 12), source.uniform(0.5, 4, size=12)
    y = 2 * x - 1 + source.normal(size=12) / np.sqrt(weights)
    fit = line_fit(np.stack([np.ones(12), x], axis=1), y, weights, rng(), 20_000)
    slope, height = np.polyfit(x, y, 1, w=np.sqrt(weights))
    assert fit.coefficients == pytest.approx([height, slope])
    _, covariance = np.polyfit(x, y, 1, w=np.sqrt(weights), cov=True)
    half = reference.t.ppf(0.95, 10) * math.sqrt(covariance[0, 0])
    found = fit.estimate(lambda c: c[..., 1], 0.9)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    with pytest.raises(AligntaxError, match="do not determine"):
        line_fit(np.ones((5, 2)), np.ones(5), np.ones(5), rng(), 10)


@pytest.mark.parametrize(
    ("kl", "gold", "form", "says"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], "policy", "3 distinct KL"),
        ([1, 1, 2, 3], [0, 1, 2, 3], "policy", "3 distinct KL"),
        ([-1, 1, 2, 3, 4], [0, 1, 2, 3, 4], "policy", "at least 0"),
        ([1, 2, 3, 4], [0, 1, 2], "policy", r"gold \(3,\)"),
        ([1, 2, 3, 4], [0, 1, 2, np.nan], "policy", "finite"),
        ([1, 2, 3, 4], [0, 1, 2, 3], "ppo", "form='ppo'"),
    ],
)
def test_bad_input_is_named(kl, gold, form, says) -> None:
    with pytest.raises(DataError, match=says):
        fit_overoptimisation(kl, gold, form, rng())
    with pytest.raises(DataError, match=r"n=\[0, 3\]"):
        best_of_n_kl([0, 3])
