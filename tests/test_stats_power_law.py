"""Power laws: exponents, floors, and what four or six points can and cannot decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.errors import DataError
from aligntax.stats import Resampling, fit_power_law

X = np.geomspace(1, 1e4, 8)


@settings(max_examples=40, deadline=None)
@given(st.floats(-2, 2).filter(lambda g: abs(g) > 0.01), st.floats(0.01, 100))
def test_exact_laws_are_recovered(exponent: float, scale: float) -> None:
    law = fit_power_law(X, scale * X**exponent, resampling=Resampling(draws=10))
    assert (law.exponent.value, law.scale) == pytest.approx((exponent, scale))
    assert law(X) == pytest.approx(scale * X**exponent)
    assert np.log(law.unit_size) == pytest.approx(-np.log(scale) / exponent, abs=1e-6)


@pytest.mark.parametrize("floor", [0.0, 0.3, 1.5, 20.0])
def test_exact_floors_are_recovered(floor: float) -> None:
    law = fit_power_law(X, 4 * X**-0.35 + floor, floor=True, resampling=Resampling(draws=5))
    assert (law.exponent.value, law.floor.value) == pytest.approx((-0.35, floor), abs=1e-3)


def test_the_unit_of_either_axis_does_not_matter() -> None:
    y = (4 * X**-0.35 + 1) * np.exp(0.02 * np.random.default_rng(0).normal(size=8))
    here = fit_power_law(X, y, floor=True, resampling=Resampling(draws=30))
    there = fit_power_law(X * 1e6, y * 1e-3, floor=True, resampling=Resampling(draws=30))
    assert there.exponent.value == pytest.approx(here.exponent.value, rel=1e-4)
    assert there.floor.value == pytest.approx(here.floor.value * 1e-3, rel=1e-4)


def test_a_floor_left_out_bends_the_exponent() -> None:
    y = 4 * X**-0.5 + 1
    assert fit_power_law(X, y).exponent.value > -0.25
    law = fit_power_law(X, y, floor=True, resampling=Resampling(draws=5))
    assert law.exponent.value == pytest.approx(-0.5, abs=1e-3)


def test_weights_decide_which_points_count() -> None:
    y = X**-0.5
    y[0] *= 10
    trusting, wary = fit_power_law(X, y), fit_power_law(X, y, weights=[1e-9, *[1] * 7])
    assert abs(trusting.exponent.value + 0.5) > 0.1
    assert wary.exponent.value == pytest.approx(-0.5, abs=1e-6)


@pytest.mark.parametrize(("points", "floor"), [(4, False), (6, False), (8, True)])
def test_intervals_cover(points: int, floor: bool) -> None:
    x, held = np.geomspace(1, 1e4, points), []
    for seed in range(200):
        y = (4 * x**-0.35 + floor) * np.exp(0.02 * np.random.default_rng(seed).normal(size=points))
        law = fit_power_law(x, y, floor, resampling=Resampling(400, seed=seed))
        held.append(law.exponent.low <= -0.35 <= law.exponent.high)
    assert 0.8 <= np.mean(held) <= 0.98  # 90% meant


def test_superlinear_is_said_only_where_the_interval_says_so() -> None:
    noise = np.exp(0.05 * np.random.default_rng(1).normal(size=8))
    assert fit_power_law(X, X**1.5 * noise).superlinear == "yes"
    assert fit_power_law(X, X**0.6 * noise).superlinear == "no"
    assert fit_power_law(X[:5] ** 0.1, X[:5] ** 0.1 * noise[:5]).superlinear == "undecided"


@pytest.mark.parametrize(
    ("x", "y", "weights", "says"),
    [
        ([1, 2, 3], [1, 2, 3], None, r"3 distinct x, \[1.0, 2.0, 3.0\]"),
        ([1, 2, 2, 3], [1, 2, 3, 4], None, "at least four"),
        ([0, 2, 3, 4], [1, 2, 3, 4], None, r"x holds 0\.0"),
        ([1, 2, 3, 4], [1, -2, 3, 4], None, r"y holds -2\.0"),
        ([1, 2, 3, 4], [1, 2, 3, np.inf], None, "y holds inf"),
        ([1, 2, 3, 4], [1, 2, 3, 4], [1, 0, 1, 1], r"weights holds 0\.0"),
        ([1, 2, 3, 4], [1, 2, 3], None, r"y \(3,\)"),
    ],
)
@pytest.mark.parametrize("floor", [False, True])
def test_bad_input_is_named(x, y, weights, says, floor) -> None:
    with pytest.raises(DataError, match=says):
        fit_power_law(x, y, floor, weights)
