"""Agreement with labels against hand counts and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from aligntax.errors import JudgeError
from aligntax.judging import agreement
from aligntax.judging.agreement import cohen_kappa


def test_perfect_agreement_and_its_opposite():
    label = np.array([True, False] * 20)
    right = agreement(label.astype(float), label, np.random.default_rng(0))
    wrong = agreement(1.0 - label, label, np.random.default_rng(0))
    assert (right.accuracy.value, right.kappa.value, right.missed, right.invented) == (1.0, 1.0, 0, 0)
    assert (wrong.accuracy.value, wrong.kappa.value, wrong.missed, wrong.invented) == (0.0, -1.0, 20, 20)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=4, max_size=40), st.floats(0.05, 1))
def test_values_are_those_of_scikit_learn(rows, threshold):
    label = [truth for truth, _ in rows]
    scores = [score for _, score in rows]
    said = [score >= threshold for score in scores]
    found = agreement(scores, label, np.random.default_rng(0), threshold=threshold)
    if len(set(label)) == 2:
        assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(label, said))
        assert found.kappa.value == pytest.approx(cohen_kappa_score(label, said))
    else:
        assert math.isnan(found.balanced_accuracy.value)


def test_an_unjudged_reply_agrees_with_nobody():
    label = [True, True, False, False]
    found = agreement([0.9, math.nan, 0.1, math.nan], label, np.random.default_rng(0))
    assert (found.unjudged, found.missed, found.invented) == (2, 1, 0)
    assert found.accuracy.value == found.balanced_accuracy.value == 0.5
    assert cohen_kappa(np.array([1, np.nan, 0, np.nan]), np.array(label)) == pytest.approx((0.5 - 0.25) / 0.75)


def test_intervals_cover_and_shrink_with_n():
    rng = np.random.default_rng(1)
    widths = []
    for n in (50, 800):
        label = rng.random(n) < 0.5
        scores = np.where(rng.random(n) < 0.85, label, ~label).astype(float)
        found = agreement(scores, label, np.random.default_rng(0)).accuracy
        assert found.low <= found.value <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2.5


def test_the_curve_holds_the_threshold_that_was_used():
    rng = np.random.default_rng(2)
    label = rng.random(100) < 0.5
    found = agreement(np.clip(label * 0.3 + rng.random(100) * 0.7, 0, 1), label, rng)
    assert len(found.curve) == 19
    at_half = next(point for point in found.curve if point.threshold == 0.5)
    assert at_half.accuracy == found.accuracy.value and at_half.kappa == found.kappa.value


@pytest.mark.parametrize(("scores", "labels"), [([0.5], [True]), ([0.1, 0.2], [True]), ([[0.1], [0.2]], [True, False])])
def test_bad_shapes_are_refused(scores, labels):
    with pytest.raises(JudgeError, match="one of each"):
        agreement(scores, labels, np.random.default_rng(0))
