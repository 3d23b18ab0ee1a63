"""Whom a score tells apart and what deciding by it costs: values against brute force, intervals that cover where all is right."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from aligntax.errors import AligntaxError
from aligntax.stats import separation


def test_values_are_those_of_the_curve():
    rng = np.random.default_rng(1)
    up, down = rng.normal(2, 1, 80), rng.normal(0, 1, 200)
    s = separation(up, down, up > 1)
    assert s.auc.value == pytest.approx(roc_auc_score(np.r_[np.ones(80), np.zeros(200)], np.r_[up, down]))
    assert s.ranked.value == pytest.approx((down > 1).mean(), abs=0.02)


def test_a_perfect_score_on_few_prompts_is_not_said_to_be_sure():
    s = separation(np.arange(8.0) + 100, np.arange(16.0), np.r_[np.ones(6), np.zeros(2)])
    assert s.auc.value == 1.0 and s.auc.low == pytest.approx(0.05 ** (1 / 8)) and s.auc.high == 1.0
    assert s.ranked.value == 0.0 < 0.15 < s.ranked.high
    back = separation(np.arange(16.0), np.arange(8.0) + 100, np.ones(16))
    assert back.auc.value == 0.0 and back.auc.high == pytest.approx(1 - 0.05 ** (1 / 8))


@pytest.mark.parametrize("chosen", [0.0, 1.0])
def test_where_all_or_none_were_chosen_no_threshold_is_known(chosen):
    s = separation(np.arange(9.0), np.arange(20.0), np.full(9, chosen))
    assert np.isnan([s.ranked.value, s.ranked.low, s.ranked.high]).all() and s.auc.low < s.auc.high


@pytest.mark.parametrize(
    ("n", "m", "gap", "threshold"),
    [(8, 16, 3.0, 1.0), (16, 45, 3.0, 1.0), (62, 91, 3.0, 1.0), (62, 91, 1.5, 0.5), (60, 120, 2.5, 0.5)],
)
def test_intervals_cover_what_would_be_seen_of_many_prompts(n, m, gap, threshold):
    """Normal scores, decided at a threshold: the area is known, and so is the share of negatives above it."""
    area, share = norm.cdf(gap / np.sqrt(2)), norm.sf(threshold)
    held, ranked = [], []
    for seed in range(150):
        rng = np.random.default_rng([n, m, seed])
        up, down = rng.normal(gap, 1, n), rng.normal(0, 1, m)
        s = separation(up, down, up > threshold)
        held.append(s.auc.low <= area <= s.auc.high)
        if not np.isnan(s.ranked.value):
            ranked.append(s.ranked.low <= share <= s.ranked.high)
    assert np.mean(held) >= 0.84, np.mean(held)
    assert len(ranked) > 10 and np.mean(ranked) >= 0.84, np.mean(ranked)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=25),
    st.integers(2, 25),
    st.integers(0, 99),
)
def test_ranked_lies_where_as_many_positives_are_chosen(up, m, seed):
    scores, chosen = np.array([s for s, _ in up], float), np.array([c for _, c in up], float)
    down = np.random.default_rng(seed).integers(-4, 5, m).astype(float)
    s = separation(scores, down, chosen)
    assert 0 <= s.auc.low <= s.auc.value <= s.auc.high <= 1
    count = int(chosen.sum())
    if 0 < count < len(scores):
        threshold = np.mean(sorted(scores, reverse=True)[count - 1 : count + 1])
        assert (scores > threshold).sum() <= count <= (scores >= threshold).sum() + 1
        assert s.ranked.value == pytest.approx((down >= threshold).mean())
        assert s.ranked.low <= s.ranked.value <= s.ranked.high


@pytest.mark.parametrize(
    ("up", "chosen", "said"),
    [([1.0, 2.0], [1.0], "(1,)"), ([1.0], [1.0], "two of each"), ([1.0, np.nan], [1, 0], "nan"),
     ([1.0, np.inf], [1, 0], "infinity"), ([1.0, 2.0], [0.5, 0], "0 and 1")],
)  # fmt: skip
def test_input_that_cannot_be_used_is_said(up, chosen, said):
    with pytest.raises(AligntaxError) as caught:
        separation(up, [0.0, 1.0], chosen)
    assert said in str(caught.value)
