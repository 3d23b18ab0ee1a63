"""Late KL: an equivalence test that can say incidental, functional, none, and mostly undecided."""

import numpy as np
import pytest
import scipy.stats

from aligntax.audit import equivalence_p, late_kl, late_numbers
from aligntax.errors import AligntaxError


def sample(mean: float, sd: float, n: int, seed: int = 0) -> np.ndarray:
    """`n` numbers with exactly this mean and standard deviation."""
    x = np.random.default_rng(seed).normal(size=n)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


COST = sample(0.1, 0.02, 16)


def test_verdicts_follow_the_intervals():
    assert late_kl(COST, sample(0.005, 0.02, 16)).verdict == "incidental"
    assert late_kl(COST, sample(0.3, 0.1, 16)).verdict == "functional"
    assert late_kl(COST, sample(0.005, 0.3, 16)).verdict == "undecided", "no rise was found, and none was excluded"
    assert late_kl(COST, sample(0.06, 0.05, 16)).verdict == "undecided", "near the margin"
    assert late_kl(COST, sample(-0.3, 0.1, 16)).verdict == "undecided", "late KL that lowers recovery is neither"
    assert late_kl(sample(1e-4, 1e-5, 16), sample(0.0, 0.01, 16)).verdict == "none"
    assert late_kl(sample(1e-3, 1e-3, 16), sample(0.0, 0.01, 16)).verdict == "undecided", "is there any late KL?"
    assert late_kl(COST[:1], COST[:1]).verdict == late_kl([], []).verdict == "undecided"


def test_the_p_value_is_that_of_two_one_sided_t_tests():
    for seed in range(5):
        rise = np.random.default_rng(seed).normal(0.01, 0.05, 12)
        low = scipy.stats.ttest_1samp(rise, -0.05, alternative="greater").pvalue
        high = scipy.stats.ttest_1samp(rise, 0.05, alternative="less").pvalue
        assert equivalence_p(rise, 0.05) == pytest.approx(max(low, high))
        found = late_kl(COST[:12], rise)
        assert (found.verdict == "incidental") == (found.p_value <= 0.05)
        assert (found.rise.low, found.rise.high) == pytest.approx(
            scipy.stats.t.interval(0.9, 11, rise.mean(), rise.std(ddof=1) / np.sqrt(12))
        )


def test_a_rise_at_the_margin_is_called_incidental_one_time_in_twenty():
    rng = np.random.default_rng(1)
    called = [late_kl(COST, rng.normal(0.05, 0.04, 16)).verdict == "incidental" for _ in range(2000)]
    assert 0.03 < np.mean(called) < 0.07


def test_what_was_stated_stands_in_the_result():
    found = late_kl(COST, np.zeros(16), margin=0.1, least_kl=0.01, alpha=0.1)
    assert (found.margin, found.least_kl, found.alpha, found.prompts) == (0.1, 0.01, 0.1, 16)
    assert found.verdict == "incidental" and found.p_value == 0.0
    # Sixteen prompts of one mind leave room for this share of others.
    assert (1 - found.unseen) ** 16 == pytest.approx(0.1)


def test_late_numbers_are_means_past_the_horizon_by_prompt():
    nan = np.nan
    kl = np.array([[9, 9, 1, 3.0], [9, 9, 5, nan], [9, nan, nan, nan]])
    rise = np.array([[0, 0, 0.2, 0.4, 9], [0, 0, 0.6, 9, nan], [0, 9, nan, nan, nan]])
    nats, gain = late_numbers(kl, rise, np.array([4, 4, 7]), 2)
    np.testing.assert_allclose(nats, [3.0, nan])
    np.testing.assert_allclose(gain, [0.4, nan])
    assert late_kl(nats, gain).prompts == 1
    whole = late_numbers(kl, rise, np.arange(3), 0)[0]
    np.testing.assert_allclose(whole, [5.5, 23 / 3, 9])


def test_bad_input_is_refused():
    with pytest.raises(AligntaxError, match="margin=0"):
        late_kl(COST, COST, margin=0)
    with pytest.raises(AligntaxError, match="one number of each"):
        late_kl(COST, COST[1:])
    with pytest.raises(AligntaxError, match="horizon=-1"):
        late_numbers(np.zeros((2, 3)), np.zeros((2, 4)), np.arange(2), -1)
