"""Knowing whom to refuse and deciding so: two causes of over-refusal told apart, with intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from aligntax.errors import AligntaxError
from aligntax.stats import Separation, separation


def found(up, down, chosen_up, chosen_down, draws=200) -> Separation:
    return separation((up, chosen_up), (down, chosen_down), np.random.default_rng(0), draws)


def test_decisions_by_a_threshold_have_no_excess():
    rng = np.random.default_rng(1)
    up, down = rng.normal(2, 1, 80), rng.normal(0, 1, 200)
    s = found(up, down, up > 1, down > 1)
    assert s.excess.value == pytest.approx(0.0, abs=0.02) and s.excess.low <= 0.02
    assert s.ranked.value == pytest.approx((down > 1).mean(), abs=0.02)
    assert s.auc.value == pytest.approx(roc_auc_score(np.r_[np.ones(80), np.zeros(200)], np.r_[up, down]))


def test_decisions_that_pass_over_the_ranking_are_all_excess():
    up, down = np.arange(10.0) + 100, np.arange(40.0)
    s = found(up, down, np.ones(10), np.r_[np.ones(10), np.zeros(30)])
    assert (s.auc.value, s.ranked.value, s.excess.value) == (1.0, 0.0, 0.25)
    assert s.excess.low > 0.1


def test_the_interval_of_the_excess_covers_the_truth():
    """Scores with a gap of 1.5, a tenth of the negatives chosen against their score: the excess is that tenth of those below."""
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng([7, seed])
        up, down = rng.normal(1.5, 1, 60), rng.normal(0, 1, 120)
        odd = rng.random(120) < 0.1
        s = separation((up, up > 0.5), (down, (down > 0.5) | odd), rng, 300)
        truth = 0.1 * 0.6914624612740131  # share below .5 of a standard normal
        hits += s.excess.low <= truth <= s.excess.high
    assert hits >= 46


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=25),
    st.integers(2, 25),
    st.integers(0, 99),
)
def test_ranked_lies_where_as_many_positives_are_chosen(up, m, seed):
    scores, chosen = np.array([s for s, _ in up], float), np.array([c for _, c in up], float)
    down = np.random.default_rng(seed).integers(-4, 5, m).astype(float)
    s = found(scores, down, chosen, np.zeros(m), 20)
    if not chosen.any():
        assert np.isnan(s.ranked.value) and np.isnan(s.excess.value)
        return
    count = int(chosen.sum())
    threshold = np.mean(sorted(scores, reverse=True)[count - 1 : count + 1])
    assert (scores > threshold).sum() <= count <= (scores >= threshold).sum() + (count < len(scores))
    assert s.ranked.value == pytest.approx((down >= threshold).mean())
    assert s.excess.value == pytest.approx(-s.ranked.value)


@pytest.mark.parametrize(
    ("up", "chosen", "said"),
    [
        ([1.0, 2.0], [1.0], "(2,)"),
        ([1.0], [1.0], "2 or more"),
        ([1.0, np.nan], [1, 0], "nan"),
        ([1.0, 2.0], [0.5, 0], "0 and 1"),
    ],
)
def test_input_that_cannot_be_used_is_said(up, chosen, said):
    with pytest.raises(AligntaxError, match="positive") as caught:
        separation((up, chosen), ([0.0, 1.0], [0, 0]), np.random.default_rng(0))
    assert said in str(caught.value)
