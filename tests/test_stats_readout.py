"""The readout of two classes: planted structure is found, absent structure is not, the choice of a layer earns nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score, roc_curve

from aligntax.errors import AligntaxError
from aligntax.stats import area_under_curve
from aligntax.stats.readout import _ridge, caught_at, linear_readout, read_out


def states(n, m, gap, layers=6, d=40, seed=0):
    """Noise, and at layer 3 a mean difference of `gap` standard deviations along one axis."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, layers, d)), rng.standard_normal((m, layers, d))
    a[:, min(3, layers - 1), 0] += gap
    return a, b


def test_a_planted_difference_is_found_at_its_layer():
    found = linear_readout(*states(60, 80, 8.0))
    assert found.layers == (3,) * 5
    assert found.auc.value > 0.97 and found.caught[0].value > 0.85
    assert found.auc.low <= found.auc.value <= found.auc.high


def test_without_structure_the_choice_among_layers_earns_nothing():
    found = [linear_readout(*states(40, 40, 0.0, layers=12, seed=k)) for k in range(20)]
    aucs = np.array([f.auc.value for f in found])
    assert abs(aucs.mean() - 0.5) < 3 * aucs.std(ddof=1) / np.sqrt(len(aucs)) + 0.02
    assert np.mean([f.caught[0].value for f in found]) < 0.15


def test_twice_as_many_prompts_help_where_a_readout_is_starved_and_not_where_it_is_full():
    starved = [linear_readout(*states(24, 24, 2.5, layers=1, d=60, seed=k)).doubling for k in range(8)]
    full = linear_readout(*states(60, 60, 12.0, layers=1)).doubling
    assert np.mean([d.value for d in starved]) > 0.02
    assert full.value == pytest.approx(0.0, abs=1e-3) and full.low <= full.value <= full.high


def test_a_readout_does_not_depend_on_where_the_states_lie_or_on_their_scale():
    a, b = states(30, 40, 3.0)
    moved = linear_readout(7 * a + 100, 7 * b + 100)
    np.testing.assert_allclose(moved.positive, linear_readout(a, b).positive, atol=1e-6)


def test_the_dual_solution_is_the_weighted_ridge_regression():
    a, b = states(20, 30, 2.0, layers=1)
    x = np.concatenate([a, b])[:, 0]
    label = np.r_[np.ones(20), np.zeros(30)].astype(bool)
    train, test = np.arange(0, 50, 2), np.arange(1, 50, 2)
    share = label[train].mean()
    weight = np.where(label[train], 0.5 / share, 0.5 / (1 - share))
    middle = np.average(x[train], axis=0, weights=weight)
    ridge = np.square(x[train] - middle).sum() / len(train)
    model = Ridge(alpha=ridge, fit_intercept=False).fit(
        x[train] - middle, np.where(label[train], 1.0, -1.0), sample_weight=weight
    )
    np.testing.assert_allclose(_ridge(x @ x.T, label, train, test), model.predict(x[test] - middle), atol=1e-9)


def test_prompts_of_neither_class_are_scored_by_what_tells_the_classes_apart():
    a, b = states(60, 80, 6.0)
    more_a, more_b = states(30, 40, 6.0, seed=9)
    scores, layer = read_out(a, b, np.concatenate([more_a, more_b]))
    assert layer == 3 and area_under_curve(scores, np.r_[np.ones(30), np.zeros(40)]) > 0.95
    other, _ = read_out(a, b, np.concatenate([more_b, more_a]))
    np.testing.assert_allclose(other, np.r_[scores[30:], scores[:30]], atol=1e-8)
    noise = [
        read_out(*states(40, 40, 0.0, seed=k), np.concatenate(states(40, 40, 0.0, seed=50 + k)))[0] for k in range(12)
    ]
    aucs = [area_under_curve(x, np.r_[np.ones(40), np.zeros(40)]) for x in noise]
    assert abs(np.mean(aucs) - 0.5) < 3 * np.std(aucs, ddof=1) / np.sqrt(12) + 0.02
    with pytest.raises(AligntaxError, match="to score"):
        read_out(a, b, more_a[:, :2])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=3, max_size=30),
    st.lists(st.integers(-5, 5), min_size=3, max_size=30),
    st.sampled_from([0.05, 0.1, 0.34, 0.5]),
)
def test_areas_and_shares_agree_with_an_established_library(up, down, share):
    scores, label = np.array([*up, *down], dtype=float), [1] * len(up) + [0] * len(down)
    assert area_under_curve(scores, label) == pytest.approx(roc_auc_score(label, scores))
    false, true, _ = roc_curve(label, scores, drop_intermediate=False)
    best = max(t for f, t in zip(false, true, strict=True) if f <= share + 1e-9)
    assert caught_at(np.array(up, float), np.array(down, float), share) == pytest.approx(best)


@pytest.mark.parametrize(
    ("a", "b", "shares", "said"),
    [
        (np.zeros((12, 2, 3)), np.zeros((12, 3, 3)), (0.05,), "(12, 3, 3)"),
        (np.zeros((9, 2, 3)), np.zeros((12, 2, 3)), (0.05,), "9 and 12"),
        (np.zeros((12, 2, 3)), np.zeros((12, 2, 3)), (0.0,), "[0.0]"),
    ],
)
def test_input_that_cannot_be_used_is_said(a, b, shares, said):
    with pytest.raises(AligntaxError) as caught:
        linear_readout(a, b, shares)
    assert said in str(caught.value)


def test_equal_states_say_nothing():
    found = linear_readout(np.ones((12, 2, 3)), np.ones((14, 2, 3)))
    assert found.auc.value == 0.5 and found.caught[0].value == 0.0
